"""imp: iterative magnitude pruning: train, prune the smallest weights, go back, train again.

Frankle and Carbin 2019 (arXiv 1803.03635), with rewinding to an early step (Frankle et al. 2020, arXiv 1912.05671) or
of the learning rate alone (Renda et al. 2020, arXiv 2003.02389); as Rare Gems compares with it (arXiv 2202.12002).
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet.methods.base import DrawnSection, Init, Method, Setting
from hiddennet.methods.layers import Patterns, hide_unpruned
from hiddennet.methods.strike import strike_layers
from hiddennet.nn import hidden_layers
from hiddennet.registry import register
from hiddennet.settings.recipe import TrainStage
from hiddennet.settings.section import Count, Number, Positive


class ImpSection(DrawnSection):
    """method: rounds of training, each followed by pruning the smallest weights of all layers."""

    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    rounds: Positive = Field(10, description="how often is pruned; rounds + 1 trainings of train.epochs epochs each")
    rate: Number = Field(0.2, gt=0.0, lt=1.0, description="fraction of the weights left that goes after each round")
    rewind: Literal["weights", "learning_rate"] = Field(
        "weights", description="go back to earlier weights, or keep them and restart the learning rate only (Renda)"
    )
    rewind_step: Count = Field(
        0, description="the step of the first round whose weights are gone back to; 0: the weights as drawn"
    )
    first_epochs: Positive | None = Field(None, description="epochs of the first training; null: train.epochs")
    count: Literal["exact", "original"] = Field(
        "exact", description="prune ceil(rate n) weights of n, or, as the original, one more and all of its size"
    )
    exclude: Patterns

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if setting.epochs == 0:
            yield "train.epochs: expected at least 1 for each round of imp, got 0"
        if self.rewind == "learning_rate" and self.rewind_step:
            yield f"method.rewind_step: expected 0 with rewind: learning_rate, got {self.rewind_step}"


@register("method", "imp")
class Imp(Method):
    """Weights learn under masks that lose the smallest magnitudes of all layers together after each round.

    Running statistics of batch norm, and its scales and shifts, are not rewound; the optimiser is new in each round.
    """

    Section = ImpSection

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self._rewind: dict[str, Tensor] | None = None  # the weights gone back to, by layer

    @property
    def stages(self) -> list[TrainStage]:
        epochs, section = self.setting.epochs, self.section
        lengths = [section.first_epochs or epochs] + [epochs] * section.rounds
        return [self.stage(f"round {i}", length) for i, length in enumerate(lengths)]

    def build(self, model: nn.Module) -> nn.Module:
        hide_unpruned(model, self.section, self.setting, self.seed)
        if self.section.rewind == "weights" and self.section.rewind_step == 0:
            self._rewind = self._weights(model)
        return model

    @staticmethod
    def _weights(model: nn.Module) -> dict[str, Tensor]:
        return {name: layer.stored.detach().clone() for name, layer in hidden_layers(model).items()}

    def after_update(self, model: nn.Module, step: int) -> None:
        if self.section.rewind == "weights" and step == self.section.rewind_step:
            self._rewind = self._weights(model)

    @torch.no_grad()
    def enter_stage(self, model: nn.Module, stage: int) -> None:
        section, layers = self.section, hidden_layers(model)
        if section.rewind == "weights" and self._rewind is None:
            raise ValueError(
                f"method.rewind_step: expected a step of the first round, which had "
                f"{self.stages[0].epochs * self.steps_per_epoch}, got {section.rewind_step}"
            )
        exact = section.count == "exact"
        strike_layers(layers, section.rate, "global", exact=exact, more=0 if exact else 1)
        for name, layer in layers.items():
            state = layer.stored if self._rewind is None else self._rewind[name].to(layer.stored.device)
            layer.stored.copy_(state.masked_fill(~layer.mask(), 0.0))

    def remake(self, model: nn.Module, stage: int) -> None:
        """All rounds have the same make-up."""

    def state(self) -> dict[str, Any]:
        """The weights gone back to, where the seed does not tell them."""
        return {"rewind": self._rewind} if self.section.rewind_step else {}

    def restore(self, state: dict[str, Any]) -> None:
        if "rewind" in state:
            self._rewind = state["rewind"]
