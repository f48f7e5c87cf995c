"""One optimiser step on scores, by the formulas of torch.optim.SGD and torch.optim.Adam. Any float dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.topk import unpack_mask


def score_step(
    scores: Tensor,
    grad: Tensor,
    first: Tensor | None = None,
    second: Tensor | None = None,
    *,
    lr: float,
    weight_decay: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    clamp: tuple[float, float] | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] | None = None,
    eps: float = 1e-8,
    step: int = 1,
    flags: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return (scores, first, second) after the step. `first` and `second` are zeros before the first step."""
    g = grad + weight_decay * scores + l1 * torch.sign(scores) + 2 * l2 * scores
    m, v = first, second
    if betas is not None:
        m = betas[0] * first + (1 - betas[0]) * g
        v = betas[1] * second + (1 - betas[1]) * g * g
        denominator = (v / (1 - betas[1] ** step)).sqrt() + eps
        new = scores - lr * (m / (1 - betas[0] ** step)) / denominator
    else:
        if first is not None:
            m = momentum * first + g
            g = g + momentum * m if nesterov else m
        new = scores - lr * g
    if clamp is not None:
        new = new.clamp(*clamp)
    if flags is None:
        return new, m, v
    on = unpack_mask(flags, tuple(scores.shape))
    return (
        torch.where(on, new, scores),
        None if m is None else torch.where(on, m, first),
        None if v is None else torch.where(on, v, second),
    )
