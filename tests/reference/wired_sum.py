"""The sum over a wiring's edges as a dense product over channels, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def dense_weight(starts: Tensor, sources: Tensor, values: Tensor, n_sources: int) -> Tensor:
    """float32 [n_destinations, n_sources] of lists by destination; edges of one place are added."""
    counts = starts.diff().long()
    destinations = torch.repeat_interleave(torch.arange(len(counts), device=starts.device), counts)
    weight = torch.zeros(len(counts), n_sources, dtype=values.dtype, device=values.device)
    mine = slice(int(starts[0]), int(starts[-1]))
    return weight.index_put((destinations, sources[mine].long()), values[mine], accumulate=True)


def wired_sum(x: Tensor, starts: Tensor, sources: Tensor, values: Tensor) -> Tensor:
    """float64 [N, n_destinations, H, W] of x [N, n_sources, H, W]."""
    weight = dense_weight(starts, sources, values, x.shape[1])
    return torch.einsum("vu,nuhw->nvhw", weight.double(), x.double())
