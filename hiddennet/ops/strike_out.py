"""strike_out_: take the lowest-ranked active entries of a network out of its flags for good; strike_near_: of all.

Gem-Miner's pruning of scores (Sreenivasan et al. 2022, arXiv 2202.12002, algorithm 1).
Flags are planes of one bit an entry, as pack_mask makes them; 1 = active. An entry once struck out stays so.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import ORDERS, check_choice, check_same_device, check_tensor, dense
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.topk_mask import _check_scores

_strike_out = torch.ops.hiddennet.strike_out_.default
_count_flags = torch.ops.hiddennet.count_flags.default
_strike_near = torch.ops.hiddennet.strike_near_.default

SCOPES = ("global", "layer")


@register_fake("strike_out_")
def _(scores, flags, counts, network_wide, by_value, invert, exact) -> Tensor:
    return torch.empty(len(counts), dtype=torch.float32, device=scores[0].device)


@register_fake("count_flags")
def _(flags) -> Tensor:
    return torch.empty(len(flags), dtype=torch.int64, device=flags[0].device)


def _check_planes(op: str, flags: Sequence[Tensor]) -> list[Tensor]:
    _check_some(op, "flags", flags)
    for plane in flags:
        check_tensor(op, "flags", plane, dtypes=(torch.uint8,))
        check_same_device(op, "flags", plane, "the first plane", flags[0])
        if not plane.is_contiguous():
            raise ValueError(f"{op}: expected flags that are contiguous, got strides {plane.stride()}")
    return list(flags)


def _check_some(op: str, name: str, values: Sequence[Tensor]) -> None:
    if isinstance(values, Tensor) or not values:
        got = "one Tensor" if isinstance(values, Tensor) else f"an empty {type(values).__name__}"
        raise ValueError(f"{op}: expected a non-empty list of {name}, got {got}")


def _check_planes_of(op: str, flags: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Tensor]:
    """A plane for each tensor of scores."""
    planes = _check_planes(op, flags)
    if len(planes) != len(scores):
        raise ValueError(f"{op}: expected a plane of flags a layer ({len(scores)}), got {len(planes)}")
    for s, plane in zip(scores, planes, strict=True):
        check_same_device(op, "scores", s, "the flags", plane)
        size = (s.numel() + 7) // 8
        if plane.shape != (size,):
            raise ValueError(
                f"{op}: expected flags of shape ({size},) for scores of shape {tuple(s.shape)}, "
                f"got {tuple(plane.shape)}; pack_mask makes them"
            )
    return planes


def _check_count(op: str, count: int, least: int, most: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{op}: expected a count to be an int, got {type(count).__name__}")
    if not least <= count <= most:
        raise ValueError(f"{op}: expected a count in [{least}, {most}], got {count}")


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
    _check_some(op, "scores", scores)
    checked = [_check_scores(op, s) for s in scores]
    planes = _check_planes_of(op, flags, checked)
    check_choice(op, "scope", scope, SCOPES)
    check_choice(op, "by", by, ORDERS)
    sizes = [s.numel() for s in checked]
    rankings = [sum(sizes)] if scope == "global" else sizes
    if len(counts) != len(rankings):
        raise ValueError(f"{op}: expected one count a ranking ({len(rankings)}), got {len(counts)}")
    for count, n in zip(counts, rankings, strict=True):
        _check_count(op, count, 0, n)
    laid = [dense(s.detach()) for s in checked]
    taus = _strike_out(laid, planes, list(counts), scope == "global", by == "value", bool(invert), bool(exact))
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


@register_fake("strike_near_")
def _(scores, flags, count, margin) -> tuple[Tensor, Tensor, Tensor]:
    device, near = scores[0].device, torch.library.get_ctx().new_dynamic_size()
    return (
        torch.empty(1, dtype=torch.float32, device=device),
        torch.empty(1, dtype=torch.int64, device=device),
        torch.empty(near, dtype=torch.int64, device=device),
    )


def strike_near_(
    scores: Sequence[Tensor], flags: Sequence[Tensor], count: int, margin: float
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Flag, in place, the scores above the count-th smallest of all by magnitude; tell it, and where some are near it.

    All entries are ranked, whatever their flag was. Ties with the threshold tau go. A score is near where it is not 0
    and `tau (1 - margin) <= |score| <= tau (1 + margin)`, the ends rounded to float32. Where a score is infinite or NaN
    tau is NaN, nothing is near and no flag changes. On a CPU alone: a captured graph, which SynFlow is on a GPU, cannot
    have a result of unknown length.

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
    op = "strike_near_"
    _check_some(op, "scores", scores)
    for s in scores:
        check_tensor(op, "scores", s, dtypes=(torch.float32,))
        if s.device.type == "cuda" or not s.is_contiguous() or s.numel() == 0:
            raise ValueError(
                f"{op}: expected contiguous scores on a CPU, at least one a tensor, got shape {tuple(s.shape)}, "
                f"strides {s.stride()} on {s.device}"
            )
    planes = _check_planes_of(op, flags, scores)
    _check_count(op, count, 1, sum(s.numel() for s in scores))
    if not 0 <= margin < 1:
        raise ValueError(f"{op}: expected a margin in [0, 1), got {margin}")
    threshold, below, places = _strike_near([s.detach() for s in scores], planes, count, float(margin))
    if not torch.compiler.is_compiling():  # written behind autograd's back: who kept what flags made must know
        torch.autograd.graph.increment_version(planes)
    ends = torch.tensor([s.numel() for s in scores]).cumsum(0)
    parts = places.tensor_split(torch.searchsorted(places, ends)[:-1])
    return threshold, below, [part - (end - s.numel()) for part, end, s in zip(parts, ends, scores, strict=True)]
