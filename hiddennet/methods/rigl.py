"""set and rigl: sparse from the start to the end, while the mask moves: small weights are dropped, others are grown.

SET grows at random (Mocanu et al. 2018, arXiv 1707.04780), RigL where the dense gradient is largest (Evci et al. 2020,
"Rigging the Lottery", arXiv 1911.11134, algorithm 1).
"""

import dataclasses
import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.methods.base import Setting
from hiddennet.methods.layers import DENSITIES, Densities
from hiddennet.methods.random_mask import MaskSection, RandomMask
from hiddennet.nn import HiddenMixin, hidden_layers
from hiddennet.registry import register
from hiddennet.settings.section import Number, Positive


class SetSection(MaskSection):
    """method: a sparse network whose smallest weights are dropped now and then, and as many grown at random."""

    densities: Densities = DENSITIES
    period: Positive = Field(100, description="optimiser steps between two changes of the mask")
    drop: Number = Field(
        0.3, gt=0.0, lt=1.0, description="fraction of a layer's kept weights that is dropped at first; a cosine to 0"
    )
    until: Number = Field(0.75, gt=0.0, le=1.0, description="fraction of all steps after which the mask stays")


@register("method", "set")
class Set(RandomMask):
    """Drop the smallest |w| of each layer, grow as many elsewhere, from 0. Such a step updates nothing else."""

    Section = SetSection
    extends = False

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self._optimizer: torch.optim.Optimizer | None = None
        self._moved = 0

    def optimizer(self, model: nn.Module, section: Any) -> torch.optim.Optimizer | None:
        self._optimizer = super().optimizer(model, section)
        return self._optimizer

    def fraction(self, step: int) -> float:
        """The fraction of kept weights that a change after `step` steps drops; 0 where none is due.

        drop / 2 (1 + cos(pi step / end)), with `end` the steps that the mask moves for.
        """
        end = self.section.until * self.epochs * self.steps_per_epoch
        if step == 0 or step % self.section.period or step >= end:
            return 0.0
        return self.section.drop / 2 * (1 + math.cos(math.pi * step / end))

    def is_usual(self, step: int) -> bool:
        return self.fraction(step) == 0.0  # in the others weights move, and the optimiser takes no step

    def not_captured(self, model: nn.Module) -> str | None:
        return None

    def growth(self, layer: HiddenMixin, step: int) -> Tensor:
        """What weights that are not kept are ranked by to be grown: float32, not negative."""
        number = step // self.section.period
        return ops.generate_weight(
            tuple(layer.weight_shape),
            "uniform",
            seed=self.seed,
            layer=layer.source.layer,
            redraw=number,
            device=layer.stored.device,
        ).add_(1.0)

    @torch.no_grad()
    def before_update(self, model: nn.Module, step: int) -> None:
        fraction = self.fraction(step)
        if fraction == 0.0:
            return
        for layer in hidden_layers(model).values():
            self._move(layer, fraction, step)
        for parameter in model.parameters():
            parameter.grad = None  # the optimiser takes no step

    def _move(self, layer: HiddenMixin, fraction: float, step: int) -> None:
        kept = layer.mask()
        count = self.kept_counts[layer.source.layer]
        moved = min(int(fraction * count), kept.numel() - count)
        largest = torch.where(kept, layer.stored.abs(), -1.0)
        stays = ops.topk_mask(largest, count - moved)
        candidates = torch.where(stays, -1.0, self.growth(layer, step))
        grown = ops.topk_mask(candidates, moved)
        layer.mask_bits.copy_(ops.pack_mask(stays | grown))
        new = grown & ~kept
        layer.stored.masked_fill_(new, 0.0)
        state = {} if self._optimizer is None else self._optimizer.state.get(layer.stored, {})
        for value in state.values():
            if torch.is_tensor(value) and value.shape == layer.stored.shape:
                value.masked_fill_(new, 0.0)
        self._moved += moved

    def build(self, model: nn.Module) -> nn.Module:
        model = super().build(model)
        self.kept_counts = {layer.source.layer: int(layer.kept()) for layer in hidden_layers(model).values()}
        return model

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        moved, self._moved = self._moved, 0
        return {"grown": float(moved)}

    def state(self) -> dict[str, Any]:
        return {"moved": self._moved}

    def restore(self, state: dict[str, Any]) -> None:
        self._moved = state["moved"]


class RigLSection(SetSection):
    """method: a sparse network whose smallest weights are dropped now and then, others grown by their gradient."""


@register("method", "rigl")
class RigL(Set):
    """Grow where |dL/dw| of the dense network is largest."""

    Section = RigLSection

    def before_forward(self, model: nn.Module, step: int) -> None:
        if self.fraction(step):
            self._gradients(model, "through")

    def growth(self, layer: HiddenMixin, step: int) -> Tensor:
        return layer.stored.grad.abs()

    def before_update(self, model: nn.Module, step: int) -> None:
        super().before_update(model, step)
        if self.fraction(step):
            self._gradients(model, "masked")

    @staticmethod
    def _gradients(model: nn.Module, which: str) -> None:
        for layer in hidden_layers(model).values():
            layer.source = dataclasses.replace(layer.source, gradient=which)
