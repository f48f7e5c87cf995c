"""Setting: what a method sees of its run: keys of the config, the other processes, and other runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class Ranks(Protocol):
    """The processes of a run, as far as methods ask them."""

    first: bool

    def share(self, value: Any, device: torch.device) -> Any:
        """The first one's value, in all."""


class OpenedRun(Protocol):
    """The network of a run, or of the end of one of its stages, in evaluation mode on the CPU."""

    model: nn.Module
    method: Any  # a hiddennet.methods.Method
    stage: str  # its name; empty: the run's result
    finished: bool  # the whole run


OpenRun = Callable[[str, str], "OpenedRun | None"]


def _closed(where: str, key: str) -> OpenedRun | None:
    path = Path(where).expanduser()
    if path.is_dir() or Path(str(path).rpartition("@")[0] or path).is_dir():
        raise ValueError(f"{key}: expected no run, got {where}; runs are opened for methods that a run has made")
    return None


@dataclass(frozen=True)
class Setting:
    """What a method sees of its run's config.

    method, optimizer, schedule: sections. model, data: names. validation: the fraction held out. first_layer,
    last_layer: "dense" where that layer is not hidden. open_run(where, key): the network of RUN or RUN@STAGE, or None
    where `where` names no run; key: the config's, for what is said of mistakes.
    """

    method: Any
    seed: int
    epochs: int
    optimizer: Any
    schedule: Any
    model: str
    data: str
    validation: float
    first_layer: str | None
    last_layer: str | None
    open_run: OpenRun = _closed
