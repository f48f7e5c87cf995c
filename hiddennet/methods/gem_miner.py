"""gem_miner: hc, whose lowest scores are struck out every few epochs; then the weights are fine-tuned.

Sreenivasan et al. 2022, "Rare Gems", arXiv 2202.12002, algorithm 1.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from hiddennet.methods.base import Setting
from hiddennet.methods.hc import Hc, HcSection
from hiddennet.methods.strike import prune_rate, strike_layers, strike_out
from hiddennet.registry import register
from hiddennet.settings.section import Density, Number, Positive

__all__ = ["GemMiner", "GemMinerSection", "prune_rate", "strike_out"]


class GemMinerSection(HcSection):
    """method: hc, whose lowest scores are struck out every few epochs until the density is reached."""

    density: Density = Field(0.05, description="fraction of all hidden weights that is not struck out in the end")
    period: Positive = Field(5, description="epochs between two times of striking out")
    rate: Number | None = Field(
        None, gt=0.0, lt=1.0, description="fraction of what is left that goes each time; null: so that density is met"
    )
    strike: Literal["global", "layer", "threshold"] = Field(
        "global", description="rank all layers together, each by itself, or strike out all scores rounded to 0"
    )
    exact: bool = Field(
        False, description="of equal scores strike out only as many as are due; false: all of them, as the original"
    )
    strike_at: Literal["end", "start"] = Field("end", description="of epochs period, 2 period, ...")
    invert: bool = Field(False, description="strike out the highest scores instead: a sanity check")

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if self.period >= setting.epochs:
            yield f"method.period: expected fewer epochs than train.epochs ({setting.epochs}), got {self.period}"


@register("method", "gem_miner")
class GemMiner(Hc):
    """Hc, whose flags lose the fraction `rate` of the lowest scores every `period` epochs."""

    Section = GemMinerSection
    extends = False

    @property
    def strikes(self) -> tuple[int, float]:
        """How often scores are struck out, and the fraction of what is left that goes each time."""
        section = self.section
        count, rate = prune_rate(section.density, section.period, self.search_epochs)
        return count, rate if section.rate is None else section.rate

    def _due(self, epoch: int) -> bool:
        """Whether scores are struck out before this epoch of the search."""
        passed = epoch - (1 if self.section.strike_at == "end" else 0)
        return epoch < self.search_epochs and passed > 0 and passed % self.section.period == 0

    def _due_at_the_end(self, epoch: int) -> bool:
        """Whether a last time falls behind the last epoch, which is evaluated after it then."""
        last = epoch == self.search_epochs - 1
        return last and self.section.strike_at == "end" and epoch > 0 and epoch % self.section.period == 0

    def on_epoch_start(self, model: nn.Module, epoch: int) -> list[str]:
        notes = super().on_epoch_start(model, epoch)
        return notes + (self._strike(model) if self._due(epoch) else [])

    def before_evaluation(self, model: nn.Module, epoch: int) -> list[str]:
        return self._strike(model) if self._due_at_the_end(epoch) else []

    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        """As the original counts: densities of an epoch that ends in striking out are those after it."""
        if self.section.strike_at == "start" or not self._due(epoch + 1):
            return super().on_epoch_end(model, epoch)
        layers = self.rounded(model).values()
        flags = [layer.flags.clone() for layer in layers]  # struck out when the next epoch starts
        self._strike(model)
        found = {**super().on_epoch_end(model, epoch), "density": self.density(model)}
        with torch.no_grad():
            for layer, before in zip(layers, flags, strict=True):
                layer.flags.copy_(before)
        return found

    def _strike(self, model: nn.Module) -> list[str]:
        layers = {name: layer for name, layer in self.rounded(model).items() if name in self.counted}
        section = self.section
        emptied = strike_layers(
            layers, self.strikes[1], section.strike, invert=section.invert, exact=section.exact, at=section.threshold
        )
        return [f"warning: no weight is left in layer {name}; its output is constant" for name in emptied]

    def is_result(self, epoch: int) -> bool:
        if epoch >= self.search_epochs:
            return True
        last = self.strikes[0] * self.section.period
        return epoch > last or self._due_at_the_end(epoch) or (self.section.strike_at == "start" and epoch == last)
