"""The stages of a run on one line of epochs, and what is kept of the network at the end of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from hiddennet.analysis import layer_report, total
from hiddennet.data import Data
from hiddennet.nn import hidden_layers
from hiddennet.settings.recipe import Clock, TrainStage


class StagePlan:
    """A method's stages, one after the other; epochs of so many optimiser steps."""

    def __init__(self, stages: Sequence[TrainStage], steps: int = 1):
        self.stages, self.steps = list(stages), steps

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return self.first_epoch(len(self.stages))

    def first_epoch(self, stage: int) -> int:
        """The epoch, from 0, that a stage begins with."""
        return sum(earlier.epochs for earlier in self.stages[:stage])

    def by_iteration(self, stage: int) -> bool:
        """Whether the stage's learning rates change before each step."""
        return self.stages[stage].schedule.by_iteration

    def scale(self, stage: int, epoch: int, history: Sequence[Mapping[str, Any]], step: int = 0) -> float:
        """What learning rates are multiplied by in an epoch of the run, at its `step`, from 0, where that matters.

        history: the rows of all epochs before it.
        """
        here = self.stages[stage]
        first = self.first_epoch(stage) if here.first is None else here.first
        length = here.epochs if here.length is None else here.length
        lr = here.optimizer.lr
        return here.schedule.scale(Clock(epoch - first, length, lr, history[first:], step, self.steps))

    def entry(self, stage: int) -> dict[str, Any]:
        """The beginning of a stage's entry in the run's record; epochs count from 1 there."""
        return {
            "name": self.stages[stage].name,
            "first_epoch": self.first_epoch(stage) + 1,
            "last_epoch": self.first_epoch(stage + 1),
        }


def before_training(record: Mapping[str, Any]) -> float | None:
    """The test accuracy, in [0, 1], of a run's sub-network before its weights were trained, from the run's record.

    After a search: what the search found. Of masks that are fixed from the start or pruned in rounds: the network that
    the last stage began with. None where no weights of a sub-network are trained, or nothing is known.
    """
    stages = record.get("stages") or []
    if len(stages) > 1 and stages[-1]["name"] == "fine_tune":
        return stages[-2].get("test_top1")
    return stages[-1].get("start_test_top1") if stages and stages[-1].get("weights_learn") else None


def alive_report(model: nn.Module, data: Data) -> dict[str, Any]:
    """Layer by layer what is kept, by flags and by flags and rounding, and what of it is alive; and in total.

    Nothing for a network that hides nothing.
    """
    if not hidden_layers(model):
        return {}
    reports = layer_report(model, (data.in_channels, data.image_size, data.image_size))
    whole = total(reports, hidden_only=True)
    return {
        "flag_density": whole.flags_density,
        "alive_density": whole.alive / max(1, whole.size),
        "alive_multiply_adds": whole.alive_multiply_adds / max(1, whole.multiply_adds),
        "layers": [{**asdict(report), "shape": list(report.shape)} for report in reports],
    }
