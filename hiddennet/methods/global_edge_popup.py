"""global_edge_popup: one ranking of all scores; also with a density that falls to its target step by step.

The edge-popup of the Rare Gems ablation (Sreenivasan et al. 2022, arXiv 2202.12002), between edge-popup and Gem-Miner.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from torch import nn

from hiddennet.methods.base import Setting
from hiddennet.methods.layers import Patterns, dense_names, draw_weights, generated, learn, numbers
from hiddennet.methods.search import Search, SearchSection
from hiddennet.methods.strike import prune_rate
from hiddennet.nn import TopK, hidden_layers, hide
from hiddennet.registry import register
from hiddennet.settings.section import Density, Number, Positive


class GlobalEdgePopupSection(SearchSection):
    """method: the top-k of learned scores over all layers together reveals frozen weights."""

    density: Density = Field(0.5, description="fraction of all hidden weights that is revealed, in the end")
    period: Positive | None = Field(
        None, description="epochs between the steps in which the density falls to its target; null: it is there at once"
    )
    scale_fan: bool = Field(False, description="multiply the fan by the density")
    score_init: Literal["kaiming_uniform"] | Number = Field(
        "kaiming_uniform", description="U(+-1/sqrt(fan_in)), or one number for all scores"
    )
    exclude: Patterns

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if self.period is not None and self.period >= setting.epochs:
            yield f"method.period: expected fewer epochs than train.epochs ({setting.epochs}), got {self.period}"


def pruned_fractions(density: float, period: int, epochs: int) -> list[float]:
    """The fraction of all weights that is pruned in each epoch of the iterative form.

    With N steps of rate r = 1 - density^(1/N) (prune_rate): r until the first step at the end of epoch `period`, then
    1 - (1 - r)^floor((e + 1) / period) from the last step's epoch e on, at most 1 - density.
    """
    count, rate = prune_rate(density, period, epochs)
    fractions = []
    for epoch in range(epochs):
        last = (epoch - 1) // period * period if epoch else 0
        steps = (last + 1) // period if last else 1
        fractions.append(1 - (1 - rate) ** min(steps, count))
    return fractions


@register("method", "global_edge_popup")
class GlobalEdgePopup(Search):
    """y = f(x; w * h(|s|)), h = 1 for the highest of all layers' scores; n - ceil((1 - density) n) of n are kept."""

    Section = GlobalEdgePopupSection
    extends = False

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self._density = self.section.density  # of the epoch at work

    def build(self, model: nn.Module) -> nn.Module:
        section, number = self.section, numbers(model)
        dense = dense_names(model, self.setting, section.exclude)
        draw_weights(model, section, self.seed, names=dense)
        hide(
            model,
            source=lambda name, _: generated(section, self.seed, number[name], section.scale_fan),
            rule=TopK(section.density, scope="global", rounding="ceil"),
            exclude=dense,
            score_init=section.score_init,
        )
        learn(model, batch_norm=False, dense=False)
        return model

    def _set_density(self, model: nn.Module, density: float) -> None:
        self._density = density
        for layer in hidden_layers(model).values():
            if layer.scores is not None:
                layer.rule = dataclasses.replace(layer.rule, density=density)

    def density_in(self, epoch: int) -> float:
        """The density that scores are ranked for in an epoch."""
        section = self.section
        if section.period is None or epoch >= self.search_epochs:
            return section.density
        fraction = pruned_fractions(section.density, section.period, self.search_epochs)[epoch]
        return section.density if fraction > 1 - section.density - 1e-9 else 1 - fraction

    def on_epoch_start(self, model: nn.Module, epoch: int) -> list[str]:
        self._set_density(model, self.density_in(epoch))
        return []

    def before_evaluation(self, model: nn.Module, epoch: int) -> list[str]:
        if epoch == self.search_epochs - 1:
            self._set_density(model, self.section.density)
        return []

    def state(self) -> dict[str, float]:
        return {"density": self._density}

    def restore(self, state: dict[str, float]) -> None:
        self._density = state["density"]

    def remake(self, model: nn.Module, stage: int) -> None:
        super().remake(model, stage)
        self._set_density(model, self._density)

    def is_result(self, epoch: int) -> bool:
        return epoch >= self.search_epochs - 1 or self.density_in(epoch) == self.section.density
