"""strike_near_: flags of the scores above the K-th smallest, and where scores lie near it, in one reading of them.

On a CPU alone: a captured graph, which SynFlow is on a GPU, cannot have a result of unknown length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import check_same_device, check_tensor
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.strike_out import _check_planes

_strike_near = torch.ops.hiddennet.strike_near_.default


@register_fake("strike_near_")
def _(scores, flags, count, margin) -> tuple[Tensor, Tensor, Tensor]:
    device, near = scores[0].device, torch.library.get_ctx().new_dynamic_size()
    return (
        torch.empty(1, dtype=torch.float32, device=device),
        torch.empty(1, dtype=torch.int64, device=device),
        torch.empty(near, dtype=torch.int64, device=device),
    )


def _check(scores: Sequence[Tensor], flags: Sequence[Tensor], count: int, margin: float) -> list[Tensor]:
    op = "strike_near_"
    if isinstance(scores, Tensor) or not scores:
        raise ValueError(f"{op}: expected a non-empty list of scores")
    for s in scores:
        check_tensor(op, "scores", s, dtypes=(torch.float32,))
        if s.device.type == "cuda" or not s.is_contiguous() or s.numel() == 0:
            raise ValueError(
                f"{op}: expected contiguous scores on a CPU, at least one a tensor, got shape {tuple(s.shape)}, "
                f"strides {s.stride()} on {s.device}"
            )
    planes = _check_planes(op, flags)
    if len(planes) != len(scores):
        raise ValueError(f"{op}: expected a plane of flags a tensor ({len(scores)}), got {len(planes)}")
    for s, plane in zip(scores, planes, strict=True):
        check_same_device(op, "flags", plane, "the scores", s)
        if plane.shape != ((s.numel() + 7) // 8,):
            raise ValueError(
                f"{op}: expected flags of shape ({(s.numel() + 7) // 8},) for {s.numel()} scores, "
                f"got {tuple(plane.shape)}"
            )
    entries = sum(s.numel() for s in scores)
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{op}: expected count to be an int, got {type(count).__name__}")
    if not 1 <= count <= entries:
        raise ValueError(f"{op}: expected a count in [1, {entries}], got {count}")
    if not 0 <= margin < 1:
        raise ValueError(f"{op}: expected a margin in [0, 1), got {margin}")
    return planes


def strike_near_(
    scores: Sequence[Tensor], flags: Sequence[Tensor], count: int, margin: float
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Flag, in place, the scores above the count-th smallest of all by magnitude; tell it, and where some are near it.

    All entries are ranked, whatever their flag was. Ties with the threshold tau go. A score is near where it is not 0
    and `tau (1 - margin) <= |score| <= tau (1 + margin)`, the ends rounded to float32. Where a score is infinite or NaN
    tau is NaN, nothing is near and no flag changes.

    Args:
        scores: float32, contiguous, on a CPU.
        flags: a plane for each, uint8 [ceil(n / 8)] as pack_mask makes it: written in full.
        count: how many go, ties besides.
        margin: relative.

    Returns:
        tau, float32 [1]; how many scores are below those that are near, int64 [1] (of tau = 0: how many are 0); and for
        each tensor the flat places of those that are near, int64, ascending.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    planes = _check(scores, flags, count, margin)
    threshold, below, places = _strike_near([s.detach() for s in scores], planes, count, float(margin))
    if not torch.compiler.is_compiling():  # written behind autograd's back: who kept what flags made must know
        torch.autograd.graph.increment_version(planes)
    ends = torch.tensor([s.numel() for s in scores]).cumsum(0)
    parts = places.tensor_split(torch.searchsorted(places, ends)[:-1])
    return threshold, below, [part - (end - s.numel()) for part, end, s in zip(parts, ends, scores, strict=True)]
