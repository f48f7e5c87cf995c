"""Peek-a-Boo's original operations, written anew from their description, to be timed against.

Not for training: `hiddennet` is. Faithful where time goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class OriginalBop:
    """Its Bop step, one parameter after another: ten passes and more, two of them over float64 the weight's size.

    The average begins with (1 + rate) times the first gradient. What flips becomes a float64 mask, that one a float64
    multiplier whose ones are written through a boolean index. Flips of each element are added up in a float tensor that
    nothing reads, and their number is read back for each parameter.
    """

    def __init__(self, params: Sequence[Tensor], rate: float, threshold: float):
        self.params, self.rate, self.threshold = list(params), rate, threshold
        self.averages: list[Tensor] = []
        self.weight_flips = [torch.zeros_like(p) for p in self.params]
        self.flips: list[int] = []

    @torch.no_grad()
    def step(self) -> None:
        if not self.averages:
            self.averages = [p.grad.clone() for p in self.params]
            for m, p in zip(self.averages, self.params, strict=True):
                m.add_(p.grad * self.rate)
        else:
            for m, p in zip(self.averages, self.params, strict=True):
                m.mul_(1 - self.rate).add_(p.grad * self.rate)
        self.flips = []
        for p, m, counted in zip(self.params, self.averages, self.weight_flips, strict=True):
            flipped = ((m.abs() >= self.threshold) & (m.sign() == p.sign())).double()
            multiplier = -flipped
            multiplier[multiplier == 0] = 1
            p.mul_(multiplier)
            counted.add_(flipped)
            self.flips.append(int(flipped.sum().item()))
