"""strike_near by a sort: what the one reading must equal bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor


def strike_near(scores: list[Tensor], count: int, margin: float) -> tuple[list[Tensor], Tensor, int, list[Tensor]]:
    """(bool flags, float32 threshold [1], scores below those near, their flat places); as ops.strike_near_, finite."""
    values = torch.cat([s.detach().flatten() for s in scores]).abs()
    threshold = values.sort().values[count - 1]
    low, high = ((threshold.double() * (1 + side)).float() for side in (-margin, margin))
    near = [((s.abs() >= low) & (s.abs() <= high) & (s != 0)).flatten().nonzero().flatten() for s in scores]
    below = int(((values < low) | (values == 0)).sum())
    return [s.abs() > threshold for s in scores], threshold.view(1), below, near
