"""gradual_magnitude: the smallest weights are pruned while the network trains, step by step, down to a density.

Zhu and Gupta 2017, "To prune, or not to prune", arXiv 1710.01878, eq. 1.
"""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import nn

from hiddennet import ops
from hiddennet.methods.base import DrawnSection, Init, Method, Setting
from hiddennet.methods.layers import DENSITIES, Densities, Patterns, hide_unpruned, layer_densities
from hiddennet.nn import hidden_layers
from hiddennet.nn.rules import kept_count
from hiddennet.registry import register
from hiddennet.settings.section import Density, Number, Positive


class GradualMagnitudeSection(DrawnSection):
    """method: a dense network whose smallest weights are pruned while it trains."""

    density: Density = Field(0.1, description="fraction of the weights that is kept in the end")
    densities: Densities = DENSITIES
    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    period: Positive = Field(100, description="optimiser steps between two prunings")
    begin: Number = Field(0.0, ge=0.0, lt=1.0, description="fraction of all steps before the first pruning")
    end: Number = Field(0.75, gt=0.0, le=1.0, description="fraction of all steps at which the density is reached")
    exclude: Patterns

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if self.begin >= self.end:
            yield f"method.begin: expected less than method.end ({self.end}), got {self.begin}"


@register("method", "gradual_magnitude")
class GradualMagnitude(Method):
    """Sparsity s_t = s (1 - (1 - progress)^3) of each layer, s its final one; what is pruned stays so."""

    Section = GradualMagnitudeSection
    extends = False

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        hide_unpruned(model, section, self.setting, self.seed)
        shapes = {name: tuple(layer.weight_shape) for name, layer in hidden_layers(model).items()}
        self.targets = layer_densities(section.densities, shapes, section.density)
        return model

    @property
    def _steps(self) -> tuple[int, int]:
        """The steps taken before the first and at the last pruning."""
        total = self.epochs * self.steps_per_epoch
        return int(self.section.begin * total), max(1, int(self.section.end * total))

    def pruned_share(self, step: int) -> float:
        """How much of the final sparsity is reached after `step` steps: 0 to 1."""
        begin, end = self._steps
        progress = min(1.0, max(0.0, (step - begin) / max(1, end - begin)))
        return 1.0 - (1.0 - progress) ** 3

    @torch.no_grad()
    def after_update(self, model: nn.Module, step: int) -> None:
        begin, end = self._steps
        due = step == end or (begin < step < end and (step - begin) % self.section.period == 0)
        if not due:
            return
        share = self.pruned_share(step)
        for name, layer in hidden_layers(model).items():
            kept = kept_count(layer.weight_shape.numel(), 1.0 - share * (1.0 - self.targets[name]))
            largest = torch.where(layer.mask(), layer.stored.abs(), -1.0)
            layer.mask_bits.copy_(ops.pack_mask(ops.topk_mask(largest, kept)))

    def is_result(self, epoch: int) -> bool:
        return (epoch + 1) * self.steps_per_epoch >= self._steps[1]

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, Any]:
        return {f"density/{name}": layer.density for name, layer in hidden_layers(model).items()}
