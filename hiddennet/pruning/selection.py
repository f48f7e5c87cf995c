"""Which density an iteration aims at, and which scores stay: those above the k-th smallest of all, without ties, by
the kernels of strike_out_."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet import ops
from hiddennet.ops.checks import check_choice

SCHEDULES = ("exponential", "linear")


def check_density(op: str, name: str, density: object) -> float:
    """A kept fraction in (0, 1]."""
    if isinstance(density, bool) or not isinstance(density, (int, float)):
        raise TypeError(f"{op}: expected {name} to be a number, got {type(density).__name__}")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"{op}: expected a {name} in (0, 1], got {density}; it is the fraction that is kept")
    return float(density)


def check_count(op: str, name: str, value: object) -> int:
    """A whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{op}: expected {name} to be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{op}: expected {name} of 1 or more, got {value}")
    return value


def densities(density: float, iterations: int, schedule: str = "exponential") -> list[float]:
    """The density after each iteration: d^(e/n), or 1 - (1 - d) e/n, for e = 1 to n (Tanaka et al. 2020, section 5).

    Raises:
        TypeError, ValueError: a density outside (0, 1], no iterations, an unknown schedule.
    """
    check_density("densities", "density", density)
    check_count("densities", "iterations", iterations)
    check_choice("densities", "schedule", schedule, SCHEDULES)
    if schedule == "exponential":
        return [density ** ((e + 1) / iterations) for e in range(iterations)]
    return [1.0 - (1.0 - density) * ((e + 1) / iterations) for e in range(iterations)]


def removed_count(n: int, density: float) -> int:
    """How many of n weights, those already pruned among them, are at or below the threshold: cut off, not rounded."""
    return int((1.0 - density) * n)


def strike(
    scores: Sequence[Tensor],
    planes: Sequence[Tensor],
    full: Sequence[Tensor],
    counts: Sequence[int],
    *,
    scope: str,
    nested: bool = False,
    by: str = "value",
    captured: bool = False,
) -> Tensor | None:
    """Write into the planes which scores are above the counts[g]-th smallest, over all layers or layer by layer.

    Scores of entries pruned before are ranked like the others. Planes of a ranking whose count is 0 stay as they are.
    Neither waits for a device, with float32 scores and without `nested`, or with `captured`.

    Args:
        scores: float32 or float64, one tensor a layer; finite.
        planes: uint8 [ceil(n / 8)] each, as pack_mask makes them, changed in place.
        full: planes of ones.
        counts: one for the network, or with scope "layer" one a layer.
        nested: entries whose flag is 0 score exactly 0, and none is negative: they need not be looked at again.
        by: "value" or "magnitude", the order of ops.strike_out_.
        captured: rank float64 scores, all within float32's range, by their first 48 bits, on the device alone.

    Returns:
        float32 [rankings that were pruned]: the thresholds; None if none was, or float64 scores are not `captured`.
    """
    if scope == "layer":
        chosen = [i for i, count in enumerate(counts) if count > 0]
        going = [counts[i] for i in chosen]
    else:
        chosen = list(range(len(scores))) if counts[0] > 0 else []
        going = list(counts)
    if not chosen:
        return None
    scores, planes, full = ([each[i] for i in chosen] for each in (scores, planes, full))
    if captured and scores[0].dtype == torch.float64:
        return _strike_double_captured(scores, planes, full, going, scope, by)
    if scores[0].dtype == torch.float64:
        groups = [[i] for i in range(len(chosen))] if scope == "layer" else [list(range(len(chosen)))]
        for group, count in zip(groups, going, strict=True):
            _strike_double([scores[i] for i in group], [planes[i] for i in group], [full[i] for i in group], count, by)
        return None
    if nested:
        gone = [s.numel() - n for s, n in zip(scores, ops.count_flags(planes).tolist(), strict=True)]
        left = [count - n for count, n in zip(going, [sum(gone)] if scope == "global" else gone, strict=True)]
        if min(left) > 0:
            return ops.strike_out_(scores, planes, left, scope=scope, by=by)
    torch._foreach_copy_(planes, full)
    return ops.strike_out_(scores, planes, going, scope=scope, by=by)


def _strike_double(
    scores: Sequence[Tensor], planes: Sequence[Tensor], full: Sequence[Tensor], count: int, by: str
) -> None:
    """float64 scores ranked by the float32 kernels; among those that rounding makes equal to the threshold, exactly."""
    scores = [s.abs() for s in scores] if by == "magnitude" else list(scores)
    largest = max(float(s.abs().max()) for s in scores)
    factor = math.ldexp(1.0, -max(-1000, min(1000, math.frexp(largest)[1])))
    rounded = [(s * factor).float() for s in scores]  # monotone: no order is turned round
    torch._foreach_copy_(planes, full)
    threshold = ops.strike_out_(rounded, planes, [count], scope="global", by="value")
    tied = [r == threshold for r in rounded]
    below = sum(int((r < threshold).count_nonzero()) for r in rounded)
    values = torch.cat([s[t] for s, t in zip(scores, tied, strict=True)])
    if bool((values == values[0]).all()):
        return
    exact = values.kthvalue(count - below).values
    for s, t, plane in zip(scores, tied, planes, strict=True):
        stays = ops.unpack_mask(plane, s.shape) | (t & (s > exact))
        plane.copy_(ops.pack_mask(stays))


def _strike_double_captured(
    scores: Sequence[Tensor], planes: Sequence[Tensor], full: Sequence[Tensor], counts: list[int], scope: str, by: str
) -> Tensor:
    """Two rankings of float32 keys: the scores rounded; then, of those that tie, what rounding took from them."""
    scores = [s.abs() for s in scores] if by == "magnitude" else list(scores)
    rounded = [s.float() for s in scores]
    torch._foreach_copy_(planes, full)
    thresholds = ops.strike_out_(rounded, planes, counts, scope=scope, by="value")
    keys = []
    for s, r, threshold in zip(scores, rounded, thresholds.expand(len(scores)), strict=True):
        rest = (s - r.double()).float()
        keys.append(torch.where(r == threshold, rest, torch.where(r < threshold, -torch.inf, torch.inf)))
    torch._foreach_copy_(planes, full)
    ops.strike_out_(keys, planes, counts, scope=scope, by="value")
    return thresholds


def inverted(scores: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
    """1 / score in float64: the highest scores come last. Of scores of 0, those of pruned entries become the lowest,
    so that they stay pruned, the others the highest."""
    doubles = [s.double() for s in scores]
    inverse = [torch.where(s == 0, 0.0, 1.0 / torch.where(s == 0, 1.0, s)) for s in doubles]
    inverse = [i.clamp(-1e300, 1e300) for i in inverse]
    beyond = 2.0 * max(float(i.abs().max()) for i in inverse) + 1.0
    return [
        torch.where(s == 0, torch.where(m, beyond, -beyond), i) for s, m, i in zip(doubles, masks, inverse, strict=True)
    ]
