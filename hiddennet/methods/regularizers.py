"""Regularisers of scores in [0, 1] that pull them towards 0 or to both ends. Rare Gems, section 3 and appendix."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Regularizer = Literal["l1", "l2", "l1_l2", "var_red_1", "var_red_2", "bin_entropy"]
NAMES = ("l1", "l2", "l1_l2", "var_red_1", "var_red_2", "bin_entropy")
FUSED = ("l1", "l2", "l1_l2")  # part of the score step


def factors(name: str | None, weight: float) -> dict[str, float]:
    """The l1 and l2 factors of the fused score step: its gradient is l1 sign(p) + 2 l2 p."""
    return {
        "l1": weight if name in ("l1", "l1_l2") else 0.0,
        "l2": weight if name in ("l2", "l1_l2") else 0.0,
    }


def penalty(
    name: str,
    weight: float,
    scores: Sequence[Tensor],
    weights: Sequence[Tensor] | None = None,
    alpha: float = 1.0,
    alpha_prime: float = 1.0,
) -> Tensor:
    """The regulariser of all layers' scores p, a differentiable scalar, times `weight` (the papers' lambda).

    l1: sum |p|; l2: sum p^2; l1_l2: both; var_red_1: sum p^alpha (1 - p)^alpha_prime; var_red_2: sum w^2 p (1 - p);
    bin_entropy: sum -p ln p - (1 - p) ln(1 - p) over 0 < p < 1.

    Args:
        scores: float tensors. weights: the layers' weights, of the scores' shapes, for var_red_2.

    Raises:
        ValueError: an unknown name, or var_red_2 without weights.
    """
    if name not in NAMES:
        raise ValueError(f"regularizer: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == "var_red_2" and weights is None:
        raise ValueError("regularizer: expected the layers' weights for var_red_2, got none")
    total = scores[0].new_zeros(())
    for i, p in enumerate(scores):
        if name in ("l1", "l1_l2"):
            total = total + p.abs().sum()
        if name in ("l2", "l1_l2"):
            total = total + (p * p).sum()
        if name == "var_red_1":
            total = total + (p.pow(alpha) * (1 - p).pow(alpha_prime)).sum()
        if name == "var_red_2":
            total = total + (weights[i].square() * p * (1 - p)).sum()
        if name == "bin_entropy":
            inside = p[(p > 0) & (p < 1)]
            total = total - (inside * inside.log() + (1 - inside) * (1 - inside).log()).sum()
    return weight * total


def add_gradient(
    name: str, weight: float, scores: Sequence[Tensor], weights: Sequence[Tensor] | None, *powers: float
) -> None:
    """Add the regulariser's gradient to the scores' gradients, in place, without a graph of it."""
    inner = [p.detach().requires_grad_() for p in scores]
    with torch.enable_grad():
        gradients = torch.autograd.grad(penalty(name, weight, inner, weights, *powers), inner)
    for p, gradient in zip(scores, gradients, strict=True):
        if p.grad is not None:
            p.grad.add_(gradient)
