"""latent: a frozen random weight times a function of trainable latent scores, for any Conv2d or Linear layer.

Peek-a-Boo's "seed" layers: W = mask * theta * a(t). The layer's `weight` becomes a parametrization
(torch.nn.utils.parametrize), so that any layer keeps its class and its forward: plain, PSGConv2d or PSGLinear.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hiddennet.ops.checks import check_choice

ACTIVATIONS = ("pruning", "flipping", "ternary", "none")
BOUND = 0.1  # lo = -0.1, hi = 0.1
_RANGES = {"pruning": (0.01, 0.10), "flipping": (0.01, 0.10), "ternary": (-1.0, 1.0), "none": (0.0, 1.0)}


class _Activated(torch.autograd.Function):
    """mask * theta * a(t), where the backward takes a as the identity; saves t alone."""

    @staticmethod
    def forward(ctx, t, frozen, mask, activation):
        ctx.save_for_backward(frozen, mask)
        ctx.shape = t.shape
        value = t.sign() if activation == "flipping" else (t > 0).to(t.dtype)
        return frozen * value if mask is None else mask * frozen * value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        frozen, mask = ctx.saved_tensors
        grad = grad * frozen if mask is None else grad * frozen * mask
        return grad.sum_to_size(ctx.shape), None, None, None


class _Ternary(torch.autograd.Function):
    """sign(relu(t - hi)) - sign(relu(lo - t)), where the backward takes the signs as identities."""

    @staticmethod
    def forward(ctx, t, low, high):
        ctx.save_for_backward(t, low, high)
        return (t > high).to(t.dtype) - (t < low).to(t.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        t, low, high = ctx.saved_tensors
        above, below = grad * (t > high), grad * (t < low)
        return above + below, -below.sum().view_as(low), -above.sum().view_as(high)


def activated(frozen: Tensor, t: Tensor, activation: str, bounds: tuple[Tensor, Tensor] | None) -> Tensor:
    """frozen * a(t), differentiable in the latent scores t and the bounds (low, high) of "ternary"."""
    if activation in ("pruning", "flipping"):
        return _Activated.apply(t, frozen, None, activation)
    return frozen * _Ternary.apply(t, *bounds) if activation == "ternary" else frozen.clone()


def draw_latent(scores: Tensor, activation: str) -> Tensor:
    """Fill latent scores from torch's generator, in place, by the activation's range; return them."""
    return nn.init.uniform_(scores, *_RANGES[activation])


class Latent(nn.Module):
    """A parametrization of a weight by latent scores t: mask * theta * a(t).

    Args:
        frozen: theta, of the weight's shape; kept as a buffer.
        activation: a of ACTIVATIONS. "pruning": 1 where t > 0, else 0; "flipping": sign(t), 0 at 0; both with the
            gradient of the identity. "ternary": 1 above `high`, -1 below `low`, else 0; its gradient is the identity's
            where it is not 0, and goes to the two trainable bounds as well. "none": 1, and t gets no gradient.
        mask: of the weight's shape, or None for all; kept as a buffer.
        shared_dims: dimensions along which the scores are shared: theirs is 1 there.
    """

    def __init__(
        self, frozen: Tensor, activation: str, mask: Tensor | None = None, shared_dims: Iterable[int] = ()
    ) -> None:
        super().__init__()
        check_choice("Latent", "activation", activation, ACTIVATIONS)
        if mask is not None and mask.shape != frozen.shape:
            raise ValueError(f"Latent: expected a mask of shape {tuple(frozen.shape)}, got {tuple(mask.shape)}")
        shared = {d % frozen.dim() for d in shared_dims if -frozen.dim() <= d < frozen.dim()}
        if len(shared) != len(list(shared_dims)):
            raise ValueError(f"Latent: expected shared_dims below {frozen.dim()}, each once, got {shared_dims!r}")
        self.activation = activation
        self.scores_shape = torch.Size(1 if d in shared else size for d, size in enumerate(frozen.shape))
        self.register_buffer("frozen", frozen.detach().clone())
        self.register_buffer("mask", None if mask is None else mask.to(frozen))
        if activation == "ternary":
            self.low = nn.Parameter(torch.full((1,), -BOUND).to(frozen))
            self.high = nn.Parameter(torch.full((1,), BOUND).to(frozen))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Fresh scores, drawn from torch's generator."""
        scores = torch.empty(self.scores_shape, dtype=weight.dtype, device=weight.device)
        return draw_latent(scores, self.activation)

    def forward(self, t: Tensor) -> Tensor:
        frozen, mask = self.frozen, self.mask
        if self.activation in ("pruning", "flipping"):
            return _Activated.apply(t, frozen, mask, self.activation)
        weight = frozen if mask is None else mask * frozen
        return weight * _Ternary.apply(t, self.low, self.high) if self.activation == "ternary" else weight

    def extra_repr(self) -> str:
        return f"activation={self.activation}, scores={tuple(self.scores_shape)}"


def _scale_input(layer: nn.Module, inputs: tuple) -> tuple:
    x, *others = inputs
    return x * layer.input_scale, *others


def latent(
    layer: nn.Conv2d | nn.Linear,
    activation: str = "flipping",
    *,
    mask: Tensor | None = None,
    shared_dims: Iterable[int] = (),
    scale_input: bool = False,
) -> nn.Module:
    """Freeze the layer's weight and train latent scores in its place; return the layer.

    The scores are `layer.parametrizations.weight.original`, drawn from U(0.01, 0.1) for "pruning" and "flipping",
    U(-1, 1) for "ternary", U(0, 1) for "none"; the layer's bias is frozen. `hiddennet.psg` before this makes
    Peek-a-Boo's PSG seed layers: PSG's gradient of W, then straight through to the scores.

    Args:
        layer: with a `weight` parameter; no hidden layer.
        activation, mask, shared_dims: as in Latent.
        scale_input: multiply the input by a trainable scale for each channel, ones at first: `layer.input_scale`.

    Raises:
        TypeError, ValueError: another layer, one already parametrized, or arguments that Latent refuses.
    """
    if not isinstance(layer, (nn.Conv2d, nn.Linear)) or not isinstance(getattr(layer, "weight", None), Tensor):
        raise TypeError(f"latent: expected a Conv2d or Linear layer with a weight, got {type(layer).__name__}")
    if hasattr(layer, "scores") or parametrize.is_parametrized(layer, "weight"):
        raise ValueError(f"latent: expected a layer whose weight is its own, got {type(layer).__name__} with a rule")
    made = Latent(layer.weight, activation, mask, tuple(shared_dims))
    if scale_input:
        ones = torch.ones(layer.weight.shape[1] * getattr(layer, "groups", 1)).to(layer.weight)
        layer.input_scale = nn.Parameter(ones.view(1, -1, 1, 1) if isinstance(layer, nn.Conv2d) else ones)
        layer.register_forward_pre_hook(_scale_input)
    # unsafe: the scores of shared dimensions have another shape than the weight
    parametrize.register_parametrization(layer, "weight", made, unsafe=True)
    if activation == "none":
        layer.parametrizations.weight.original.requires_grad_(False)
    if layer.bias is not None:
        layer.bias.requires_grad_(False)
    return layer
