"""Loss and accuracy, summed on the device and read when somebody looks."""

from __future__ import annotations

from dataclasses import asdict, dataclass

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
    """Sums of loss, hits and images, and whether a loss was not finite; float64 on the device."""

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, loss_sum: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: the sum of its losses, logits [n, classes], labels [n]. No host sync."""
        rank = rank_of_label(logits.detach(), labels)
        loss_sum = loss_sum.detach().double()
        self.sums += torch.stack(
            [
                loss_sum,
                (rank < 1).sum().double(),
                (rank < 5).sum().double(),
                torch.full_like(loss_sum, labels.numel()),
                (~loss_sum.isfinite()).double(),
            ]
        )

    def read(self, ranks: Ranks | None = None) -> tuple[Scores, bool]:
        """Return the means, over all ranks if given, and whether all losses were finite."""
        sums = self.sums if ranks is None else ranks.sum(self.sums.clone())
        loss, top1, top5, images, broken = sums.tolist()
        count = max(1.0, images)
        return Scores(loss / count, top1 / count, top5 / count, int(images)), broken == 0
