"""A model, a data set, an optimiser, a schedule and a logger of one's own: what else a plugin may bring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

import hiddennet as hn
from hiddennet.settings.recipe import Clock, OptimizerSection, ScheduleSection
from hiddennet.settings.section import Number

SIDE = 12


@hn.register("data", "bars")
def bars(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Grey noise with a bright bar: upright, lying, rising or falling. 512 images for training, 128 for testing."""
    random = np.random.RandomState(seed % 2**32)
    rows, columns = np.indices((SIDE, SIDE))

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 4
        images = random.randint(0, 160, (count, 1, SIDE, SIDE)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            at = random.randint(2, SIDE - 2)
            line = (columns - at, rows - at, rows + columns - SIDE - at + 6, rows - columns - at + 6)[label]
            image[0][np.abs(line) < 1] = 255
        return images, labels

    return part(512), part(128)


@hn.register("model", "two_convs")
class TwoConvs(nn.Module):
    """Two convolutions, a global average and a classifier; images (n, in_channels, s, s) to logits (n, num_classes)."""

    in_channels, image_size = 1, SIDE  # what it is made for, where nobody says
    first_layer, last_layer = "features.0", "classifier"

    def __init__(self, *, num_classes: int, in_channels: int, width: float = 1.0):
        super().__init__()
        channels = max(4, int(32 * width))
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(channels, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


@hn.register("optimizer", "rmsprop")
class RmspropSection(OptimizerSection):
    """optimizer: RMSprop, Hinton's lecture 6e."""

    lr: Number = Field(1e-3, gt=0.0, description="learning rate")
    alpha: Number = Field(0.99, ge=0.0, lt=1.0, description="decay of the average of squares, a step")

    def build(self, groups: list[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(groups, lr=self.lr, alpha=self.alpha)


@hn.register("schedule", "square_root")
class SquareRootSection(ScheduleSection):
    """schedule: lr over the square root of the epoch's number, after warm-up."""

    def after_warmup(self, at: Clock) -> float:
        return 1 / math.sqrt(at.epoch - self.warmup_epochs + 1)


@hn.register("logger", "lines")
class Lines:
    """lines.txt in the run's folder: a line an epoch."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, Any]]):
        self.path = folder / "lines.txt"
        if not history:
            self.path.write_text("")

    def add(self, row: Mapping[str, Any], epoch: int) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"epoch {epoch}: loss {row['train_loss']:.4f}\n")

    def close(self) -> None:
        """Nothing waits."""
