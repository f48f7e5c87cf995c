"""Recipes of training: the sections of optimisers and schedules, and what a stage of a method trains with.

An optimiser's section makes it of parameter groups; a schedule's section says what an epoch's rates are multiplied by.
A new one is a class here, or in a plugin, under `register("optimizer", NAME)` or `register("schedule", NAME)`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from hiddennet.optim import ScoreAdam, ScoreSGD
from hiddennet.registry import register
from hiddennet.settings.section import Count, Number, Positive, Section, Sections

OPTIMIZERS, SCHEDULES = Sections("optimizer"), Sections("schedule")


class OptimizerSection(Section):
    """Keys of every optimiser."""

    name: str
    lr: Number = Field(0.1, gt=0.0, description="learning rate")
    weight_decay: Number = Field(0.0, ge=0.0, description="decay of the parameters")
    batch_norm_decay: bool = Field(True, description="false: no weight decay of batch-norm parameters and biases")
    clip_norm: Annotated[Number, Field(gt=0.0)] | None = Field(
        None, description="norm that all gradients together are shortened to; above 0, null: none"
    )

    def build(self, groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
        """The optimiser of these parameter groups, at least one, each with its weight_decay.

        fused: torch has a fused step for the parameters' device.
        """
        raise NotImplementedError

    def build_one_pass(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer | None:
        """As `build`, for parameters with scores among them, which it updates in one pass over memory; None: as
        `build` does."""
        return None

    def mistakes(self, place: str) -> list[str]:
        """What only shows between its keys, one sentence each. place: what stands before the keys."""
        return []


@register("optimizer", "sgd")
class SgdSection(OptimizerSection):
    """optimizer: stochastic gradient descent."""

    name: str = "sgd"
    lr: Number = Field(0.1, gt=0.0, description="learning rate; above 0, sampled uses up to 800")
    momentum: Number = Field(0.9, ge=0.0, lt=1.0, description="momentum")
    weight_decay: Number = Field(1e-4, ge=0.0, description="L2 term, of the scores too")
    nesterov: bool = Field(False, description="Nesterov's momentum; needs momentum above 0")

    def build(self, groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=fused)

    def build_one_pass(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer | None:
        return ScoreSGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, clamp=None)

    def mistakes(self, place: str) -> list[str]:
        if not self.nesterov or self.momentum:
            return []
        return [f"{place}optimizer.nesterov: expected a momentum above 0 with it, got 0.0"]


@register("optimizer", "adam")
class AdamSection(OptimizerSection):
    """optimizer: Adam, Kingma and Ba 2015."""

    lr: Number = Field(1e-3, gt=0.0, description="learning rate")
    betas: list[Annotated[Number, Field(ge=0.0, lt=1.0)]] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="decay of the two averages, a step"
    )
    eps: Number = Field(1e-8, gt=0.0, description="added to the denominator")
    weight_decay: Number = Field(0.0, ge=0.0, description="L2 term added to the gradient")
    _optimizer: ClassVar[type[torch.optim.Optimizer]] = torch.optim.Adam

    def build(self, groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
        return self._optimizer(groups, lr=self.lr, betas=tuple(self.betas), eps=self.eps, fused=fused)

    def build_one_pass(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer | None:
        adam = self._optimizer is torch.optim.Adam
        return ScoreAdam(groups, lr=self.lr, betas=tuple(self.betas), eps=self.eps, clamp=None) if adam else None


@register("optimizer", "adamw")
class AdamWSection(AdamSection):
    """optimizer: AdamW, Loshchilov and Hutter 2019."""

    weight_decay: Number = Field(0.01, ge=0.0, description="decoupled decay, times lr each step")
    _optimizer: ClassVar[type[torch.optim.Optimizer]] = torch.optim.AdamW


@dataclass(frozen=True)
class Clock:
    """Where in a stage a learning rate is asked for.

    epoch: from 0, of `epochs`. lr: the rate at the top, of the optimiser's section. history: the rows of the epochs
    before, in order. iteration: the step within the epoch, from 0, of `iterations`.
    """

    epoch: int
    epochs: int
    lr: float
    history: Sequence[Mapping[str, Any]] = ()
    iteration: int = 0
    iterations: int = 1


class ScheduleSection(Section):
    """Keys of every schedule, and the linear warm-up that comes before each.

    A schedule by epochs overrides `after_warmup`; one that changes the rates before each step has `by_iteration` true.
    """

    name: str
    warmup_epochs: Count = Field(0, description="epochs of linear warm-up, lr * (epoch + 1) / n")

    @property
    def by_iteration(self) -> bool:
        """Whether the rates change before each step."""
        return False

    def scale(self, at: Clock) -> float:
        """What every learning rate is multiplied by."""
        if at.epoch < self.warmup_epochs:
            return (at.epoch + 1) / self.warmup_epochs
        return self.after_warmup(at)

    def after_warmup(self, at: Clock) -> float:
        """`scale` from epoch `warmup_epochs` on."""
        raise NotImplementedError

    def mistakes(self, place: str, epochs: int, named: str, validation: float) -> list[str]:
        """What is wrong between its keys, its epochs and the held-out fraction; see recipe_mistakes."""
        if 0 < epochs < self.warmup_epochs:
            return [f"{place}schedule.warmup_epochs: expected at most {named} ({epochs}), got {self.warmup_epochs}"]
        return []


@register("schedule", "constant")
class ConstantSection(ScheduleSection):
    """schedule: one learning rate."""

    name: str = "constant"

    def after_warmup(self, at: Clock) -> float:
        return 1.0


@register("schedule", "cosine")
class CosineSection(ScheduleSection):
    """schedule: half a cosine from lr towards 0 over the epochs after warm-up; then, if asked for, a constant tail.

    With w warm-up epochs and f final ones, epoch e of E has (1 + cos(pi (e - w) / (E - w - f))) / 2. By iteration it
    counts steps from 1, as the optimiser of "Discovering Neural Wirings" has them: with I steps an epoch, step n <= w I
    has n / (w I), a later one (1 + cos(pi (n - w I) / (I (E - w - f)))) / 2, which ends with 0.
    """

    by: Literal["epoch", "iteration"] = Field(
        "epoch",
        description="when lr changes: before each epoch, or before each step, also in the warm-up, so that the last "
        "falling step has 0",
    )
    final_epochs: Count = Field(0, description="epochs at the end with the learning rate final_lr")
    final_lr: Number = Field(0.0, ge=0.0, description="learning rate of the final epochs")

    @property
    def by_iteration(self) -> bool:
        return self.by == "iteration"

    def scale(self, at: Clock) -> float:
        if not self.by_iteration:
            return super().scale(at)
        step, warm = at.epoch * at.iterations + at.iteration + 1, self.warmup_epochs * at.iterations
        return step / warm if step <= warm else self._falling(at, step - warm, at.iterations)

    def after_warmup(self, at: Clock) -> float:
        if at.epoch >= at.epochs - self.final_epochs:
            return self.final_lr / at.lr
        return self._falling(at, at.epoch - self.warmup_epochs, 1)

    def _falling(self, at: Clock, step: int, iterations: int) -> float:
        """After so many steps, or epochs, behind the warm-up."""
        falling = (at.epochs - self.warmup_epochs - self.final_epochs) * iterations
        return self.final_lr / at.lr if step > falling else 0.5 * (1 + math.cos(math.pi * step / falling))

    def mistakes(self, place: str, epochs: int, named: str, validation: float) -> list[str]:
        found, warmup, tail = super().mistakes(place, epochs, named, validation), self.warmup_epochs, self.final_epochs
        if tail and not epochs - warmup - tail > 0:
            found.append(
                f"{place}schedule.final_epochs: expected fewer than the epochs after warm-up "
                f"({epochs - warmup}), got {tail}"
            )
        return found


@register("schedule", "multistep")
class MultistepSection(ScheduleSection):
    """schedule: lr times gamma at each milestone, or after every `interval` epochs."""

    milestones: list[Positive] = Field([], description="epochs from which lr is gamma times less")
    interval: Positive | None = Field(None, description="epochs between the steps")
    gamma: Number = Field(0.1, gt=0.0, le=1.0, description="factor on lr at a step")

    def after_warmup(self, at: Clock) -> float:
        passed = bisect_right(self.milestones, at.epoch) if self.interval is None else at.epoch // self.interval
        return self.gamma**passed

    def mistakes(self, place: str, epochs: int, named: str, validation: float) -> list[str]:
        found = super().mistakes(place, epochs, named, validation)
        if bool(self.milestones) == (self.interval is not None):
            found.append(
                f"{place}schedule: expected either milestones or interval, got "
                f"milestones={self.milestones} and interval={self.interval}"
            )
        if self.milestones != sorted(set(self.milestones)):
            found.append(f"{place}schedule.milestones: expected epochs in rising order, got {self.milestones}")
        return found


@register("schedule", "plateau")
class PlateauSection(ScheduleSection):
    """schedule: lr divided by `factor` after each epoch whose validation loss is no new best."""

    factor: Number = Field(4.0, gt=1.0, description="what lr is divided by; above 1")

    def after_warmup(self, at: Clock) -> float:
        """1 / factor^b, where b is the number of epochs after warm-up whose validation loss is not below all before it.

        Raises ValueError without a row for each epoch.
        """
        if len(at.history) < at.epoch:
            raise ValueError(f"plateau: expected the rows of the {at.epoch} epochs before, got {len(at.history)}")
        best, scale = math.inf, 1.0
        for row in at.history[self.warmup_epochs : at.epoch]:
            if row["validation_loss"] < best:
                best = row["validation_loss"]
            else:
                scale /= self.factor
        return scale

    def mistakes(self, place: str, epochs: int, named: str, validation: float) -> list[str]:
        found = super().mistakes(place, epochs, named, validation)
        if validation == 0.0:
            found.insert(
                0, f"{place}schedule.name: expected data.validation above 0 with plateau, which reads its loss, got 0"
            )
        return found


class Recipe(Section):
    """Keys of a stage that trains with an optimiser and a schedule of its own."""

    sections: ClassVar[dict[str, Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
    epochs: Count | None = Field(None, description="passes over the training set; null: as many as train.epochs")
    optimizer: OPTIMIZERS.type = Field(SgdSection(lr=0.01), description="as the section optimizer")
    schedule: SCHEDULES.type = Field(CosineSection(name="cosine"), description="as the section schedule")

    def stage(self, name: str, usual: int) -> TrainStage:
        """The stage that trains so. usual: train.epochs."""
        return TrainStage(name, usual if self.epochs is None else self.epochs, self.optimizer, self.schedule)

    def mistakes(self, place: str, usual: int, validation: float) -> list[str]:
        """What is wrong between its keys, see recipe_mistakes. usual: train.epochs."""
        epochs, named = (usual, "train.epochs") if self.epochs is None else (self.epochs, "its epochs")
        return recipe_mistakes(place, self.optimizer, self.schedule, epochs, named, validation)


def recipe_mistakes(place: str, optimizer: Any, schedule: Any, epochs: int, named: str, validation: float) -> list[str]:
    """What is wrong between an optimiser, its schedule and their epochs, one sentence each.

    place: what stands before the keys, such as "method.fine_tune."; named: the key that says how many epochs.
    """
    return [*schedule.mistakes(place, epochs, named, validation), *optimizer.mistakes(place)]


@dataclass(frozen=True)
class TrainStage:
    """A part of a run: so many epochs with one make-up of the network, one optimiser and one schedule.

    first, length: the schedule's own clock, where it does not run from the stage's first epoch to its last.
    """

    name: str
    epochs: int
    optimizer: Any
    schedule: Any
    first: int | None = None
    length: int | None = None
