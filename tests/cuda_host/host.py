"""CPU time of one training step that no graph captures, on the CUDA runtime that runs nothing: hidden beside dense.

A program, run by `python -m tests.cuda_host host` under the preloaded runtime. The network is CIFAR ResNet-18 in
bfloat16 and channels_last; what cuDNN's and cuBLAS's calls cost the host is not in it, on either side.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

import hiddennet as hn
from bench import environment
from hiddennet import models, tuned
from hiddennet.optim import ScoreSGD, optimizers
from tests.cuda_host import fakes

STEPS, ROUNDS = 3, 150


def step_of(hidden: bool) -> Callable[[], None]:
    """A step of edge-popup with ScoreSGD, or of dense training with torch's fused SGD."""
    torch.manual_seed(0)
    model = models.build("cifar_resnet18", num_classes=10, batch_norm="affine")
    if hidden:
        hn.hide(model, hn.Generated("signed_constant", seed=0))
    model = model.cuda().to(memory_format=torch.channels_last)
    learning, numbers = [p for p in model.parameters() if p.requires_grad], {"momentum": 0.9, "weight_decay": 1e-4}
    if hidden:
        optimizer = ScoreSGD(learning, 0.1, clamp=None, **numbers)
    else:
        optimizer = torch.optim.SGD(learning, 0.1, fused=True, **numbers)
    images = torch.zeros(32, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.zeros(32, dtype=torch.int64, device="cuda")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizers.step(optimizer)

    return step


def times() -> dict[str, list[float]]:
    """Milliseconds of all threads, a number a round, in which both take turns."""
    steps = {"hidden": step_of(True), "dense": step_of(False)}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began = time.process_time()
            for _ in range(STEPS):
                step()
            found[name].append((time.process_time() - began) / STEPS * 1e3)
    return found


def main() -> None:
    """Print the least of both, and the median of the rounds' ratios, which others on the machine disturb less."""
    library = fakes.install()
    found = times()
    del library
    said = ", ".join(f"{name} {min(ms):.2f} ms" for name, ms in found.items())
    ratio = statistics.median(mine / theirs for mine, theirs in zip(found["hidden"], found["dense"], strict=True))
    where = f"{environment._cpu_name()}, {tuned.instructions()}, torch {torch.__version__}"
    print(f"{said}: {ratio:.3f} times dense ({where})")


if __name__ == "__main__":
    main()
