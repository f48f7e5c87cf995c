"""A frozen random weight times a function of trainable latent scores, theta * a(t): Peek-a-Boo's "seed" layers.

a: "pruning" is 1 where t > 0, else 0; "flipping" is sign(t), 0 at 0; both with the gradient of the identity. "ternary"
is 1 above `high`, -1 below `low`, else 0; its gradient is the identity's where it is not 0, and goes to both bounds as
well. "none" is 1, and t gets no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ACTIVATIONS = ("pruning", "flipping", "ternary", "none")
BOUND = 0.1  # lo = -0.1, hi = 0.1
_RANGES = {"pruning": (0.01, 0.10), "flipping": (0.01, 0.10), "ternary": (-1.0, 1.0), "none": (0.0, 1.0)}


class _Activated(torch.autograd.Function):
    """theta * a(t), where the backward takes a as the identity."""

    @staticmethod
    def forward(ctx, t, frozen, activation):
        ctx.save_for_backward(frozen)
        return frozen * (t.sign() if activation == "flipping" else (t > 0).to(t.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (frozen,) = ctx.saved_tensors
        return grad * frozen, None, None


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
        return _Activated.apply(t, frozen, activation)
    return frozen * _Ternary.apply(t, *bounds) if activation == "ternary" else frozen.clone()


def draw_latent(scores: Tensor, activation: str) -> Tensor:
    """Fill latent scores from torch's generator, in place, by the activation's range; return them."""
    return nn.init.uniform_(scores, *_RANGES[activation])
