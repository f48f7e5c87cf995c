"""bop_step_: average, compare and flip of all sign-trained weights in one pass. Bop (arXiv 1906.02107, algorithm 2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import check_like, check_plane, check_same_device, check_tensor, is_channels_last
from hiddennet.ops.fakes import register_void

_bop_step = torch.ops.hiddennet.bop_step_.default
register_void("bop_step_")


def check_bop(op: str, *, adaptivity_rate: float, threshold: float) -> None:
    """Refuse what no step can be taken with."""
    for name, value in (("adaptivity_rate", adaptivity_rate), ("threshold", threshold)):
        if isinstance(value, Tensor):
            raise TypeError(f"{op}: expected {name} to be a float, got a Tensor; reading it would wait for its device")
    if not 0.0 < adaptivity_rate < 1.0:
        raise ValueError(f"{op}: expected adaptivity_rate in (0, 1), got {adaptivity_rate}")
    if not 0.0 <= threshold < math.inf:
        raise ValueError(f"{op}: expected threshold >= 0, got {threshold}")


def _check_counter(op: str, name: str, value: object, like: Tensor) -> None:
    check_tensor(op, name, value, dtypes=(torch.int64,))
    if value.shape != (1,):
        raise ValueError(f"{op}: expected {name} of shape (1,), got {tuple(value.shape)}")
    check_same_device(op, name, value, "the weights", like)


def bop_step_(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    averages: Sequence[Tensor],
    flips: Sequence[Tensor],
    total_flips: Sequence[Tensor],
    *,
    adaptivity_rate: float,
    threshold: float,
    fresh: Sequence[bool] | None = None,
    flags: Sequence[Tensor | None] | None = None,
) -> None:
    """Take one step of Bop on all weights at once; change weights, averages and counters in place.

    With g the gradient: m = (1 - rate) m + rate g, or g + rate g where fresh; then a weight p is negated where
    |m| >= threshold and sign(m) = sign(p), with sign(0) = 0. NaN, in m or p, never flips. With threshold 0 a weight of
    0 under an average of 0 counts as a flip, from 0 to -0. Numbers are rounded to float32. Only sign bits of the
    weights change. An element whose flag bit is 0 is left wholly alone, its average too. Nothing waits for a device.

    Args:
        weights: float32, any shapes, OIHW or channels_last memory, all on one device.
        grads: float32, each of its weight's shape and memory layout.
        averages: m, as the grads.
        flips: int64 [1] each: set to how many elements of this weight flipped.
        total_flips: int64 [1] each: as many are added.
        adaptivity_rate: in (0, 1).
        threshold: at least 0.
        fresh: True where the average starts from this gradient, and its memory may hold anything; None: nowhere. With
            flags it is read where the bit is 0.
        flags: None, or for each weight None or uint8 [ceil(n / 8)]: bit 1 = may flip, OIHW order.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "bop_step_"
    if isinstance(weights, Tensor) or not weights:
        raise ValueError(f"{op}: expected a non-empty list of weights")
    check_bop(op, adaptivity_rate=adaptivity_rate, threshold=threshold)
    lists = {"grads": grads, "averages": averages, "flips": flips, "total_flips": total_flips}
    lists |= {} if fresh is None else {"fresh": fresh}
    lists |= {} if flags is None else {"flags": flags}
    for name, given in lists.items():
        if len(given) != len(weights):
            raise ValueError(f"{op}: expected {len(weights)} {name}, one for each weight, got {len(given)}")
    for i, w in enumerate(weights):
        check_tensor(op, "weights", w, dtypes=(torch.float32,))
        check_same_device(op, "weights", w, "the first of the weights", weights[0])
        if not (w.is_contiguous() or is_channels_last(w)):
            raise ValueError(f"{op}: expected weights contiguous or channels_last, got strides {w.stride()}")
        check_like(op, "grads", grads[i], w, torch.float32, other="weights")
        check_like(op, "averages", averages[i], w, torch.float32, other="weights")
        _check_counter(op, "flips", flips[i], w)
        _check_counter(op, "total_flips", total_flips[i], w)
        if flags is not None and flags[i] is not None:
            check_plane(op, "flags", flags[i], w, other="weights")
    with torch.no_grad():
        launch(
            list(weights),
            grads,
            averages,
            flips,
            total_flips,
            [] if flags is None else flags,
            [False] * len(weights) if fresh is None else fresh,
            adaptivity_rate=adaptivity_rate,
            threshold=threshold,
        )


def launch(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    averages: Sequence[Tensor],
    flips: Sequence[Tensor],
    total_flips: Sequence[Tensor],
    flags: Sequence[Tensor | None],
    fresh: Sequence[bool],
    *,
    adaptivity_rate: float,
    threshold: float,
) -> None:
    """bop_step_ for callers that checked: no gradient mode, lists as there."""
    none = weights[0].new_empty(0, dtype=torch.uint8) if flags else None
    _bop_step(
        weights,
        grads,
        averages,
        flips,
        total_flips,
        [none if plane is None else plane for plane in flags],
        [int(f) for f in fresh],
        adaptivity_rate,
        threshold,
    )
    if not torch.compiler.is_compiling():  # written behind autograd's back: saved values must know
        torch.autograd.graph.increment_version(weights)
