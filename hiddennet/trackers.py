"""Loggers of tracking services: `wandb` and `mlflow`, where their packages are installed.

Where they send is their own affair: WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ... A run
that goes on goes on there: the id that it has there is kept in its folder.
"""

import importlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiddennet.files import write_text
from hiddennet.loggers import flips
from hiddennet.registry import register


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"train.loggers: expected {name} to be installed, got none ({error}); pip install {name}, or leave it out"
        ) from None


class _Tracker:
    """What both share: the id in the run's folder, flips."""

    package: str

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]):
        self.api, self.folder, self._layers = _package(self.package), folder, None
        self.name, self._file = f"{folder.parent.name}/{folder.name}", folder / f"{self.package}.txt"

    @property
    def known(self) -> str | None:
        """The id that the run has there, if it was begun."""
        return self._file.read_text(encoding="utf-8").strip() if self._file.is_file() else None

    def keep(self, there: str) -> None:
        write_text(self._file, f"{there}\n")

    def before(self, layers: Mapping[str, Any]) -> None:
        self._layers = layers

    def network(self, layers: Mapping[str, Any], epoch: int) -> None:
        found = flips(self._layers, layers)
        if found:
            self.send({"flips": found[""]} | {f"flips/{name}": share for name, share in found.items() if name}, epoch)
        self._layers = layers

    def add(self, row: Mapping[str, Any], epoch: int) -> None:
        self.send({name: value for name, value in row.items() if name != "epoch"}, epoch)

    def send(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Numbers of an epoch."""
        raise NotImplementedError


@register("logger", "wandb")
class WandB(_Tracker):
    """Weights & Biases: a run of the project hiddennet, or of WANDB_PROJECT."""

    package = "wandb"

    def start(self, config: Mapping[str, Any], step: int) -> None:
        there = self.known or secrets.token_hex(8)
        project = os.environ.get("WANDB_PROJECT", "hiddennet")
        self.run = self.api.init(
            project=project, name=self.name, id=there, resume="allow", dir=str(self.folder), config=dict(config)
        )
        self.keep(there)
        for axis in ("epoch", "step"):
            self.run.define_metric(axis)
        self.run.define_metric("*", step_metric="epoch")
        self.run.define_metric("step/*", step_metric="step")

    def step(self, row: Mapping[str, Any], step: int) -> None:
        self.run.log({**{f"step/{name}": value for name, value in row.items()}, "step": step})

    def send(self, numbers: Mapping[str, float], epoch: int) -> None:
        self.run.log({**numbers, "epoch": epoch})

    def finish(self, results: Mapping[str, Any], epoch: int) -> None:
        self.run.summary.update({f"best/{name}": value for name, value in results.items()} | {"best/epoch": epoch})

    def close(self) -> None:
        if hasattr(self, "run"):
            self.run.finish()


@register("logger", "mlflow")
class MLflow(_Tracker):
    """MLflow: a run of the experiment hiddennet, or of MLFLOW_EXPERIMENT_NAME."""

    package = "mlflow"

    def start(self, config: Mapping[str, Any], step: int) -> None:
        begun = self.known
        if begun is None:
            self.api.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "hiddennet"))
            self.run = self.api.start_run(run_name=self.name)
            self.keep(self.run.info.run_id)
            self.api.log_params(dict(config))
        else:
            self.run = self.api.start_run(run_id=begun)

    def step(self, row: Mapping[str, Any], step: int) -> None:
        self.api.log_metrics({f"step/{name}": value for name, value in row.items()}, step=step)

    def send(self, numbers: Mapping[str, float], epoch: int) -> None:
        self.api.log_metrics(dict(numbers), step=epoch)

    def finish(self, results: Mapping[str, Any], epoch: int) -> None:
        self.api.log_metrics({f"best/{name}": value for name, value in results.items()}, step=epoch)

    def close(self) -> None:
        if hasattr(self, "run"):
            self.api.end_run()
