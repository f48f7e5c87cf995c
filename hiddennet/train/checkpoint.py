"""Checkpoints: what a run needs to go on to the bit; written whole, read without running code, and checked before
anything of it is taken."""

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from hiddennet.files import write_atomic
from hiddennet.importers.checkpoint import check_members
from hiddennet.train.stages import StagePlan

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or of another run."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write plain values and tensors to `path`; an old file stays until the new one is complete."""
    document = {"format": FORMAT, **state}
    write_atomic(path, lambda file: torch.save(document, file))


def load(path: Path) -> dict[str, Any]:
    """Return what `save` wrote, tensors on the CPU. Nothing in the file is executed.

    Raises CheckpointError, saying what to do, when the file is damaged or of a newer format.
    """
    way_out = "delete it, or start again with --fresh"
    try:
        check_members(path)
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint: expected a file at {path}, got none") from None
    except Exception as error:  # zipfile and torch answer damage with many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"checkpoint: expected a complete checkpoint at {path}, got a damaged one ({reason}); {way_out}"
        ) from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"checkpoint: expected format {FORMAT} in {path}, got {found}; {way_out}")
    return document


def random_state() -> dict[str, Any]:
    """The states of all random generators a run can touch, as plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "python": json.dumps(random.getstate()),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned; GPUs that are not there any more are passed over."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    for index, generator in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, index)


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
