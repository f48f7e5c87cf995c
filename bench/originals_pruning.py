"""Peek-a-Boo's original sequences of operations, written anew from their description, to be timed against.

Not for training: `hiddennet` is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# -- pruning: SynFlow ---------------------------------------------------------------------------------------------


class MaskedConv2d(nn.Conv2d):
    """A convolution that multiplies a mask of the weight's size at each forward."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_mask * self.weight
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def masked_twin(model: nn.Module) -> nn.Module:
    """The model, in place: its convolutions with masks, everything in float64, in evaluation mode."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = MaskedConv2d
            module.register_buffer("weight_mask", torch.ones_like(module.weight))
    return model.eval().double()


class Synflow:
    """The loop of 100 iterations: signs of the whole state dict, a backward to every parameter, one kthvalue."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...]):
        self.model, self.input_shape = model, input_shape
        self.pairs = [(m.weight_mask, m.weight) for m in model.modules() if isinstance(m, MaskedConv2d)]
        self.scores: dict[int, Tensor] = {}

    @torch.no_grad()
    def _linearize(self) -> dict[str, Tensor]:
        signs = {}
        for name, value in self.model.state_dict().items():
            signs[name] = torch.sign(value)
            value.abs_()
        return signs

    @torch.no_grad()
    def _restore(self, signs: dict[str, Tensor]) -> None:
        for name, value in self.model.state_dict().items():
            value.mul_(signs[name])

    def score(self) -> None:
        signs = self._linearize()
        ones = torch.ones(1, *self.input_shape, dtype=torch.float64)
        torch.sum(self.model(ones)).backward()
        for _, p in self.pairs:
            self.scores[id(p)] = torch.clone(p.grad * p).detach().abs_()
            p.grad.data.zero_()
        self._restore(signs)

    @torch.no_grad()
    def mask(self, density: float) -> None:
        everything = torch.cat([torch.flatten(s) for s in self.scores.values()])
        k = int((1.0 - density) * everything.numel())
        if k < 1:
            return
        threshold, _ = torch.kthvalue(everything, k)
        zero, one = torch.tensor([0.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
        for m, p in self.pairs:
            m.copy_(torch.where(self.scores[id(p)] <= threshold, zero, one))

    def run(self, densities: list[float]) -> None:
        for density in densities:
            self.score()
            self.mask(density)
