"""Networks of signed constants run by hiddennet.runtime beside ONNX Runtime and OpenVINO, on one thread.

python -m bench.runtime [--nets cifar_resnet18 resnet50] [--densities 0.5 0.3 0.1] [--json PATH] [--quick]

CPU time of a call, the least of several, all engines' calls interleaved; HIDDENNET_ISA holds hiddennet back and nobody
else. OpenVINO is left out where it is not installed. The logits are compared first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import hiddennet as hn
from bench.environment import environment, headline
from bench.harness import Unequal
from bench.nets import hidden

SIDES = {"cifar_resnet18": 32, "resnet50": 224}
BATCHES = {"cifar_resnet18": (32, 1), "resnet50": (1,)}
Engine = Callable[[np.ndarray], np.ndarray]


def files(name: str, density: float, folder: Path) -> tuple[Path, Path]:
    """A network of that density as our file and as ONNX."""
    model = hidden(name, torch.device("cpu"), density=density).eval()
    ours, onnx = folder / "net.hidden", folder / "net.onnx"
    example = torch.randn(2, 3, SIDES[name], SIDES[name])
    hn.export(model, ours, runtime=True, example=example)
    hn.export_onnx(model, onnx, example)
    return ours, onnx


def engines(ours: Path, onnx: Path, shape: tuple[int, ...]) -> dict[str, Engine]:
    """What can run here, by name."""
    import onnxruntime

    import hiddennet.runtime as rt

    found: dict[str, Engine] = {
        "hiddennet float32": rt.load(ours, threads=1, bf16=False),
        "hiddennet bfloat16": rt.load(ours, threads=1, bf16=True),
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    found["ONNX Runtime float32"] = lambda x: session.run(None, {"input": x})[0]
    try:
        import openvino
    except ImportError:
        return found
    for name, kind in (("float32", "f32"), ("bfloat16", "bf16")):
        core = openvino.Core()
        read = core.read_model(str(onnx))
        read.reshape(list(shape))
        hints = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(read, "CPU", hints).create_infer_request()
        found[f"OpenVINO {name}"] = lambda x, request=request: next(iter(request.infer({0: x}).values()))
    return found


def check(runs: dict[str, Engine], x: np.ndarray) -> None:
    """Raise Unequal where an engine's logits are another network's."""
    want = runs["ONNX Runtime float32"](x)
    for name, run in runs.items():
        error = np.abs(np.asarray(run(x)) - want).max() / np.abs(want).max()
        if not error < (0.1 if name.endswith("bfloat16") else 1e-4):
            raise Unequal(f"{name}: the logits differ by {error:.2g} of their largest")


def least(runs: dict[str, Engine], x: np.ndarray, seconds: float) -> dict[str, float]:
    """Milliseconds of CPU time of the quickest call, by engine."""
    best = dict.fromkeys(runs, float("inf"))
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or rounds < 3:
        rounds += 1
        for name, run in runs.items():
            for _ in range(3):
                begin = time.process_time()
                run(x)
                best[name] = min(best[name], (time.process_time() - begin) * 1e3)
    return best


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--nets", nargs="+", choices=SIDES, default=list(SIDES))
    flags.add_argument("--densities", nargs="+", type=float, default=[0.5, 0.3, 0.1])
    flags.add_argument("--batches", nargs="+", type=int, help="instead of 32 and 1 (ResNet-50: 1)")
    flags.add_argument("--seconds", type=float, default=10.0, help="a row")
    flags.add_argument("--json", type=Path)
    flags.add_argument("--quick", action="store_true", help="that it runs; the times mean nothing")
    args = flags.parse_args()
    torch.set_num_threads(1)
    where = environment(torch.device("cpu"))
    print(f"{headline(where)}; HIDDENNET_ISA={where_isa()}", flush=True)
    rows = []
    for name in args.nets[:1] if args.quick else args.nets:
        for density in args.densities[:1] if args.quick else args.densities:
            with tempfile.TemporaryDirectory() as folder:
                ours, onnx = files(name, density, Path(folder))
                for batch in args.batches or BATCHES[name]:
                    x = np.random.default_rng(0).standard_normal((batch, 3, SIDES[name], SIDES[name])).astype("float32")
                    runs = engines(ours, onnx, x.shape)
                    check(runs, x)
                    times = least(runs, x, 0.0 if args.quick else args.seconds)
                    rows.append({"net": name, "density": density, "batch": batch, "isa": where_isa(), "ms": times})
                    text = ", ".join(f"{engine} {ms:.2f}" for engine, ms in times.items())
                    print(f"{name}, density {density:g}, batch {batch}, ms: {text}", flush=True)
    if args.json is not None:
        args.json.write_text("".join(json.dumps(row) + "\n" for row in [{"environment": where}, *rows]))


def where_isa() -> str:
    """The instruction set that hiddennet is held to."""
    import os

    return os.environ.get("HIDDENNET_ISA") or "all"


if __name__ == "__main__":
    main()
