"""What a run's checkpoint holds, checked before anything of it is taken. Not the file itself: checkpoint.py."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from hiddennet.train.checkpoint import CheckpointError
from hiddennet.train.stages import StagePlan

Count = Annotated[int, Field(ge=0, le=2**62)]
Row = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Progress(_Part):
    id: Annotated[str, Field(min_length=1)]
    epoch: Count
    batch: Count
    step: Count
    stage: Count
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    history: list[Row]
    best: Row | None
    stages: list[Row]


class _Network(_Part):
    """A checkpoint that evaluation can do with."""

    config: str
    progress: _Progress
    architecture: Annotated[dict[str, Any], Field(min_length=1)]
    model: dict[str, Any]
    method: dict[str, Any]


class _Run(_Network):
    """A checkpoint that training goes on from."""

    optimizer: dict[str, Any] | None
    meter: Any
    carried: Any
    random: dict[str, Any]
    device: str
    world: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1, le=2**16)] = 1  # checkpoints of before do not say


@contextlib.contextmanager
def taking(state: dict[str, Any], path: Path, *, full: bool = False) -> Iterator[None]:
    """Check the parts of the checkpoint from `path`; whatever goes wrong within is a CheckpointError that names it.

    full: training is to go on from it.
    """
    try:
        (_Run if full else _Network).model_validate(state)
        yield
    except CheckpointError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        _refuse(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except Exception as error:  # parts of another network or method are answered with many types
        _refuse(path, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def check_progress(state: dict[str, Any], path: Path, plan: StagePlan, split: str) -> None:
    """Refuse counts that no run of this plan comes to. split: of the accuracy that chooses the best epoch."""
    found = _Progress.model_validate(state["progress"])
    stages, key = len(plan.stages), f"{split}_top1"
    wanted = {
        f"an epoch from 0 to {plan.epochs}": found.epoch <= plan.epochs,
        f"at most {plan.steps} batches": found.batch <= (plan.steps if found.epoch < plan.epochs else 0),
        f"{found.epoch * plan.steps + found.batch} steps": found.step == found.epoch * plan.steps + found.batch,
        f"a stage of {stages}, that of its epoch": found.stage < max(stages, 1)
        and plan.first_epoch(found.stage) <= found.epoch <= plan.first_epoch(found.stage + 1),
        "an entry a stage": len(found.stages) in ((0, found.stage + 1) if found.step == 0 else (found.stage + 1,)),
        "a row an epoch": [row.get("epoch") for row in found.history] == list(range(1, found.epoch + 1)),
        f"numbers in {key} and seconds of each row": all(
            isinstance(row.get(name), float | int) for row in found.history for name in (key, "seconds")
        ),
        "a best epoch out of the history": found.best is None or found.best in found.history,
    }
    for what, right in wanted.items():
        if not right:
            _refuse(path, f"progress that has not {what}")


def check_optimizer(optimizer: Optimizer, path: Path) -> None:
    """Refuse averages that are not of their parameters' shapes."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if (
                isinstance(value, Tensor)
                and value.is_floating_point()
                and value.dim()
                and value.shape != parameter.shape
            ):
                _refuse(path, f"{name} of shape {tuple(value.shape)} for a parameter of {tuple(parameter.shape)}")


def _refuse(path: Path, got: str) -> None:
    raise CheckpointError(
        f"checkpoint: expected one that this run wrote in {path}, got one that cannot be used ({got}); delete it, or "
        "start again with --fresh"
    )
