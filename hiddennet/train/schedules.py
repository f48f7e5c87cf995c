"""Learning rates by epoch. Set once before each epoch, as the papers do; not by step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any


def learning_rate(
    schedule: Any, lr: float, epoch: int, epochs: int, history: Sequence[Mapping[str, Any]] = ()
) -> float:
    """Return the learning rate of `epoch` (from 0) of `epochs`.

    With w warm-up epochs, epoch e < w has lr (e + 1) / w whatever the schedule. Then
    constant: lr; cosine: lr (1 + cos(pi (e - w) / (E - w - f))) / 2 and final_lr in the f final
    epochs; multistep: lr gamma^m, where m is the number of milestones <= e, or e // interval; plateau:
    lr / factor^b, where b is the number of epochs from w to e - 1 whose validation loss is not below
    all before it from w on.

    schedule: a section of hiddennet.config. lr: its value at the top. history: the rows of the epochs
    before, in order; plateau reads their `validation_loss`.

    Raises ValueError for plateau without a row for each of them.
    """
    warmup = schedule.warmup_epochs
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
