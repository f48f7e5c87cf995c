"""What the op benchmarks measure on: layer shapes of real networks, and scores on the move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, cycle
from math import sqrt

import torch
from torch import Tensor, nn

from bench.harness import Work
from hiddennet import models, ops

# one layer of each size that matters: conv4 and resnet-18 at 32^2 and 8^2, the widest, a classifier
LAYERS = {
    "64x64x3x3": (64, 64, 3, 3),
    "128x128x3x3": (128, 128, 3, 3),
    "256x256x3x3": (256, 256, 3, 3),
    "512x512x3x3": (512, 512, 3, 3),
    "256x16384": (256, 16384),
}
QUICK_LAYERS = ("64x64x3x3",)
STATES = 4  # of scores, that selections go to and fro between
FLIPPED, DRIFT = 0.0035, 1e-3


def layers(quick: bool) -> dict[str, tuple[int, ...]]:
    """The layers to measure, by name."""
    return {n: LAYERS[n] for n in QUICK_LAYERS} if quick else LAYERS


def network(name: str) -> list[tuple[int, ...]]:
    """The weight shapes of a network, in module order."""
    with torch.device("meta"):
        model = models.build(name, num_classes=10)
    kinds = (nn.Conv2d, nn.Linear)
    return [tuple(m.weight.shape) for m in model.modules() if isinstance(m, kinds)]


def size(shapes: Sequence[Sequence[int]]) -> int:
    """The weights of all shapes together."""
    return sum(torch.Size(shape).numel() for shape in shapes)


def kept(n: int, density: float = 0.5) -> int:
    """Edge-popup's k."""
    return n - int((1 - density) * n)


def walk(shape: Sequence[int], states: int, device: torch.device, seed: int = 0) -> list[Tensor]:
    """Scores of one layer after each of `states` optimiser steps.

    They start as U(+-1/sqrt(fan_in)) and move so that between two states 0.35 % of the mask flips
    and the threshold moves by 0.1 %: the most that was seen in layers of 37 000 weights and more
    when Conv4 is trained at its learning rate of 0.1.
    """
    generator = torch.Generator().manual_seed(seed)
    fan_in = max(1, torch.Size(shape)[1:].numel())
    bound = 1 / sqrt(fan_in)
    now = (torch.rand(tuple(shape), generator=generator) * 2 - 1) * bound
    found = [now.to(device)]
    for _ in range(states - 1):
        noise = torch.randn(tuple(shape), generator=generator)
        # scores of uniform magnitude: the mask flips by E|step| / bound, E|N(0, 1)| = sqrt(2 / pi)
        now = now * (1 - DRIFT) + noise * (FLIPPED * bound / sqrt(2 / torch.pi))
        found.append(now.to(device))
    return found


def walks(shapes: Sequence[Sequence[int]], device: torch.device) -> list[list[Tensor]]:
    """Scores of a network in each of STATES states."""
    by_layer = [walk(shape, STATES, device, seed=i) for i, shape in enumerate(shapes)]
    return [list(state) for state in zip(*by_layer, strict=True)]


def swinging(work: Callable[[int], object], states: int = STATES) -> Work:
    """Call `work` with 0, 1, ..., states - 1, ..., 1, 0, ...: each a small step from the last."""
    if states < 2:
        return lambda: work(0)
    indices = cycle(chain(range(states), range(states - 2, 0, -1)))
    return lambda: work(next(indices))


def selected(row: Tensor, by: str = "magnitude") -> ops.Mask:
    """The rule of a layer whose selection is made."""
    return ops.Mask.selected(row, by)


def selected_mask(scores: Tensor, row: Tensor, by: str = "magnitude") -> Tensor:
    """The mask of a layer whose selection is made."""
    return ops.rule_mask(scores, selected(row, by), scores.shape)


def sorted_mask(scores: Tensor, k: int) -> Tensor:
    """The oracle: the k largest magnitudes by a stable sort, bool of the scores' shape."""
    order = scores.abs().flatten().sort(stable=True).indices
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[order[: scores.numel() - k]] = False
    return mask.view(scores.shape)


def over(parts: Sequence, work: Callable[..., object]) -> Work:
    """One work for all parts, one after another."""

    def run() -> None:
        for part in parts:
            work(part)

    return run
