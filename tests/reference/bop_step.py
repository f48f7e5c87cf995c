"""One step of Bop on one weight (Helwegen et al., arXiv 1906.02107, algorithm 2). Any float dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.topk import unpack_mask


def bop_step(
    weight: Tensor,
    grad: Tensor,
    average: Tensor | None,
    *,
    adaptivity_rate: float,
    threshold: float,
    flags: Tensor | None = None,
) -> tuple[Tensor, Tensor, int]:
    """Return (weight, average, flips) after the step. Without an average it starts from the gradient: (1 + rate) g."""
    before = torch.zeros_like(grad) if average is None else average
    kept = grad if average is None else (1 - adaptivity_rate) * average
    m = kept + adaptivity_rate * grad
    # both numbers in the dtype of the tensors, as the op compares them
    flip = (m.abs() >= torch.tensor(threshold, dtype=m.dtype)) & (m.sign() == weight.sign())
    flip &= ~(m.isnan() | weight.isnan())  # torch.sign of NaN is 0 here, NaN there
    if flags is not None:
        on = unpack_mask(flags, tuple(weight.shape))
        m, flip = torch.where(on, m, before), flip & on
    return torch.where(flip, -weight, weight), m, int(flip.sum())
