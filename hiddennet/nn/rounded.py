"""What a hidden layer with a Rounded rule computes with: its scores, rounded, among the weights not struck out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rules import Rounded
from hiddennet.ops.generate_weight import fill
from hiddennet.ops.inits import InitScale

if TYPE_CHECKING:
    from hiddennet.nn.hidden import HiddenMixin


class _AtThreshold(torch.autograd.Function):
    """The scores as they are; the threshold gets the summed gradient of the scores, times a sign."""

    @staticmethod
    def forward(ctx, scores: Tensor, threshold: Tensor, sign: int) -> Tensor:
        ctx.sign = sign
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, ctx.sign * grad.sum(), None


def add_rounded_state(layer: HiddenMixin, rule: Rounded, device: torch.device) -> None:
    """Give the layer its flags (all set) and what drawing or learning thresholds needs."""
    n = layer.weight_shape.numel()
    layer.register_buffer("flags", ops.pack_mask(torch.ones(n, dtype=torch.bool)).to(device))
    layer.rounding_step = 0
    if rule.rounding == "probabilistic":  # step 0 is the fixed draw of evaluation
        layer.register_buffer("draw", torch.ones(1, dtype=torch.int64, device=device))
    if rule.learn_threshold:
        layer.threshold = nn.Parameter(torch.tensor(rule.threshold, device=device))


def _row_of(threshold: Tensor) -> Tensor:
    """The selection row of `score > threshold` for a threshold of 0 or more, made on its device."""
    key = (threshold.detach().float() + 0.0).view(torch.int32).bitwise_xor(-(2**31)) + 1
    return torch.cat([key[None], key.new_zeros(3)])


def rounded_state(layer: HiddenMixin, training: bool) -> ops.Rule:
    """The rule as the ops take it, for the layer's scores and flags as they are now.

    Its parts fit by construction: the checks of ops.Rule's class methods would cost as much as the op on a small layer.
    """
    rule: Rounded = layer.rule
    if training and not rule.quantized:
        return ops.Rule("scored", layer.selection, bits=layer.flags)
    if rule.rounding == "all_ones" and not training:
        return ops.Rule("bits", layer.selection, bits=layer.flags)
    if rule.rounding == "probabilistic":
        step = layer.draw.clone() if training else torch.zeros_like(layer.draw)
        return ops.Rule("rounded", layer.selection, bits=layer.flags, step=step, seed=rule.seed)
    row = _row_of(layer.threshold) if rule.learn_threshold else layer.selection
    return ops.Rule("rounded", row, bits=layer.flags)


def rounded_scores(layer: HiddenMixin, training: bool) -> Tensor:
    """The scores that are rounded: with noise, or tied to a threshold that learns."""
    rule: Rounded = layer.rule
    if rule.learn_threshold:
        return _AtThreshold.apply(layer.scores, layer.threshold, rule.threshold_gradient)
    if rule.noise and (rule.quantized or not training) and rule.rounding == "naive":
        return layer.scores + _noise(layer, layer.rounding_step + 1 if training else 0)
    return layer.scores


@torch.no_grad()
def _noise(layer: HiddenMixin, step: int) -> Tensor:
    """The normal noise of a training step, from 1, or of evaluation, 0: a function of (seed, layer, step)."""
    rule: Rounded = layer.rule
    out = torch.empty_like(layer.scores)
    return fill(out, InitScale("normal", rule.noise), seed=rule.seed, layer=layer.source.layer, redraw=step)
