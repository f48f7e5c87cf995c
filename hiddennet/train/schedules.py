"""Learning rates: set once before each epoch, as most papers do, or where a schedule says so before each step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any


def by_iteration(schedule: Any) -> bool:
    """Whether the schedule changes the learning rate before each step."""
    return getattr(schedule, "by", "epoch") == "iteration"


def learning_rate(
    schedule: Any,
    lr: float,
    epoch: int,
    epochs: int,
    history: Sequence[Mapping[str, Any]] = (),
    *,
    iteration: int = 0,
    iterations: int = 1,
) -> float:
    """Return the learning rate of `epoch` (from 0) of `epochs`.

    With w warm-up epochs, epoch e < w has lr (e + 1) / w whatever the schedule. Then
    constant: lr; cosine: lr (1 + cos(pi (e - w) / (E - w - f))) / 2 and final_lr in the f final
    epochs; multistep: lr gamma^m, where m is the number of milestones <= e, or e // interval; plateau:
    lr / factor^b, where b is the number of epochs from w to e - 1 whose validation loss is not below
    all before it from w on.

    A cosine by iteration counts steps from 1, as the optimiser of "Discovering Neural Wirings" has
    them: with I steps an epoch, step n <= w I has lr n / (w I), a later one
    lr (1 + cos(pi (n - w I) / (I (E - w - f)))) / 2, which ends with 0.

    schedule: a section of hiddennet.config. lr: its value at the top. history: the rows of the epochs
    before, in order; plateau reads their `validation_loss`. iteration: the step within the epoch, from
    0, of `iterations`; read by iteration alone.

    Raises ValueError for plateau without a row for each of them.
    """
    warmup = schedule.warmup_epochs
    if by_iteration(schedule):
        step, warm = epoch * iterations + iteration + 1, warmup * iterations
        if step <= warm:
            return lr * step / warm
        falling = (epochs - warmup - schedule.final_epochs) * iterations
        if step - warm > falling:
            return schedule.final_lr
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / falling)) * lr
    if epoch < warmup:
        return lr * (epoch + 1) / warmup
    if schedule.name == "cosine":
        falling = epochs - warmup - schedule.final_epochs
        if epoch >= warmup + falling:
            return schedule.final_lr
        return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / falling)) * lr
    if schedule.name == "multistep":
        passed = bisect_right(schedule.milestones, epoch)
        if schedule.interval is not None:
            passed = epoch // schedule.interval
        return lr * schedule.gamma**passed
    if schedule.name == "plateau":
        if len(history) < epoch:
            raise ValueError(f"plateau: expected the rows of the {epoch} epochs before, got {len(history)}")
        best, rate = math.inf, lr
        for row in history[warmup:epoch]:
            if row["validation_loss"] < best:
                best = row["validation_loss"]
            else:
                rate /= schedule.factor
        return rate
    return lr
