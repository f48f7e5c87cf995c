"""Who is told of each epoch of a run: metrics.csv always; TensorBoard and a user's own by train.loggers.

    @hn.register("logger", "lines")
    class Lines:
        def __init__(self, folder: Path, history: list[dict]): ...    # the run's folder, the rows of the epochs before
        def add(self, row: dict, epoch: int): ...                     # an epoch's numbers; epochs count from 1
        def close(self): ...

One is made when a run starts or goes on, by the first process alone. A row has `epoch`, `lr`, `train_loss`,
`test_top1`, ...; names with a '/' are of one layer each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiddennet.files import csv_text, write_text
from hiddennet.registry import register

SPLITS = ("train", "validation", "test")


def of_the_run(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what is of single layers."""
    return {name: value for name, value in row.items() if "/" not in name}


class Metrics:
    """metrics.csv: a row an epoch, written whole each time."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]):
        self.file, self.rows = folder / "metrics.csv", [dict(row) for row in history]

    def add(self, row: Mapping[str, Any], epoch: int) -> None:
        self.rows.append(of_the_run(row))
        write_text(self.file, csv_text(self.rows))

    def close(self) -> None:
        """Nothing waits."""


@register("logger", "tensorboard")
class TensorBoard:
    """TensorBoard's events, in events/. A resumed run leaves no epoch twice."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "events"), purge_step=len(history) + 1)

    def add(self, row: Mapping[str, Any], epoch: int) -> None:
        """`train_loss` as `train/loss`, `lr` as `run/lr`."""
        for name, value in row.items():
            split, _, rest = name.partition("_")
            tag = f"{split}/{rest}" if split in SPLITS else name if "/" in name else f"run/{name}"
            if name != "epoch":
                self._writer.add_scalar(tag, value, epoch)

    def close(self) -> None:
        """Write out what is waiting."""
        self._writer.close()
