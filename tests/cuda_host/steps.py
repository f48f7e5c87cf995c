"""One training step of every method on the CUDA runtime that runs nothing: what it asks of the device, as JSON.

A program, run by test_cuda_host.py under the preloaded runtime. Numbers mean nothing here: kernels do nothing.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import torch

from hiddennet import config
from hiddennet.methods import METHODS
from hiddennet.train.build import build_model
from hiddennet.train.engine import Engine
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter
from tests.cuda_host import fakes

RUNTIME = ctypes.CDLL(None)
GPU = torch.device("cuda")
COUNTED = 3  # the step that is counted: by then everything is allocated
RESNET, WIRED = {"name": "cifar_resnet18", "width": 0.25}, {"name": "dnw_static"}
# what a step of the method needs beside its defaults; a name with a comma is another step of the method before it
CASES: dict[str, dict[str, Any]] = {
    **{name: {} for name in METHODS if name != "fine_tune"},  # which trains as `random` does, what a run has found
    "dnw": {"model": WIRED},
    "gem_miner": {"train": {"epochs": 20}},
    "iterand, with a redraw": {"method": {"period": COUNTED + 1}},
    "peek_a_boo, PSG": {"method": {"psg": {}}},
    "edge_popup, contiguous float32": {"train": {"amp": "float32", "channels_last": False}},
}


def counts() -> dict[str, int]:
    """What was asked since the last reset, by name."""
    text = ctypes.create_string_buffer(1 << 16)
    RUNTIME.mock_counts(text, len(text))
    pairs = (line.rsplit("\t", 1) for line in text.value.decode().splitlines())
    return {name: int(count) for name, count in pairs}


def engine_of(name: str) -> Engine:
    """The method's network on the device, at the beginning of its first stage."""
    case = CASES[name]
    settings = config.parse(
        {
            "name": "step",
            "model": case.get("model", RESNET),
            "data": {"name": "digits", "batch_size": 32, "limit": 200},
            "method": {"name": name.partition(",")[0], **case.get("method", {})},
            "optimizer": {"lr": 0.1},
            "train": {"epochs": 2, "device": "cuda", **case.get("train", {})},
        }
    )
    model, method = build_model(settings, 10, 3, 32)
    method.steps_per_epoch = 100
    return Engine(model.train(), settings, GPU, Ranks(), method)


def step_of(name: str) -> dict[str, Any]:
    """The counts of a step, and of one that a CUDA graph captures, or why it does not."""
    engine = engine_of(name)
    images, labels = torch.zeros(32, 3, 32, 32, device=GPU), torch.zeros(32, dtype=torch.int64, device=GPU)
    meter = Meter(GPU)

    def step(number: int) -> None:
        engine.method.before_forward(engine.model, number)
        engine.step(images, labels, meter, len(images), number)
        engine.method.after_update(engine.model, number)

    for number in range(COUNTED):
        step(number)
    RUNTIME.mock_reset()
    step(COUNTED)
    found: dict[str, Any] = {"step": counts()}
    RUNTIME.mock_reset()
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="global"):
            step(COUNTED + 1)
        found["captured"] = {what: n for what, n in counts().items() if what != "allocation"}  # of the graph's pool
    except (RuntimeError, AssertionError) as error:
        found["captured"] = {f"refused: {str(error).partition(chr(10))[0]}": 1}
    RUNTIME.mock_reset()
    for number in range(COUNTED + 2, COUNTED + 4):  # which the trainer captures and replays by itself
        step(number)
    violations = {what: n for what, n in counts().items() if what.startswith("violation")}
    RUNTIME.mock_reset()
    step(COUNTED + 4)
    why = {} if engine.graph.reason is None else {f"not captured: {engine.graph.reason}": 1}
    found["replayed"] = why or {**counts(), **violations}
    return found


def main() -> None:
    """Print the counts of all cases."""
    library = fakes.install()
    json.dump({name: step_of(name) for name in CASES}, sys.stdout, indent=1)
    del library


if __name__ == "__main__":
    main()
