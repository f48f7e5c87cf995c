"""Rounded: scores in [0, 1], rounded, among the weights not yet pruned. Gem-Miner's rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.sampled import Drawn, in_backward, recalled
from hiddennet.ops.checks import check_choice, check_seed
from hiddennet.ops.generate_weight import fill
from hiddennet.ops.inits import InitScale
from hiddennet.registry import register

ROUNDINGS = ("naive", "probabilistic", "all_ones")


class _AtThreshold(torch.autograd.Function):
    """The scores as they are; the threshold gets the summed gradient of the scores, times a sign."""

    @staticmethod
    def forward(ctx, scores: Tensor, threshold: Tensor, sign: int) -> Tensor:
        ctx.sign = sign
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, ctx.sign * grad.sum(), None


@register("rule", "rounded")
@dataclass(frozen=True)
class Rounded(Drawn):
    """Scores in [0, 1], rounded, among the weights not yet pruned. Gem-Miner (Sreenivasan et al. 2022, section 3).

    The layer keeps `flags`, one bit a weight: 1 = not pruned. The mask is 1[score > threshold] and flag, or, with
    quantized=False, score x flag while training. The gradient passes straight through to every score with its flag set.

    Args:
        threshold: scores above it, strictly, are rounded to 1.
        quantized: whether training computes with rounded scores.
        rounding: in evaluation and, with quantized, in training: "naive" by the threshold; "probabilistic" to 1 with
            the score as its probability, drawn anew at each training forward and once for evaluation; "all_ones" to 1.
        noise: standard deviation of a normal added to scores before "naive" rounding.
        seed: of the draws; a draw is a function of (seed, layer, index, training step).
        learn_threshold: the threshold is a parameter of each layer (of the layer's scores' range [0, 1]).
        threshold_gradient: -1 is the sign of the straight-through derivative, +1 what the original computes.
    """

    threshold: float = 0.5
    quantized: bool = True
    rounding: str = "naive"
    noise: float = 0.0
    seed: int = 0
    learn_threshold: bool = False
    threshold_gradient: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Rounded", "rounding", self.rounding, ROUNDINGS)
        check_seed("Rounded", "seed", self.seed, 63)
        if not self.noise >= 0.0:
            raise ValueError(f"Rounded: expected a noise of 0 or more, got {self.noise}")
        if self.learn_threshold and (self.rounding != "naive" or not self.quantized or self.noise):
            raise ValueError("Rounded: expected naive rounding of quantized scores without noise with learn_threshold")

    def attach(self, layer: nn.Module) -> Rounded:
        device, n = layer.selection.device, layer.weight_shape.numel()
        layer.register_buffer("flags", ops.pack_mask(torch.ones(n, dtype=torch.bool)).to(device))
        layer.rounding_step = 0
        if self.rounding == "probabilistic":
            super().attach(layer)
        if self.learn_threshold:
            layer.threshold = nn.Parameter(torch.tensor(self.threshold, device=device))
        self.remake(layer)
        return self

    @property
    def steady(self) -> bool:
        return self.rounding != "probabilistic" and not self.noise

    def remake(self, layer: nn.Module) -> None:
        layer.selection.copy_(ops.Mask.rounded(self.threshold, layer.flags).selection)

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        # its parts fit: the checks of Mask's class methods would cost as much as the op on a small layer
        if training and not self.quantized:
            return ops.Mask("scored", layer.selection, bits=layer.flags)
        if self.rounding == "all_ones" and not training:
            return ops.Mask("bits", layer.selection, bits=layer.flags)
        if self.rounding == "probabilistic":
            step = recalled(layer, layer.draw) if training else torch.zeros_like(layer.draw)
            return ops.Mask("rounded", layer.selection, bits=layer.flags, step=step, seed=self.seed)
        row = _row_of(layer.threshold) if self.learn_threshold else layer.selection
        return ops.Mask("rounded", row, bits=layer.flags)

    def scores(self, layer: nn.Module, training: bool) -> Tensor:
        """The scores that are rounded: with noise, or tied to a threshold that learns."""
        if self.learn_threshold:
            return _AtThreshold.apply(layer.scores, layer.threshold, self.threshold_gradient)
        if self.noise and (self.quantized or not training) and self.rounding == "naive":
            return layer.scores + self._noise(layer, recalled(layer, layer.rounding_step + 1) if training else 0)
        return layer.scores

    @torch.no_grad()
    def _noise(self, layer: nn.Module, step: int) -> Tensor:
        """The normal noise of a training step, from 1, or of evaluation, 0: a function of (seed, layer, step)."""
        out = torch.empty_like(layer.scores)
        return fill(out, InitScale("normal", self.noise), seed=self.seed, layer=layer.source.layer, redraw=step)

    def after_forward(self, layer: nn.Module) -> None:
        if self.rounding == "probabilistic":
            super().after_forward(layer)
        if self.noise and not in_backward():
            layer.rounding_step += 1

    def prunable(self, layer: nn.Module) -> Tensor:
        return layer.flags


def _row_of(threshold: Tensor) -> Tensor:
    """The selection row of `score > threshold` for a threshold of 0 or more, made on its device."""
    key = (threshold.detach().float() + 0.0).view(torch.int32).bitwise_xor(-(2**31)) + 1
    return torch.cat([key[None], key.new_zeros(3)])
