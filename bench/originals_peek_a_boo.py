"""Peek-a-Boo's original operations, written anew from their description, to be timed against: Bop, SynFlow, PSG.

Not for training: `hiddennet` is. Faithful where time goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.ops import PSGConfig

# -- Bop -----------------------------------------------------------------------------------------------------------


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


# -- SynFlow: 100 iterations -----------------------------------------------------------------------------------------


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


# -- PSG: a convolution whose weight gradient comes from few bits ---------------------------------------------------
# A forward multiplies a float mask with the weight, convolves, then quantises input and weight (each asks the host
# whether all is zero) and convolves them, too; that second output is thrown away, in evaluation as well. A backward
# makes the input's gradient and two weight gradients, the exact one and that of the quantised tensors, and mixes them;
# with `sparsify` the exact one is multiplied away.


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
