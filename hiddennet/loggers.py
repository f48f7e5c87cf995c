"""Who is told of a run: metrics.csv always; TensorBoard, trackers (trackers.py) and a user's own by train.loggers.

    @hn.register("logger", "lines")
    class Lines:
        def __init__(self, folder: Path, history: list[dict]): ...    # the run's folder, the rows of the epochs before
        def add(self, row: dict, epoch: int): ...                     # an epoch's numbers; epochs count from 1
        def close(self): ...

and, where it wants to hear of more:

        def start(self, config: dict, step: int): ...                 # by dotted keys; step: 0, or where a run goes on
        def before(self, layers: dict): ...                           # the network as an epoch begins with it
        def step(self, row: dict, step: int): ...                     # each train.log_every steps: their mean loss, lr
        def network(self, layers: dict, epoch: int): ...              # before `add`
        def finish(self, results: dict, epoch: int): ...              # of the best epoch, on the test images

`layers` has of each hidden layer by name its `mask`, bool, and, where it learns some, `scores`, on the CPU.

One is made when a run starts or goes on, by the first process alone. A row has `epoch`, `lr`, `train_loss`,
`test_top1`, ...; names with a '/' are of one layer each.
"""

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


def flips(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, float]:
    """The fraction of each layer's mask that is another than before, and of all as ""; nothing without a before.

    before, now: `layers` as above.
    """
    if before is None or before.keys() != now.keys() or not now:
        return {}
    counts = {name: int((now[name]["mask"] != before[name]["mask"]).sum()) for name in now}
    sizes = {name: now[name]["mask"].numel() for name in now}
    return {name: counts[name] / sizes[name] for name in now} | {"": sum(counts.values()) / sum(sizes.values())}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else str(value)


@register("logger", "tensorboard")
class TensorBoard:
    """TensorBoard's events: by epoch in events/, by step in events/steps/. A resumed run leaves none twice."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]):
        from torch.utils.tensorboard import SummaryWriter

        self._make, self._folder, self._layers = SummaryWriter, folder / "events", None
        self._writer, self._steps = SummaryWriter(str(self._folder), purge_step=len(history) + 1), None

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """The hyper-parameters, once."""
        self._steps = self._make(str(self._folder / "steps"), purge_step=step + 1)
        if step == 0:
            from torch.utils.tensorboard.summary import hparams

            for summary in hparams({key: _plain(value) for key, value in config.items()}, {"best/test_top1": 0.0}):
                self._writer.file_writer.add_summary(summary)

    def before(self, layers: Mapping[str, Any]) -> None:
        """What the first flips are counted from."""
        self._layers = layers

    def step(self, row: Mapping[str, Any], step: int) -> None:
        """`loss` as `step/loss`."""
        for name, value in row.items():
            self._steps.add_scalar(f"step/{name}", value, step)

    def network(self, layers: Mapping[str, Any], epoch: int) -> None:
        """Histograms of scores, and of the fraction that each output channel keeps; flips since the epoch before."""
        for name, layer in layers.items():
            kept = layer["mask"].flatten(1).float().mean(1) if layer["mask"].ndim > 1 else layer["mask"].float()
            self._writer.add_histogram(f"mask/{name}", kept, epoch)
            if "scores" in layer:
                self._writer.add_histogram(f"scores/{name}", layer["scores"], epoch)
        for name, share in flips(self._layers, layers).items():
            self._writer.add_scalar(f"flips/{name}" if name else "run/flips", share, epoch)
        self._layers = layers

    def add(self, row: Mapping[str, Any], epoch: int) -> None:
        """`train_loss` as `train/loss`, `lr` as `run/lr`."""
        for name, value in row.items():
            split, _, rest = name.partition("_")
            tag = f"{split}/{rest}" if split in SPLITS else name if "/" in name else f"run/{name}"
            if name != "epoch":
                self._writer.add_scalar(tag, value, epoch)

    def finish(self, results: Mapping[str, Any], epoch: int) -> None:
        """`test_top1` as `best/test_top1`."""
        for name, value in results.items():
            self._writer.add_scalar(f"best/{name}", value, epoch)

    def close(self) -> None:
        """Write out what is waiting."""
        self._writer.close()
        if self._steps is not None:
            self._steps.close()
