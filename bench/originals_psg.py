"""Peek-a-Boo's original PSG convolution, written anew from its description, to be timed against.

Not for training: `hiddennet` is. Faithful where time goes. A forward multiplies a float mask with the weight,
convolves, then quantises input and weight (each asks the host whether all is zero) and convolves them, too; that second
output is thrown away, in evaluation as well. A backward makes the input's gradient and two weight gradients, the exact
one and that of the quantised tensors, and mixes them; with `sparsify` the exact one is multiplied away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.ops import PSGConfig


def quantise(x: Tensor, bits: int, maximum: Tensor, signed: bool) -> Tensor:
    """One pass after another over the tensor."""
    if torch.all(x == 0):  # waits for the device
        return x
    out = x.clone()
    low = -maximum if signed else torch.zeros_like(maximum)
    step = (maximum - low) / 2**bits
    zero = torch.zeros_like(x)
    is_zero = x == 0
    out.sub_(low).div_(step).clamp_(0, 2**bits - 1).round_()
    out.mul_(step).add_(low)
    return torch.where(is_zero, zero, out)


class Quantised(torch.autograd.Function):
    """Quantised forwards, identity backwards."""

    @staticmethod
    def forward(ctx, x: Tensor, bits: int, maximum: Tensor, signed: bool) -> Tensor:
        return quantise(x, bits, maximum, signed)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None, None, None


class QuantisedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bits: int) -> Tensor:
        ctx.bits = bits
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        maximum = grad.abs().flatten(1).max(-1).values.max()
        return quantise(grad, ctx.bits, maximum, True), None


class Mixed(torch.autograd.Function):
    """The weight for both branches; backwards the low-bit gradient where it is large, and signs that nothing reads."""

    @staticmethod
    def forward(ctx, weight: Tensor, threshold: float, sparsify: bool):
        ctx.threshold, ctx.sparsify = threshold, sparsify
        return weight.clone(), weight.clone()

    @staticmethod
    def backward(ctx, exact: Tensor, low: Tensor):
        bar = ctx.threshold * low.abs().max()
        large = (low.abs() >= bar).to(low.dtype)
        low.sign() * large  # a diagnostic
        return (large * low if ctx.sparsify else large * low + (1 - large) * exact), None, None


class Predicted(torch.autograd.Function):
    """The exact output; both are kept, and the gradient goes to both, copied."""

    @staticmethod
    def forward(ctx, y: Tensor, low: Tensor) -> Tensor:
        ctx.save_for_backward(low)
        return y.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return (grad, grad.clone()) if ctx.saved_tensors[0] is not None else (grad, None)


class OriginalPSGConv2d(nn.Module):
    """With a float mask, and PSG of a relative threshold."""

    def __init__(self, like: nn.Conv2d, weight: Tensor, mask: Tensor, config: PSGConfig, signed: bool):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.register_buffer("weight_mask", mask.float().clone())
        self.numbers = (like.stride, like.padding, like.dilation, like.groups)
        self.config, self.signed = config, signed

    def forward(self, x: Tensor) -> Tensor:
        c = self.config
        exact, low = Mixed.apply(self.weight_mask * self.weight, c.threshold, c.sparsify)
        y = F.conv2d(x, exact, None, *self.numbers)
        seen = x.detach()
        mean = seen.abs().flatten(1).max(-1).values.mean()
        per_filter = low.detach().abs().flatten(1).max(-1).values.view(-1, 1, 1, 1)
        of_input = Quantised.apply(seen, c.input_bits, mean, self.signed)
        of_weight = Quantised.apply(low, c.input_bits, per_filter, True)
        predictor = F.conv2d(of_input, of_weight, None, *self.numbers)
        return Predicted.apply(y, QuantisedGradient.apply(predictor, c.gradient_bits))
