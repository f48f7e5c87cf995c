"""score_step_: regulariser, optimiser update and clamp of all scores in one pass. Gem-Miner (arXiv 2202.12002)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import check_like, check_plane, check_same_device, check_tensor, is_channels_last
from hiddennet.ops.fakes import register_fake

_score_step = torch.ops.hiddennet.score_step_.default


@register_fake("score_step_")
def _(
    scores, grads, first, second, flags, steps, lr, weight_decay, l1, l2, low, high, momentum, nesterov, *adam
) -> None:
    return None


def check_clamp(op: str, clamp: object) -> tuple[float, float]:
    """(low, high) with low < high; None is (-inf, inf): no clamp."""
    if clamp is None:
        return -math.inf, math.inf
    two = isinstance(clamp, (tuple, list)) and len(clamp) == 2 and all(isinstance(end, Real) for end in clamp)
    if not two or not clamp[0] < clamp[1]:
        raise ValueError(f"{op}: expected clamp to be None or (low, high) with low < high, got {clamp!r}")
    return float(clamp[0]), float(clamp[1])


def _check_numbers(op: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, Tensor):
            raise TypeError(f"{op}: expected {name} to be a float, got a Tensor; reading it would wait for its device")
        if not isinstance(value, Real):
            raise TypeError(f"{op}: expected {name} to be a float, got {value!r}")
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{op}: expected {name} >= 0, got {value}")


def _check_betas(op: str, betas: tuple[float, float]) -> None:
    two = isinstance(betas, (tuple, list)) and len(betas) == 2 and all(isinstance(beta, Real) for beta in betas)
    if not two or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"{op}: expected two betas in [0, 1), got {betas!r}")


def check_hyper(
    op: str,
    *,
    lr: float,
    weight_decay: float,
    l1: float,
    l2: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] | None = None,
    eps: float = 0.0,
) -> None:
    """Refuse what no step can be taken with."""
    _check_numbers(op, lr=lr, weight_decay=weight_decay, l1=l1, l2=l2, momentum=momentum, eps=eps)
    if betas is not None:
        _check_betas(op, betas)
    if nesterov and momentum == 0.0:
        raise ValueError(f"{op}: expected a momentum above 0 with nesterov, got 0")


def score_step_(
    scores: Sequence[Tensor],
    grads: Sequence[Tensor],
    first: Sequence[Tensor] = (),
    second: Sequence[Tensor] = (),
    *,
    lr: float,
    weight_decay: float = 0.0,
    l1: float = 0.0,
    l2: float = 0.0,
    clamp: tuple[float, float] | None = (0.0, 1.0),
    momentum: float = 0.0,
    nesterov: bool = False,
    betas: tuple[float, float] | None = None,
    eps: float = 1e-8,
    steps: Sequence[int] = (),
    flags: Sequence[Tensor | None] | None = None,
) -> None:
    """Take one step of SGD, or with `betas` of Adam, on all scores at once; change scores and state in place.

    With p the score before the step, the gradient is grad + weight_decay * p + l1 * sign(p) + 2 * l2 * p: that of the
    regulariser l1 |p| + l2 p^2. The update is torch.optim.SGD's or torch.optim.Adam's, then p is clamped. An element
    whose flag bit is 0 is left wholly alone. Neither waits for a device nor allocates on it. Equivalent to, for SGD:
    `g = grad + ...; m = momentum * m + g; p = (p - lr * m).clamp(*clamp)`.

    Args:
        scores: float32, any shapes, OIHW or channels_last memory, all on one device.
        grads: float32, each of its scores' shape and memory layout.
        first: SGD: the momentum, needed where momentum > 0; Adam: exp_avg. As the grads; zeros before the first step.
        second: Adam: exp_avg_sq.
        lr, weight_decay, l1, l2, momentum, nesterov, betas, eps: at least 0; betas below 1.
        clamp: (low, high), or None.
        steps: Adam: the number of this step for each tensor, from 1 on.
        flags: None, or for each tensor None or uint8 [ceil(n / 8)]: bit 1 = takes part, OIHW order.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "score_step_"
    if isinstance(scores, Tensor) or not scores:
        raise ValueError(f"{op}: expected a non-empty list of scores")
    check_hyper(
        op, lr=lr, weight_decay=weight_decay, l1=l1, l2=l2, momentum=momentum, nesterov=nesterov, betas=betas, eps=eps
    )
    low, high = check_clamp(op, clamp)
    adam = betas is not None
    wanted = {"grads": (grads, True), "first": (first, adam or momentum != 0.0), "second": (second, adam)}
    for name, (given, needed) in wanted.items():
        if len(given) != (len(scores) if needed else 0):
            rule = "Adam" if adam else f"SGD with momentum {momentum}"
            count = len(scores) if needed else 0
            raise ValueError(f"{op}: expected {count} tensors of {name} for {rule}, got {len(given)}")
    if adam and (len(steps) != len(scores) or not all(isinstance(s, int) and s >= 1 for s in steps)):
        raise ValueError(f"{op}: expected {len(scores)} steps, ints from 1 on, got {list(steps)}")
    if flags is not None and len(flags) != len(scores):
        raise ValueError(f"{op}: expected {len(scores)} planes of flags or None, got {len(flags)}")
    for i, s in enumerate(scores):
        check_tensor(op, "scores", s, dtypes=(torch.float32,))
        check_same_device(op, "scores", s, "the first scores", scores[0])
        if not (s.is_contiguous() or is_channels_last(s)):
            raise ValueError(f"{op}: expected scores contiguous or channels_last, got strides {s.stride()}")
        for name, (given, needed) in wanted.items():
            if needed:
                check_like(op, name, given[i], s, torch.float32)
        if flags is not None and flags[i] is not None:
            check_plane(op, "flags", flags[i], s)
    none = scores[0].new_empty(0, dtype=torch.uint8)
    planes = [] if flags is None else [none if plane is None else plane for plane in flags]
    numbers = lr, weight_decay, l1, l2, low, high, momentum, nesterov, *(betas or (0.0, 0.0)), eps
    with torch.no_grad():
        _score_step(list(scores), grads, first, second, planes, list(steps) if adam else [], *numbers, *([],) * 6)
    if not torch.compiler.is_compiling():  # written behind autograd's back: selections and saved values must know
        torch.autograd.graph.increment_version(scores)
