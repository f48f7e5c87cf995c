"""A run small enough for tests: digits, 200 images, a thin network, two epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiddennet import config
from hiddennet.config import Config
from hiddennet.config.load import merge, overrides_document
from hiddennet.settings import yaml

DOCUMENT: dict[str, Any] = {
    "name": "small",
    "model": {"name": "digits_mlp", "width": 0.1},
    "data": {"name": "digits", "batch_size": 32, "limit": 200},
    "method": {"name": "edge_popup", "density": 0.5},
    "optimizer": {"lr": 0.1},
    "train": {"epochs": 2, "device": "cpu", "log_every": 2},
}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests here."""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Config]:
    """Return the config of a small run with overrides, its runs below tmp_path."""

    def build(*overrides: str) -> Config:
        document = merge({**DOCUMENT, "runs": str(tmp_path / "runs")}, overrides_document(overrides))
        return config.parse(document)

    return build


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a document (default: the small run's) as a config file below tmp_path."""

    def to_file(document: Any = None, name: str = "small.yml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if document is None:
            document = {**DOCUMENT, "runs": str(tmp_path / "runs")}
        path.write_text(document if isinstance(document, str) else yaml.write(document))
        return path

    return to_file
