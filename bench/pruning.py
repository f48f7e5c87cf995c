"""SynFlow on the CIFAR ResNet-18: 100 iterations of ours, and some of ours against the original's sequence.

The bars are for 2 CPU cores: 12 seconds for 100 iterations, five times as fast as the original. The masks are shown
equal first. The time of ours includes all that it sets up.

python -m bench.pruning [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bench.harness import Effort, Unequal, device_of, measure, parser, ratio
from bench.originals_pruning import Synflow, masked_twin
from bench.report import Report
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


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    report = Report("pruning", args, device)
    model = network(args.quick, device)
    whole, compared = (3, 3) if args.quick else (ITERATIONS, COMPARED)
    bars = device.type == "cpu"
    what = f"synflow, density {DENSITY:g}"
    works = {"hiddennet": lambda: ours(model, compared)}
    if bars:
        check(model, compared)
        works["original"] = lambda: original(model, compared)
    effort = Effort.quick() if args.quick else Effort(rounds=5, min_rounds=3, warmup=0, budget_s=30, sample_s=0)
    times = measure(works, check=None, device=device, effort=effort)
    report.timings(f"{what}, {compared} iterations", times)
    if bars:
        cpu = ratio(times["original"], times["hiddennet"], clock="cpu")
        found = ratio(times["original"], times["hiddennet"])
        report.ratio(f"{what}, {compared} iterations", "original / hiddennet", found, cpu=cpu, at_least=5)
    once = Effort(rounds=2, min_rounds=2, warmup=0, budget_s=0, sample_s=0)
    full = measure({"hiddennet": lambda: ours(model, whole)}, check=None, device=device, effort=once)
    report.timings(f"{what}, {whole} iterations", full)
    fastest = min(full["hiddennet"].seconds)
    report.value(
        f"{what}, {whole} iterations", "hiddennet, the faster of two", fastest, "s", at_most=12 if bars else None
    )
    report.close()


if __name__ == "__main__":
    main()
