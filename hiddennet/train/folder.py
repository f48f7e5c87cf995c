"""A run's folder: where its files lie, who may write them, what is known of it."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiddennet._version import __version__
from hiddennet.config import Config, ConfigError, digest, dump, families, parse
from hiddennet.files import locked, remove_temporaries, write_text

_LOOK = 0.1  # seconds


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says why and what to do."""


class HeldError(RunError):
    """Another process is at work in the run's folder."""


def read_json(path: Path) -> dict[str, Any]:
    """The map in a JSON file of ours. Raises RunError for anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RunError(
            f"run: expected a map in JSON in {path}, got a broken file; delete it, and the same command writes it anew"
        )
    return found


def _as_now(document: dict[str, Any]) -> dict[str, Any]:
    """The config of a run as it would be written now: with train.amp in place of what it and amp_on_cpu said before."""
    train = document.get("train")
    if not isinstance(train, dict) or "amp_on_cpu" not in train:
        return document
    train = {key: value for key, value in train.items() if key != "amp_on_cpu"}
    return {**document, "train": {**train, "amp": train.get("amp") or "auto"}}


class RunFolder:
    """runs/<name>/<digest of the config>/ and its files."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yml"
        self.metrics = path / "metrics.csv"
        self.record = path / "run.json"
        self.artifact = path / "artifact.safetensors"
        self.compact = path / "compact.safetensors"
        self.events = path / "events"
        self.checkpoints = path / "checkpoints"
        self.first = self.checkpoints / "first.pt"
        self.best = self.checkpoints / "best.pt"
        self.last = self.checkpoints / "last.pt"

    def stage(self, stage: int) -> Path:
        """The checkpoint of the network at the end of a stage."""
        return self.checkpoints / f"stage_{stage}.pt"

    @classmethod
    def of(cls, config: Config) -> RunFolder:
        """The folder where a run of this config has its place."""
        return cls(Path(config.runs).expanduser() / config.name / digest(config))

    def read_config(self) -> Config:
        """The resolved config that the run was started with. Raises ConfigError or RunError."""
        if not self.config.is_file():
            raise RunError(f"run: expected the folder of a run with a config.yml, got {self.path}")
        document = families.document(self.config)
        if not document:
            raise RunError(f"run: expected the config of a run in {self.config}, got an empty file; delete it")
        return parse(_as_now(document), str(self.config))

    def read_record(self) -> dict[str, Any]:
        """What run.json says; empty when there is none."""
        if not self.record.is_file():
            return {}
        return read_json(self.record)

    def write_record(self, record: dict[str, Any]) -> None:
        write_text(self.record, json.dumps(record, indent=2) + "\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process. Raises HeldError when another one has it."""
        if self.is_held():
            time.sleep(_LOOK)  # whoever only looked, as is_held() does, is gone by then
        with locked(self.path / ".lock", wait=False) as free:
            if not free:
                raise HeldError(
                    f"run: expected {self.path} to be free, got another process at work in it; "
                    "wait for it, or change the config or its name"
                )
            for folder in (self.path, self.checkpoints):
                remove_temporaries(folder)
            yield

    def is_held(self) -> bool:
        """Whether a process is at work in the folder now. Creates nothing."""
        if not (self.path / ".lock").is_file():
            return False
        with locked(self.path / ".lock", wait=False) as free:
            return not free

    def clear(self) -> None:
        """Delete what earlier runs of the config wrote here."""
        files = [self.metrics, self.record, self.artifact, self.compact, *self.checkpoints.glob("*.pt")]
        for file in [*files, *self.events.glob("events.out.tfevents.*")]:
            file.unlink(missing_ok=True)

    def start(self, config: Config) -> None:
        """Write the resolved config, or see that the one here is the same run's."""
        if self.config.is_file():
            with contextlib.suppress(ConfigError, RunError):
                if digest(self.read_config()) == digest(config):
                    return
        write_text(self.config, dump(config))


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    return {
        "hiddennet": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The commit of the checkout the package lies in, with a `+` if files changed; None without."""
    here = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        answer = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    try:
        if not (here / ".git").exists():
            return None
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}{'+' if changed else ''}" if head else None
