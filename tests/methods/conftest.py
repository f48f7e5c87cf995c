"""A small network and one batch for the methods' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hiddennet import config
from hiddennet.config import Config
from hiddennet.train.build import build_data, build_model
from hiddennet.train.engine import Engine
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests here."""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Config]:
    """Return a config of a method; `model` and other sections as keyword arguments."""

    def build(name: str, *, model: dict[str, Any] | None = None, train=None, lr=0.1, **method):
        return config.parse(
            {
                "name": "small",
                "runs": str(tmp_path / "runs"),
                "model": {"name": "cifar_resnet18", "width": 0.125, **(model or {})},
                "data": {"name": "digits", "batch_size": 32, "limit": 200},
                "method": {"name": name, **method},
                "optimizer": {"lr": lr},
                "train": {"epochs": 2, "device": "cpu", **(train or {})},
            }
        )

    return build


class Trained:
    """A model of a method with an engine; `steps` trains on one fixed batch."""

    def __init__(self, settings: Config):
        self.config = settings
        self.model, self.method = build_model(settings, 10, 1, 8)
        self.engine = Engine(self.model.train(), settings, CPU, Ranks(), self.method)
        generator = torch.Generator().manual_seed(5)
        self.images = torch.randn(32, 1, 8, 8, generator=generator)
        self.labels = torch.arange(32) % 10

    def steps(self, count: int = 20) -> list[float]:
        """The loss before each of `count` steps."""
        losses = []
        for _ in range(count):
            meter = Meter(CPU)
            self.engine.step(self.images, self.labels, meter, len(self.images))
            losses.append(meter.read()[0].loss)
        return losses

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of all parameters."""
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}


@pytest.fixture
def trained(make) -> Callable[..., Trained]:
    """Build a method's model and engine from the arguments of `make`."""
    return lambda *args, **kwargs: Trained(make(*args, **kwargs))


@pytest.fixture
def begun(trained):
    """A method's model after its pruning at the start."""

    def build(name: str = "prune_at_init", **options):
        run = trained(name, model=options.pop("model", {"name": "digits_conv", "width": 0.25}), **options)
        run.method.data, run.method.ranks = build_data(run.config, CPU, Ranks()), Ranks()
        run.notes = run.method.begin(run.model)
        return run

    return build


def plain(model: nn.Module) -> dict[str, nn.Module]:
    """The Conv2d and Linear layers that are not hidden."""
    return {n: m for n, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)}
