"""A network opened by its path: an artifact, a run, or a checkpoint in a run's folder; and the input it takes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import artifact
from hiddennet.train import checkpoint
from hiddennet.train.folder import RunError, RunFolder
from hiddennet.train.opened import open_run, restore

_ZIP = b"PK\x03\x04"  # how checkpoints begin


def is_artifact(where: str | os.PathLike) -> bool:
    """Whether a path is a file that is no checkpoint."""
    path = Path(where).expanduser()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_ZIP)) != _ZIP


@dataclass(frozen=True)
class Opened:
    """A network in evaluation mode on the CPU, and where it comes from.

    Attributes:
        kind: "artifact", "run" or "checkpoint".
        bytes: of the file; for a run, of nothing.
        header: an artifact's. facts: what is known of the others, JSON-able.
    """

    kind: str
    model: nn.Module
    bytes: int | None = None
    header: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def open_network(where: str | os.PathLike, key: str) -> Opened:
    """Open a path. key: what mistakes name.

    Raises FileNotFoundError for no file, ArtifactError, CheckpointError and ConfigError for what cannot be read,
    RunError and ValueError for a checkpoint without its run, a stage that the run has not.
    """
    opened = open_run(where, key)
    if opened is not None:
        stage = {"stage": opened.stage} if opened.stage else {}
        facts = {"method": opened.config.method.name, "finished": opened.finished, **stage}
        return Opened("run", opened.model, facts=facts)
    path = Path(where).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{key}: expected an artifact, a run or a checkpoint, got nothing at {where}")
    if is_artifact(path):
        return Opened("artifact", artifact.load(path), path.stat().st_size, artifact.read_header(path))
    state = checkpoint.load(path)
    folder = RunFolder(path.resolve().parent.parent)
    if not folder.config.is_file():
        raise RunError(
            f"{key}: expected a checkpoint in the folder of its run, whose config.yml says what it is of, got {where} "
            f"and no {folder.config}"
        )
    config = folder.read_config()
    with checkpoint.taking(state, path):
        model, _ = restore(config, state)
    progress = state["progress"]
    facts = {"method": config.method.name, "epoch": progress["epoch"], "step": progress["step"]}
    return Opened("checkpoint", model, path.stat().st_size, facts=facts)


def example_of(model: nn.Module, key: str) -> Tensor:
    """Two images of zeros of the network's shape. key: what the mistake names.

    Raises ValueError for a network that does not say what it takes.
    """
    made = getattr(model, "architecture", None) or {}
    channels, side = made.get("in_channels"), made.get("image_size")
    if channels is None or side is None:
        raise ValueError(
            f"{key}: expected an example of the input, since {type(model).__name__} does not say what it takes, got "
            "none; give one with example="
        )
    return torch.zeros(2, channels, side, side)
