"""Sweeps of runs that take a fraction of a second; jobs as forks of the test where speed matters."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiddennet import run
from hiddennet.settings import yaml
from hiddennet.sweep import jobs

FORK = multiprocessing.get_context("fork")

CONFIG: dict[str, Any] = {
    "model": {"name": "digits_mlp", "width": 0.1},
    "data": {"name": "digits", "batch_size": 32, "limit": 100},
    "method": {"name": "edge_popup", "density": 0.5},
    "optimizer": {"lr": 0.1},
    "train": {"epochs": 1, "device": "cpu"},
}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests here."""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep file beside `small.yml`, its runs below tmp_path."""

    def to_file(document: dict[str, Any], name: str = "sweep.yml") -> Path:
        (tmp_path / "small.yml").write_text(yaml.write({**CONFIG, "runs": str(tmp_path / "runs")}))
        path = tmp_path / name
        path.write_text(yaml.write(document))
        return path

    return to_file


class Forked:
    """A process with what is used of subprocess.Popen."""

    def __init__(self, function: Callable[[], int], log: Path):
        self._process = FORK.Process(target=self._main, args=(function, log))
        self._process.start()
        self.pid = self._process.pid

    def _main(self, function: Callable[[], int], log: Path) -> None:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as words:
            sys.stdout = sys.stderr = words
            try:
                status = function()
            except BaseException:
                traceback.print_exc()
                status = 1
        os._exit(status)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        self._process.kill()


def fork_job(folder, point, environment, here=None) -> Forked:
    """As jobs.begin, without the seconds that a new interpreter takes."""
    return Forked(lambda: run.main(list(point.arguments)), folder.log(point))


@pytest.fixture
def forked(monkeypatch) -> None:
    """Jobs are forks of the test's process, which has imported what they need."""
    import sklearn.datasets  # noqa: F401
    import torch._dynamo
    import torch.utils.tensorboard  # noqa: F401

    import hiddennet.train.experiment  # noqa: F401

    monkeypatch.setattr(jobs, "begin", fork_job)
