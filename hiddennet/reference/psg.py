"""PSG in plain PyTorch with every option of Peek-a-Boo's classes: the oracle, in any float dtype.

`hiddennet.ops.psg_conv2d` computes what every network of the paper uses. Here are the others, too: a quantised forward
(`bits`, `weight_bits`, `output_gradient_bits`, `biprecision`), the ReLU predictor (`predictive_forward`), the running
range of the Quantize module, and codes truncated to their leading bits (`efficient_quantize`).
E2-Train, arXiv 1910.13349.
"""

from __future__ import annotations

from collections.abc import Callable
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


def quantize_bias(bias: Tensor, bits: int, msb_bits: int) -> tuple[Tensor, Tensor]:
    """A bias at both precisions, each with its own largest magnitude as range, signed."""
    return tuple(psg_quantize(bias, b, psg_range(bias, "tensor"), True) for b in (bits, msb_bits))


def efficient_quantize(x: Tensor, bits: int, msb_bits: int, over: str = "sample_mean", signed: bool = True):
    """x on the grid of `bits`, and its code's leading `msb_bits` on the same grid, rounded half to even.

    Where `bits` is 32 and msb_bits is not, the original's first result is overwritten by its second.
    """
    maximum = psg_range(x, over)
    if bits >= NONE:
        low_bit = psg_quantize(x, msb_bits, maximum, signed)
        return low_bit, low_bit
    low = -maximum if signed else torch.zeros_like(maximum)
    delta = (maximum - low) / 2**bits
    codes = psg_quantize(x, bits, maximum, signed, dequantize=False)
    cut = 2 ** (bits - msb_bits)
    leading = ((codes / cut).round() * cut).clamp(0, 2**bits - 1)
    return tuple(torch.where(x == 0, 0.0, c * delta + low) for c in (codes, leading))


class RunningQuantize:
    """The Quantize module: the batch's range in training, a running one (0.1 old + 0.9 batch, from 0) otherwise."""

    def __init__(self, bits: int = 8, signed: bool = False) -> None:
        self.bits, self.signed, self.running = bits, signed, torch.zeros(1, 1, 1, 1, dtype=torch.float64)

    def __call__(self, x: Tensor, training: bool) -> Tensor:
        if self.bits >= NONE:
            return x
        maximum = self.running.to(x.dtype)
        if training:
            maximum = psg_range(x, "sample_mean")
            self.running = 0.1 * self.running + 0.9 * maximum.double()
        return psg_quantize(x, self.bits, maximum, self.signed)


@dataclass(frozen=True)
class PSGOptions:
    """Of the original's classes, by our names; its models use the first line's defaults for all but the first five.

    threshold: with the original's internal sign: negative is relative.
    """

    msb_bits: int = 8
    msb_gradient_bits: int = 16
    threshold: float = -1e-7
    sparsify: bool = True
    sign: bool = False
    input_signed: bool = False
    predictive_backward: bool = True
    predictive_forward: bool = False
    msb_weight_bits: int = 8
    bits: int = NONE
    weight_bits: int = NONE
    output_gradient_bits: int | None = None
    biprecision: bool = False


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
        if o.predictive_backward or o.predictive_forward:
            threshold = -o.threshold * low.abs().max() if o.threshold < 0 else o.threshold
            keep = low.abs() >= threshold
            grad = low * keep if o.sparsify else torch.where(keep, low, exact)
        return grad.sign() if o.sign else grad, None


class _Gate(torch.autograd.Function):
    """y where the predictor is at least 0; backwards, y's gradient goes to both as it is."""

    @staticmethod
    def forward(ctx, y, predictor, options):
        ctx.to_predictor = options.predictive_backward
        ctx.set_materialize_grads(False)
        return y * (predictor >= 0) if options.predictive_forward else y.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, grad if ctx.to_predictor else None, None


def psg_layer(x: Tensor, weight: Tensor, options: PSGOptions, apply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A layer as the original's class computes it in training. apply(x, weight): the convolution or product."""
    o = options
    exact_w, low_w = _Mix.apply(weight, o)
    qx = psg_quantize(x, o.bits, psg_range(x, "sample_mean"), o.input_signed)
    qw = psg_quantize(exact_w, o.weight_bits, psg_range(exact_w.detach(), "channel"), True)
    if o.biprecision and o.output_gradient_bits is not None:
        to_x = quantize_gradient(apply(qx, qw.detach()), o.output_gradient_bits)
        to_w = apply(qx.detach(), qw)
        y = to_x + to_w - to_x.detach()
    else:
        y = quantize_gradient(apply(qx, qw), o.output_gradient_bits)
    if not (o.predictive_backward or o.predictive_forward):
        return y
    mx = psg_quantize(x.detach(), o.msb_bits, psg_range(x.detach(), "sample_mean"), o.input_signed)
    mw = psg_quantize(low_w, o.msb_weight_bits, psg_range(low_w.detach(), "channel"), True)
    low = apply(mx, mw)
    if o.predictive_backward:
        low = quantize_gradient(low, o.msb_gradient_bits)
    return _Gate.apply(y, low, o)


def psg_conv2d(x: Tensor, weight: Tensor, options: PSGOptions, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """The PSG convolution with all options: differentiable, slow."""
    return psg_layer(x, weight, options, lambda a, w: F.conv2d(a, w, None, stride, padding, dilation, groups))


def psg_linear(x: Tensor, weight: Tensor, options: PSGOptions) -> Tensor:
    """The PSG product with all options: differentiable, slow."""
    return psg_layer(x, weight, options, F.linear)
