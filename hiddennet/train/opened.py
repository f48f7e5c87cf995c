"""Runs that were made before, opened again: RUN is a run's best epoch, RUN@STAGE the network at the end of a stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hiddennet import methods, models
from hiddennet.config import Config
from hiddennet.methods import Method
from hiddennet.registry import nearest
from hiddennet.train import checkpoint, machine
from hiddennet.train.folder import RunError, RunFolder


@dataclass(frozen=True)
class OpenedRun:
    """A run's network, in evaluation mode on the CPU, with the method that made it.

    stage: the name of the stage that it is the end of; empty: the run's best epoch, or its last so far.
    """

    folder: RunFolder
    config: Config
    method: Method
    model: nn.Module
    stage: str
    record: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return bool(self.record.get("finished"))


def create(config: Config) -> Method:
    """The config's method, which may open runs."""
    return methods.create(config.setting(open_run))


def restore(config: Config, state: dict[str, Any]) -> tuple[nn.Module, Method]:
    """The model of a checkpoint of this config's run, on the CPU, in evaluation mode; and the method that made it."""
    method = create(config)
    machine.seed_all(config.seed)
    model = method.build(models.build(**state["architecture"]))
    method.restore(state["method"])
    method.remake(model, state["progress"]["stage"])
    model.load_state_dict(state["model"])
    return model.eval(), method


def open_run(where: str | Path, key: str = "run") -> OpenedRun | None:
    """Open RUN, the folder of a run, or RUN@STAGE; None where `where` names no folder.

    STAGE is the name of one of the run's stages, such as search, or stage_N, counted from 0. key: what mistakes name.

    Raises ValueError for a stage that the run has not, RunError for one that it has not come to, ConfigError and
    CheckpointError for files that cannot be read.
    """
    where = Path(where).expanduser()
    path, _, stage = str(where).rpartition("@")
    if Path(where).exists() or not path:
        path, stage = str(where), ""
    if not Path(path).is_dir():
        return None
    folder = RunFolder(Path(path))
    config = folder.read_config()
    file = folder.best if folder.best.is_file() else folder.last
    if stage:
        names = [one.name for one in create(config).stages]
        number = _number(stage, names, where, key)
        stage = names[number]
        file = folder.best if number == len(names) - 1 else folder.stage(number)
        if not file.is_file():
            raise RunError(f"{key}: expected a run that has come to the end of its stage {stage}, got {path}")
    state = checkpoint.load(file)
    with checkpoint.taking(state, file):
        model, method = restore(config, state)
    if file == folder.last and not state["progress"]["history"]:
        raise RunError(f"{key}: expected a run that has come to the end of an epoch, got {path}; go on with it first")
    return OpenedRun(folder, config, method, model, stage, folder.read_record())


def _number(stage: str, names: list[str], where: str | Path, key: str) -> int:
    """Which of the run's stages it is."""
    if stage in names:
        return names.index(stage)
    counted = [f"stage_{number}" for number in range(len(names))]
    if stage in counted:
        return counted.index(stage)
    raise ValueError(
        f"{key}: expected a stage of the run after '@' ({', '.join(names)}), got {stage!r} in '{where}'"
        f"{nearest(stage, names)}"
    )
