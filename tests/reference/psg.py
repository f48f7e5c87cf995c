"""PSG in plain PyTorch, as Peek-a-Boo's networks use it: the oracle, in any float dtype. E2-Train, arXiv 1910.13349.

What the original's classes can do beside that (a quantised forward, a predictor of the ReLU) is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

NONE = 32  # bits from which on a tensor is taken as it is


def psg_range(x: Tensor, over: str) -> Tensor:
    """M: "sample_mean", "tensor", or "channel" (which keeps its dimensions)."""
    if x.dim() < 2:
        return x.abs().max()
    rows = x.abs().flatten(1).amax(1)
    if over == "channel":
        return rows.view(-1, *(1,) * (x.dim() - 1))
    return rows.mean() if over == "sample_mean" else rows.max()


def psg_quantize(x: Tensor, bits: int | None, maximum: Tensor, signed: bool, dequantize: bool = True) -> Tensor:
    """code = round(clamp((x - lo) / delta, 0, 2^bits - 1)) with lo = -M or 0, delta = (M - lo) / 2^bits; straight
    through backwards. The value is code * delta + lo, and 0 where x is 0."""
    if bits is None or bits >= NONE or bool((x == 0).all()):
        return x
    low = -maximum if signed else torch.zeros_like(maximum)
    delta = (maximum - low) / 2**bits
    codes = ((x - low) / torch.where(delta > 0, delta, 1.0)).clamp(0, 2**bits - 1).round()
    value = torch.where(x == 0, 0.0, codes * delta + low) if dequantize else codes
    return x + (value - x).detach() if x.requires_grad else value


class _QuantizedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bits):
        ctx.bits = bits
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return psg_quantize(grad, ctx.bits, psg_range(grad, "tensor"), True), None


def quantize_gradient(x: Tensor, bits: int | None) -> Tensor:
    """x, whose gradient is quantised with its largest magnitude as range."""
    return x if bits is None or bits >= NONE else _QuantizedGradient.apply(x, bits)


@dataclass(frozen=True)
class PSGOptions:
    """Of the original's classes, by our names.

    threshold: with the original's internal sign: negative is relative.
    """

    msb_bits: int = 8
    msb_gradient_bits: int = 16
    threshold: float = -1e-7
    sparsify: bool = True
    sign: bool = False
    input_signed: bool = False
    predictive_backward: bool = True


class _Mix(torch.autograd.Function):
    """The weight for both branches, and what becomes of their gradients."""

    @staticmethod
    def forward(ctx, weight, options):
        ctx.options = options
        return weight.clone(), weight.clone()

    @staticmethod
    def backward(ctx, exact, low):
        o = ctx.options
        grad = exact
        if o.predictive_backward:
            threshold = -o.threshold * low.abs().max() if o.threshold < 0 else o.threshold
            keep = low.abs() >= threshold
            grad = low * keep if o.sparsify else torch.where(keep, low, exact)
        return grad.sign() if o.sign else grad, None


class _Both(torch.autograd.Function):
    """y; backwards, y's gradient goes to the low-bit output as well."""

    @staticmethod
    def forward(ctx, y, low):
        return y.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, grad


def psg_conv2d(x: Tensor, weight: Tensor, options: PSGOptions, *geometry) -> Tensor:
    """A convolution as the original's class computes it in training. geometry: stride, padding, dilation, groups."""
    o = options
    exact_w, low_w = _Mix.apply(weight, o)
    y = F.conv2d(x, exact_w, None, *geometry)
    if not o.predictive_backward:
        return y
    mx = psg_quantize(x.detach(), o.msb_bits, psg_range(x.detach(), "sample_mean"), o.input_signed)
    mw = psg_quantize(low_w, 8, psg_range(low_w.detach(), "channel"), True)
    return _Both.apply(y, quantize_gradient(F.conv2d(mx, mw, None, *geometry), o.msb_gradient_bits))
