"""strike_out_: take the lowest-ranked active entries of a network out of its flags for good.

Gem-Miner's pruning of scores (Sreenivasan et al. 2022, arXiv 2202.12002, algorithm 1).
Flags are planes of one bit an entry, as pack_mask makes them; 1 = active. An entry once struck out stays so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import ORDERS, check_choice, check_same_device, check_tensor, dense
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.topk_mask import _check_scores

_strike_out = torch.ops.hiddennet.strike_out_.default
_count_flags = torch.ops.hiddennet.count_flags.default

SCOPES = ("global", "layer")


@register_fake("strike_out_")
def _(scores, flags, counts, network_wide, by_value, invert, exact) -> Tensor:
    return torch.empty(len(counts), dtype=torch.float32, device=scores[0].device)


@register_fake("count_flags")
def _(flags) -> Tensor:
    return torch.empty(len(flags), dtype=torch.int64, device=flags[0].device)


def _check_planes(op: str, flags: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(flags, Tensor) or not flags:
        raise ValueError(f"{op}: expected a non-empty list of flags, got {_described(flags)}")
    for plane in flags:
        check_tensor(op, "flags", plane, dtypes=(torch.uint8,))
        check_same_device(op, "flags", plane, "the first plane", flags[0])
        if not plane.is_contiguous():
            raise ValueError(f"{op}: expected flags that are contiguous, got strides {plane.stride()}")
    return list(flags)


def _described(value: object) -> str:
    return "one Tensor" if isinstance(value, Tensor) else f"an empty {type(value).__name__}"


def _check_counts(counts: Sequence[int], sizes: list[int]) -> list[int]:
    op = "strike_out_"
    if len(counts) != len(sizes):
        raise ValueError(f"{op}: expected one count a ranking ({len(sizes)}), got {len(counts)}")
    for count, n in zip(counts, sizes, strict=True):
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"{op}: expected counts to be ints, got {type(count).__name__}")
        if not 0 <= count <= n:
            raise ValueError(f"{op}: expected a count in [0, {n}], got {count}")
    return list(counts)


def strike_out_(
    scores: Sequence[Tensor],
    flags: Sequence[Tensor],
    counts: Sequence[int],
    *,
    scope: str = "global",
    by: str = "magnitude",
    invert: bool = False,
    exact: bool = False,
) -> Tensor:
    """Clear the flags of the lowest-ranked active entries, in place, of all layers in one call.

    With K = the smaller of a ranking's count and its active entries, tau is the K-th smallest |score| among them.
    An active entry stays iff its |score| > tau: all ties at tau go, so more than K may (Gem-Miner's rule). With
    `exact` only K go, of the ties at tau the lower (layer, OIHW index) first. With `invert` tau is the K-th largest,
    and what is below it stays. -0 equals +0; NaN ranks above every number. Neither inactive scores nor K = 0 change
    anything. Equivalent, for one layer, to `flag & (score.abs() > score.abs()[flag].sort().values[K - 1])`.

    Args:
        scores: float32 tensors of any shapes, on one device; OIHW or channels_last memory. Not changed.
        flags: a plane for each, uint8 [ceil(n / 8)] as pack_mask makes it; changed in place.
        counts: how many of the active entries go: one for the network, or with scope "layer" one a layer.
        scope: "global" ranks all layers together, "layer" each by itself.
        by: "magnitude" ranks |score|, "value" the signed score.
        invert: the highest-ranked go.
        exact: no more than K go.

    Returns:
        float32 [1] or [layers], on the device: each tau; -inf (with `invert` +inf) where K = 0.

    Raises:
        TypeError, ValueError: wrong dtypes, shapes that do not fit, empty lists, counts out of range, mixed devices.
    """
    op = "strike_out_"
    if isinstance(scores, Tensor) or not scores:
        raise ValueError(f"{op}: expected a non-empty list of scores, got {_described(scores)}")
    checked = [_check_scores(op, s) for s in scores]
    planes = _check_planes(op, flags)
    if len(planes) != len(checked):
        raise ValueError(f"{op}: expected a plane of flags a layer ({len(checked)}), got {len(planes)}")
    for s, plane in zip(checked, planes, strict=True):
        check_same_device(op, "scores", s, "the flags", plane)
        if plane.shape != ((s.numel() + 7) // 8,):
            raise ValueError(
                f"{op}: expected flags of shape ({(s.numel() + 7) // 8},) for scores of shape {tuple(s.shape)}, "
                f"got {tuple(plane.shape)}; pack_mask makes them"
            )
    check_choice(op, "scope", scope, SCOPES)
    check_choice(op, "by", by, ORDERS)
    sizes = [s.numel() for s in checked]
    amounts = _check_counts(counts, [sum(sizes)] if scope == "global" else sizes)
    laid = [dense(s.detach()) for s in checked]
    taus = _strike_out(laid, planes, amounts, scope == "global", by == "value", bool(invert), bool(exact))
    if not torch.compiler.is_compiling():  # written behind autograd's back: who kept what flags made must know
        torch.autograd.graph.increment_version(planes)
    return taus


def count_flags(flags: Sequence[Tensor]) -> Tensor:
    """Return how many entries of each plane are active: int64 [layers], on the device of the planes.

    Args:
        flags: uint8 planes as pack_mask makes them, with zeros past their last entry.

    Raises:
        TypeError, ValueError: no planes, wrong dtype, mixed devices.
    """
    return _count_flags(_check_planes("count_flags", flags))
