"""Ranges, centred codes, and the threshold of a gradient: the oracles of PSG's kernels."""

from __future__ import annotations

import torch
from torch import Tensor


def code_range(x: Tensor, per_sample: bool) -> Tensor:
    """Mean over the first dimension of each sample's largest |x|, or the largest of all: float32 [1]."""
    if x.numel() == 0:
        return torch.zeros(1)
    rows = x.float().abs().reshape(x.shape[0] if per_sample else 1, -1).amax(1)
    total = 0.0
    for value in rows.tolist():
        total += value
    return torch.tensor([total / len(rows)], dtype=torch.float64).float()


def quantize_codes(x: Tensor, maximum: Tensor, bits: int, signed: bool) -> tuple[Tensor, Tensor]:
    """Centred codes as int64, and delta: float32 [1]; float32 arithmetic."""
    x, m = x.float(), maximum.float().reshape(1)
    if not bool(m.isfinite()):
        return torch.zeros(x.shape, dtype=torch.int64), torch.full((1,), torch.nan)
    delta = (m.double() * (2 if signed else 1) / 2**bits).float()
    if float(delta) == 0:
        return torch.zeros(x.shape, dtype=torch.int64), delta
    low = -(2 ** (bits - 1)) if signed else 0
    counted = (x / delta).clamp(low, low + 2**bits - 1).double() - low  # from 0 on, exact
    return counted.round().long() + low, delta


def threshold_gradient(
    grad: Tensor, exact: Tensor | None, threshold: float, relative: bool, sign: bool = False
) -> Tensor:
    """Elements of at least the threshold; elsewhere the exact ones, or 0. NaN stays NaN."""
    bar = threshold * grad.abs().amax() if relative else threshold
    kept = torch.where(grad.abs() < bar, torch.zeros_like(grad) if exact is None else exact, grad)
    return kept.sign() if sign else kept
