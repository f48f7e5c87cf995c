"""Exact selection by a stable sort, and packed masks: what the kernels must equal bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor


def score_key(scores: Tensor, by: str) -> Tensor:
    """int64 keys of the scores, flattened in OIHW order; their order is selection order (csrc/base/key.cuh)."""
    bits = scores.detach().contiguous().flatten().view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    magnitude = bits & 0x7FFFFFFF
    nan = magnitude > 0x7F800000
    if by == "magnitude":
        key = magnitude
    else:
        bits = torch.where(bits == 0x80000000, 0, bits)
        key = torch.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits ^ 0x80000000)
    return torch.where(nan, 0xFFFFFFFF, key)


def topk_mask(scores: Tensor, k: int, *, by: str = "value") -> Tensor:
    """Return a bool mask of the scores' shape with exactly k ones: a stable ascending sort, the first n - k pruned."""
    order = torch.sort(score_key(scores, by), stable=True).indices
    mask = torch.ones(scores.numel(), dtype=torch.bool)
    mask[order[: scores.numel() - k]] = False
    return mask.view(scores.shape)


def topk_mask_global(scores: list[Tensor], k: int, *, by: str = "value") -> list[Tensor]:
    """One ranking over all tensors; ties are pruned in the order of (tensor, OIHW index)."""
    keys = torch.cat([score_key(s, by) for s in scores])
    order = torch.sort(keys, stable=True).indices
    mask = torch.ones(keys.numel(), dtype=torch.bool)
    mask[order[: keys.numel() - k]] = False
    parts = mask.split([s.numel() for s in scores])
    return [part.view(s.shape) for part, s in zip(parts, scores, strict=True)]


def selection_mask(scores: Tensor, selection: Tensor, by: str) -> Tensor:
    """The mask a selection row {threshold, cut, ...} stands for: bool of the scores' shape."""
    threshold, cut = int(selection[0]) & 0xFFFFFFFF, int(selection[1])
    key = score_key(scores, by)
    index = torch.arange(key.numel())
    return ((key > threshold) | ((key == threshold) & (index >= cut))).view(scores.shape)


def pack_mask(mask: Tensor) -> Tensor:
    """Return uint8 [ceil(n / 8)]: bit i % 8 of byte i / 8 is element i in OIHW order."""
    flat = mask.contiguous().flatten().to(torch.int64)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8)).sum(1).to(torch.uint8)


def unpack_mask(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of pack_mask: bool of the given shape."""
    n = int(torch.Size(shape).numel())
    flat = (bits.to(torch.int64)[:, None] >> torch.arange(8)) & 1
    return flat.flatten()[:n].bool().view(shape)
