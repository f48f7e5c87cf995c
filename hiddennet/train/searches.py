"""Searches: says once that masks are found by a search through all scores at most steps, which nobody would see."""

from __future__ import annotations

import torch
from torch import nn

from hiddennet.nn import hidden_layers

STEPS = 50  # at least, between two looks
NARROW = 64  # keys: as far as a bracket shrinks that is always too full (csrc/ops/topk_select, next_width)


class Searches:
    """Counts them: a selection looks around the last threshold first, and its row counts when that was not enough."""

    def __init__(self) -> None:
        self.told = False
        self._names: list[str] = []
        self._step, self._counts = 0, torch.zeros(0, dtype=torch.int64)

    def look(self, model: nn.Module, step: int) -> str | None:
        """A sentence where most selections since the last look searched, the first time. Waits for the device.

        step: of the run, the number of those that were taken.
        """
        if self.told or (self._names and step - self._step < STEPS):
            return None
        layers = {name: layer for name, layer in hidden_layers(model).items() if getattr(layer.rule, "rows", False)}
        if not layers:
            return None
        rows = torch.stack([layer.selection for layer in layers.values()]).cpu().to(torch.int64)
        names, counts, steps = list(layers), rows[:, 3], step - self._step
        known = names == self._names
        found = (counts - self._counts).tolist() if known else []
        self._names, self._step, self._counts = names, step, counts
        slow = [i for i, count in enumerate(found) if 2 * count > steps]
        if not slow:
            return None
        self.told = True
        moved = sum(int(rows[i, 2]) % 2**32 > NARROW for i in slow) * 2 >= len(slow)
        some = ", ".join(names[i] for i in slow[:4]) + (", ..." if len(slow) > 4 else "")
        why = (
            "thresholds move further than is looked around the last ones; a lower optimizer.lr moves them less"
            if moved
            else "too many scores are nearly equal to the thresholds; scores that are drawn (method.score_init) are not"
        )
        return (
            f"warning: in {max(found[i] for i in slow)} of the last {steps} steps the masks of {len(slow)} of "
            f"{len(names)} hidden layers ({some}) took a search through all scores, which costs three more passes over "
            f"them, since {why}; the masks are exact either way"
        )
