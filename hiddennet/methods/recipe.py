"""Recipes of training: the sections of optimisers and schedules, and what a stage of a method trains with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hiddennet.methods.section import Count, Number, Positive, Section, union


class OptimizerSection(Section):
    """Keys of every optimiser."""

    batch_norm_decay: bool = Field(True, description="false: no weight decay of batch-norm parameters and biases")
    clip_norm: Annotated[Number, Field(gt=0.0)] | None = Field(
        None, description="norm that all gradients together are shortened to; above 0, null: none"
    )


class SgdSection(OptimizerSection):
    """optimizer: stochastic gradient descent."""

    title: ClassVar[str] = "optimizer 'sgd'"
    name: Literal["sgd"] = "sgd"
    lr: Number = Field(0.1, gt=0.0, description="learning rate; above 0, sampled uses up to 800")
    momentum: Number = Field(0.9, ge=0.0, lt=1.0, description="momentum")
    weight_decay: Number = Field(1e-4, ge=0.0, description="L2 term, of the scores too")
    nesterov: bool = Field(False, description="Nesterov's momentum; needs momentum above 0")


class AdamSection(OptimizerSection):
    """optimizer: Adam, Kingma and Ba 2015."""

    title: ClassVar[str] = "optimizer 'adam'"
    name: Literal["adam"]
    lr: Number = Field(1e-3, gt=0.0, description="learning rate")
    betas: list[Annotated[Number, Field(ge=0.0, lt=1.0)]] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="decay of the two averages, a step"
    )
    eps: Number = Field(1e-8, gt=0.0, description="added to the denominator")
    weight_decay: Number = Field(0.0, ge=0.0, description="L2 term added to the gradient")


class AdamWSection(AdamSection):
    """optimizer: AdamW, Loshchilov and Hutter 2019."""

    title: ClassVar[str] = "optimizer 'adamw'"
    name: Literal["adamw"]
    weight_decay: Number = Field(0.01, ge=0.0, description="decoupled decay, times lr each step")


class ConstantSection(Section):
    """schedule: one learning rate."""

    title: ClassVar[str] = "schedule 'constant'"
    name: Literal["constant"] = "constant"
    warmup_epochs: Count = Field(0, description="epochs of linear warm-up, lr * (epoch + 1) / n")


class CosineSection(ConstantSection):
    """schedule: half a cosine from lr towards 0 over the epochs after warm-up; then, if asked for, a constant tail."""

    title: ClassVar[str] = "schedule 'cosine'"
    name: Literal["cosine"]
    by: Literal["epoch", "iteration"] = Field(
        "epoch",
        description="when lr changes: before each epoch, or before each step, also in the warm-up, so that the last "
        "falling step has 0",
    )
    final_epochs: Count = Field(0, description="epochs at the end with the learning rate final_lr")
    final_lr: Number = Field(0.0, ge=0.0, description="learning rate of the final epochs")


class MultistepSection(ConstantSection):
    """schedule: lr times gamma at each milestone, or after every `interval` epochs."""

    title: ClassVar[str] = "schedule 'multistep'"
    name: Literal["multistep"]
    milestones: list[Positive] = Field([], description="epochs from which lr is gamma times less")
    interval: Positive | None = Field(None, description="epochs between the steps")
    gamma: Number = Field(0.1, gt=0.0, le=1.0, description="factor on lr at a step")


class PlateauSection(ConstantSection):
    """schedule: lr divided by `factor` after each epoch whose validation loss is no new best."""

    title: ClassVar[str] = "schedule 'plateau'"
    name: Literal["plateau"]
    factor: Number = Field(4.0, gt=1.0, description="what lr is divided by; above 1")


OPTIMIZERS = {"sgd": SgdSection, "adam": AdamSection, "adamw": AdamWSection}
SCHEDULES = {
    "constant": ConstantSection,
    "cosine": CosineSection,
    "multistep": MultistepSection,
    "plateau": PlateauSection,
}
Optimizer = union(OPTIMIZERS)
Schedule = union(SCHEDULES)


class Recipe(Section):
    """Keys of a stage that trains with an optimiser and a schedule of its own."""

    title: ClassVar[str] = "recipe"
    sections: ClassVar[dict[str, object]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
    epochs: Count | None = Field(None, description="passes over the training set; null: as many as train.epochs")
    optimizer: Optimizer = Field(SgdSection(lr=0.01), description="as the section optimizer")  # type: ignore[valid-type]
    schedule: Schedule = Field(CosineSection(name="cosine"), description="as the section schedule")  # type: ignore[valid-type]


def recipe_mistakes(place: str, optimizer: Any, schedule: Any, epochs: int, named: str, validation: float) -> list[str]:
    """What is wrong between an optimiser, its schedule and their epochs, one sentence each.

    place: what stands before the keys, such as "method.fine_tune."; named: the key that says how many epochs.
    """
    found = []
    if schedule.name == "plateau" and validation == 0.0:
        found.append(
            f"{place}schedule.name: expected data.validation above 0 with plateau, which reads its loss, got 0"
        )
    warmup, tail = schedule.warmup_epochs, getattr(schedule, "final_epochs", 0)
    if 0 < epochs < warmup:
        found.append(f"{place}schedule.warmup_epochs: expected at most {named} ({epochs}), got {warmup}")
    if tail and not epochs - warmup - tail > 0:
        found.append(
            f"{place}schedule.final_epochs: expected fewer than the epochs after warm-up "
            f"({epochs - warmup}), got {tail}"
        )
    if getattr(optimizer, "nesterov", False) and optimizer.momentum == 0.0:
        found.append(f"{place}optimizer.nesterov: expected a momentum above 0 with it, got 0.0")
    if schedule.name == "multistep":
        if bool(schedule.milestones) == (schedule.interval is not None):
            found.append(
                f"{place}schedule: expected either milestones or interval, got "
                f"milestones={schedule.milestones} and interval={schedule.interval}"
            )
        if schedule.milestones != sorted(set(schedule.milestones)):
            found.append(f"{place}schedule.milestones: expected epochs in rising order, got {schedule.milestones}")
    return found


@dataclass(frozen=True)
class Stage:
    """A part of a run: so many epochs with one make-up of the network, one optimiser and one schedule.

    first, length: the schedule's own clock, where it does not run from the stage's first epoch to its last.
    """

    name: str
    epochs: int
    optimizer: object
    schedule: object
    first: int | None = None
    length: int | None = None
