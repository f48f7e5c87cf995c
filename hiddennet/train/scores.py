"""Loss and accuracy, summed on the device and read when somebody looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hiddennet.train.ranks import Ranks


@dataclass(frozen=True)
class Scores:
    """Means over `images`: loss in nats, accuracies in [0, 1]."""

    loss: float
    top1: float
    top5: float
    images: int

    def columns(self, split: str) -> dict[str, float]:
        """Loss and accuracies by column, `validation_top1`."""
        found = asdict(self)
        return {f"{split}_{name}": found[name] for name in ("loss", "top1", "top5")}


def rank_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the label's: int64 [n].

    Among equal logits the lower class comes first, as in argmax; a NaN is never right.
    """
    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    before = ~(logits <= own) | ((logits == own) & lower)
    return before.sum(1)


class Meter:
    """Sums of losses, hits and images. Counting a batch is one small addition on the device.

    Hits are counted for several batches at once, later: their number does not depend on when. The
    losses' sum, in float64, is added to batch by batch, so that it does not either.
    """

    batches_at_once = 16
    logits_at_once = 1 << 22  # those of a large vocabulary are not kept waiting: their memory is needed

    def __init__(self, device: torch.device):
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.hits = torch.zeros(2, dtype=torch.int64, device=device)
        self.images = 0
        self._waiting: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def add(self, loss_sum: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: the sum of its losses, logits [n, classes], labels [n]. No host sync."""
        self.loss += loss_sum.detach()
        self.images += labels.numel()
        self._waiting.append((logits.detach(), labels))
        waiting = sum(logits.numel() for logits, _ in self._waiting)
        if len(self._waiting) >= self.batches_at_once or waiting > self.logits_at_once:
            self._count()

    @torch.no_grad()
    def take(self, loss_sum: Tensor, hits: Tensor, images: int) -> None:
        """Add what was counted of a batch: the sum of its losses, its hits within 1 and 5, how many there are."""
        self.loss += loss_sum
        self.hits += hits
        self.images += images

    def _count(self) -> None:
        if self._waiting:
            logits, labels = map(torch.cat, zip(*self._waiting, strict=True))
            rank = rank_of_label(logits, labels)
            self.hits += torch.stack([(rank < 1).sum(), (rank < 5).sum()])
            self._waiting = []

    def read(self, ranks: Ranks | None = None) -> tuple[Scores, bool]:
        """Return the means, over all ranks if given, and whether all losses were finite."""
        self._count()
        own = torch.tensor([self.images], dtype=torch.float64).to(self.loss.device)
        sums = torch.cat([self.loss[None], self.hits.double(), own])
        loss, top1, top5, images = (sums if ranks is None else ranks.sum(sums)).tolist()
        count = max(1.0, images)
        return Scores(loss / count, top1 / count, top5 / count, int(images)), math.isfinite(loss)

    def state(self) -> dict[str, Any]:
        """Plain values from which `restore` goes on."""
        self._count()
        return {"loss": self.loss.item(), "hits": self.hits.tolist(), "images": self.images}

    def restore(self, states: Sequence[dict[str, Any]], ranks: Ranks) -> None:
        """Go on from the `state` of every rank; where there were others, the first one takes all that they counted."""
        if len(states) == ranks.world:
            states = states[ranks.rank : ranks.rank + 1]
        elif not ranks.first:
            states = []
        for state in states:
            self.loss += state["loss"]
            self.hits += torch.as_tensor(state["hits"], device=self.hits.device)
            self.images += state["images"]
