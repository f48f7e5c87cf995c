"""How Gem-Miner prunes: what share of the scores each pruning strikes out, and which scores those are.

Sreenivasan et al. 2022, "Rare Gems: Finding Lottery Tickets at Initialization" (arXiv 2202.12002), algorithm 1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet import ops
from hiddennet.nn import HiddenMixin
from hiddennet.ops.checks import check_choice, check_same_device, check_tensor
from hiddennet.ops.strike_out import SCOPES


def prune_rate(target_density: float, period: int, epochs: int) -> tuple[int, float]:
    """Return (N, r): N prunings, one every `period` epochs but not after the last, each of a share r of what is left.

    N = floor((epochs - 1) / period) and (1 - r)^N = target_density.

    Args:
        target_density: the fraction of scores left after all prunings, in (0, 1].
        period: epochs from one pruning to the next, at least 1.
        epochs: length of the search; longer than the period.

    Raises:
        ValueError: an argument outside what is said above.
    """
    op = "prune_rate"
    if not 0.0 < target_density <= 1.0:
        raise ValueError(f"{op}: expected a target density in (0, 1], got {target_density}")
    if period < 1:
        raise ValueError(f"{op}: expected a period of at least 1 epoch, got {period}")
    prunings = (epochs - 1) // period
    if prunings < 1:
        raise ValueError(
            f"{op}: expected fewer than {epochs} epochs from one pruning to the next in a search of {epochs}, got "
            f"{period}: nothing would be pruned; search for longer or prune more often"
        )
    return prunings, 1.0 - target_density ** (1.0 / prunings)


def _check(scores: Sequence[Tensor], flags: Sequence[Tensor], rate: float, scope: str) -> None:
    op = "strike_out"
    for name, tensors in (("scores", scores), ("flags", flags)):
        if isinstance(tensors, Tensor) or not tensors:
            got = "one Tensor" if isinstance(tensors, Tensor) else f"an empty {type(tensors).__name__}"
            raise ValueError(f"{op}: expected a non-empty list of {name}, got {got}")
    if len(flags) != len(scores):
        raise ValueError(f"{op}: expected flags for each of {len(scores)} layers, got {len(flags)}")
    for s, f in zip(scores, flags, strict=True):
        check_tensor(op, "scores", s, dtypes=(torch.float32,))
        check_tensor(op, "flags", f, dtypes=(torch.bool,))
        check_same_device(op, "flags", f, "the scores", s)
        if f.shape != s.shape:
            raise ValueError(f"{op}: expected flags of the scores' shape {tuple(s.shape)}, got {tuple(f.shape)}")
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{op}: expected a rate in [0, 1), got {rate}; it is the share that is struck out")
    check_choice(op, "scope", scope, SCOPES)


@torch.no_grad()
def strike_out(
    scores: Sequence[Tensor],
    flags: Sequence[Tensor],
    rate: float,
    scope: str = "global",
    invert: bool = False,
    *,
    exact: bool = False,
) -> float | list[float]:
    """Strike a share of the active entries out of the flags, in place: those with the smallest |score|.

    K = ceil(rate * active entries), tau = the K-th smallest |score| among them; a flag stays iff its |score| > tau. All
    ties at tau go, so many equal scores can take more than K along (the original's rule; scores clamped to 0 do). With
    `exact` only K go: of the ties at tau, the lower (layer, OIHW index) first. A layer may be left with nothing.

    Args:
        scores: float32 tensors of any shapes and memory formats, one a layer, on one device. Not changed.
        flags: bool, of the scores' shapes; changed in place.
        rate: the share of the active entries that goes, in [0, 1).
        scope: "global": one K and one tau for all layers; "layer": one for each.
        invert: the largest |score| go (a sanity check): tau is the K-th largest, a flag stays iff its |score| < tau.
        exact: no more than K go.

    Returns:
        tau, or with scope "layer" a list of them; -inf (with `invert` +inf) where nothing was to go.

    Raises:
        TypeError, ValueError: empty lists, wrong dtypes, shapes that differ, a rate outside [0, 1), an unknown scope.
    """
    _check(scores, flags, rate, scope)
    planes = [ops.pack_mask(f) for f in flags]
    active = ops.count_flags(planes).tolist()
    counts = [math.ceil(rate * n) for n in ([sum(active)] if scope == "global" else active)]
    thresholds = ops.strike_out_(scores, planes, counts, scope=scope, invert=invert, exact=exact).tolist()
    for f, plane in zip(flags, planes, strict=True):
        f.copy_(ops.unpack_mask(plane, f.shape))
    return thresholds[0] if scope == "global" else thresholds


@torch.no_grad()
def strike_layers(
    layers: dict[str, HiddenMixin],
    rate: float,
    scope: str,
    *,
    invert: bool = False,
    exact: bool = False,
    at: float = 0.5,
    more: int = 0,
) -> list[str]:
    """Strike out the fraction `rate` of what is left in hidden layers, on their bit planes, in one call.

    Layers with a Rounded rule are ranked by their scores, those with a fixed mask by the magnitudes of their weights.

    Args:
        layers: by name. scope: "global", "layer", or "threshold": all scores at or below `at`, whatever the rate.
        more: so many beyond ceil(rate n).

    Returns:
        The names of layers in which nothing is left.
    """
    planes = [layer.rule.prunable(layer) for layer in layers.values()]
    ranked = [layer.scores if layer.scores is not None else layer.stored for layer in layers.values()]
    if scope == "threshold":
        for plane, scores in zip(planes, ranked, strict=True):
            plane.bitwise_and_(ops.pack_mask(scores > at))
    else:
        left = ops.count_flags(planes).tolist()
        numbers = [sum(left)] if scope == "global" else left
        counts = [min(n, math.ceil(rate * n) + more) for n in numbers]
        ops.strike_out_([t.detach() for t in ranked], planes, counts, scope=scope, invert=invert, exact=exact)
    left = ops.count_flags(planes).tolist()
    return [name for name, count in zip(layers, left, strict=True) if count == 0]
