"""Learning rates by epoch. Set once before each epoch, as the papers do; not by step."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any


def learning_rate(schedule: Any, lr: float, epoch: int, epochs: int) -> float:
    """Return the learning rate of `epoch` (from 0) of `epochs`.

    With w warm-up epochs, epoch e < w has lr (e + 1) / w whatever the schedule. Then
    constant: lr; cosine: lr (1 + cos(pi (e - w) / (E - w - f))) / 2 and final_lr in the f final
    epochs; multistep: lr gamma^m, where m is the number of milestones <= e, or e // interval.

    schedule: a section of hiddennet.config. lr: its value at the top.
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
    return lr
