"""SynFlow on the CIFAR ResNet-18: 100 iterations of ours, and some of ours against the original's sequence.

The bars are for 2 CPU cores: 12 seconds for 100 iterations, five times as fast as the original. The masks are shown
equal first. The time of ours includes all that it sets up.

python -m bench.pruning [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from bench import table
from bench.harness import Effort, Unequal, Work
from bench.originals_peek_a_boo import Synflow, masked_twin
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet import models
from hiddennet.pruning import densities, prune

DENSITY = 0.3
ITERATIONS = 100
COMPARED = 10  # iterations of both sides
SHAPE = (3, 32, 32)


def network(quick: bool, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    model = models.build("resnet20" if quick else "cifar_resnet18", num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model.to(device)


def ours(model: nn.Module, iterations: int) -> dict[str, Tensor]:
    return prune(model, "synflow", DENSITY, iterations=iterations, input_shape=SHAPE, exclude="fc")


def original(model: nn.Module, iterations: int) -> Synflow:
    loop = Synflow(masked_twin(copy.deepcopy(model)), SHAPE)
    loop.run(densities(DENSITY, iterations))
    return loop


def check(model: nn.Module, iterations: int) -> None:
    """As many masks, equal up to 1e-5 of the weights."""
    masks, loop = ours(model, iterations), original(model, iterations)
    pairs = list(zip(masks.values(), loop.pairs, strict=True))
    different = sum(int((mask != theirs.bool()).sum()) for mask, (theirs, _) in pairs)
    allowed = int(1e-5 * sum(mask.numel() for mask in masks.values()))
    if different > allowed:
        raise Unequal(f"synflow: expected masks that differ at {allowed} weights at most, got {different}")


def cases(at: Setting) -> Iterator[Case]:
    model = network(at.quick, at.device)
    whole, compared = (3, 3) if at.quick else (ITERATIONS, COMPARED)
    works: dict[str, Work] = {"hiddennet": partial(ours, model, compared)}
    if at.on_cpu:
        works["original"] = partial(original, model, compared)
    yield Case(
        f"synflow, density {DENSITY:g}, {compared} iterations",
        works,
        partial(check, model, compared) if at.on_cpu else None,
        [Claim("original", "hiddennet", at_least=5)] if at.on_cpu else [],
    )
    fastest = "hiddennet, the faster of two"
    yield Case(
        f"synflow, density {DENSITY:g}, {whole} iterations",
        {"hiddennet": partial(ours, model, whole)},
        values=lambda times: [Value(fastest, min(times["hiddennet"].seconds), "s", at_most=at.on_cpu_only(12))],
        effort=Effort(rounds=2, min_rounds=2, warmup=0, budget_s=0, sample_s=0),
    )


def main() -> None:
    effort = Effort(rounds=5, min_rounds=3, warmup=0, budget_s=30, sample_s=0)
    table.main("pruning", Benchmark(cases, effort, grad=True), __doc__)


if __name__ == "__main__":
    main()
