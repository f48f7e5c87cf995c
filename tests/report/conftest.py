"""Runs to report on: real ones of a fraction of a second, and folders that look like runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiddennet import config
from hiddennet.config import Config
from hiddennet.config.load import merge
from hiddennet.files import csv_text, write_text
from hiddennet.train import experiment
from hiddennet.train.folder import RunFolder

DOCUMENT: dict[str, Any] = {
    "name": "small",
    "model": {"name": "digits_mlp", "width": 0.1},
    "data": {"name": "digits", "batch_size": 32, "limit": 200},
    "method": {"name": "edge_popup", "density": 0.5},
    "optimizer": {"lr": 0.1},
    "train": {"epochs": 1, "device": "cpu"},
}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests here."""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Config]:
    """A small run's config, sections as keyword arguments, its runs below tmp_path."""

    def build(**sections: Any) -> Config:
        return config.parse(merge({**DOCUMENT, "runs": str(tmp_path / "runs")}, sections))

    return build


@pytest.fixture
def real(make) -> Callable[..., RunFolder]:
    """Run a small config to its end; return its folder."""

    def run(**sections: Any) -> RunFolder:
        settings = make(**sections)
        experiment.run(settings, bar=False)
        return RunFolder.of(settings)

    return run


@pytest.fixture
def fake(make) -> Callable[..., RunFolder]:
    """Write the folder of a finished run with these results, without checkpoints."""

    def write(test: float, *, density: float = 0.5, stages: list | None = None, **sections: Any) -> RunFolder:
        settings = make(**sections)
        folder = RunFolder.of(settings)
        folder.start(settings)
        record = {
            "id": "0123",
            "finished": "2026-01-01T00:00:00+00:00",
            "test_top1": test,
            "validation_top1": test / 2,
            "density": density,
            "best_epoch": 2,
            "epochs": 2,
            "seconds": 61.0,
            "device": "cpu",
            "command": ["/somewhere/hiddennet/run.py", "small", f"seed={settings.seed}"],
            "commit": "c0ffee",
            "versions": {"torch": "2"},
            **({"stages": stages} if stages else {}),
        }
        write_text(folder.record, json.dumps(record))
        rows = [{"epoch": epoch, "validation_top1": test * epoch / 4, "train_loss": 1.0} for epoch in (1, 2)]
        write_text(folder.metrics, csv_text(rows))
        return folder

    return write


def stage(name: str, first: int, last: int, test: float, density: float = 0.5) -> dict[str, Any]:
    """A stage's entry of a record."""
    return {
        "name": name,
        "first_epoch": first,
        "last_epoch": last,
        "density": density,
        "start_test_top1": test / 2,
        "test_top1": test,
        "validation_top1": test,
    }
