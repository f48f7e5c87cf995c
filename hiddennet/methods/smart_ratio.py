"""smart_ratio: a random mask whose density falls from layer to layer by a fixed law; the revealed weights learn.

Su et al. 2020, "Sanity-Checking Pruning Methods", arXiv 2009.11094, as Rare Gems uses it (arXiv 2202.12002).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from hiddennet.methods.random_mask import MaskSection, RandomMask
from hiddennet.methods.smart_ratio_counts import keep_counts, keep_ratios
from hiddennet.models import prunable
from hiddennet.registry import register
from hiddennet.settings.section import Density, Number

__all__ = ["SmartRatio", "keep_counts", "keep_ratios"]


class SmartRatioSection(MaskSection):
    """method: a random mask with a density for each layer that falls with depth (smart ratio)."""

    density: Density = Field(0.05, description="fraction of all hidden weights that is revealed")
    train_weights: bool = Field(True, description="false: the weights stay as they were drawn")
    version: Literal[1, 2] = Field(1, description="2: first and last layer as Gem-Miner keeps them (resnet20 only)")
    head_density: Number = Field(0.3, gt=0.0, le=1.0, description="density of the last layer")
    family: Literal["resnet", "vgg"] | None = Field(
        None, description="the law of the falling densities; null: by the network's name"
    )
    shortcuts: bool = Field(True, description="false: as the original, leave projections of ImageNet nets dense")


@register("method", "smart_ratio")
class SmartRatio(RandomMask):
    """int(p_l n_l) weights of layer l are revealed, chosen by a uniform draw."""

    Section = SmartRatioSection

    def counts(self, model: nn.Module, hidden: list[str]) -> dict[str, int]:
        section = self.section
        layers = {name: m for name, m in prunable(model, shortcuts=section.shortcuts).items() if name in hidden}
        family = section.family or ("vgg" if "vgg" in self.setting.model else "resnet")
        counts = keep_counts(
            [layer.weight.numel() for layer in layers.values()],
            section.density,
            family=family,
            head_density=section.head_density,
            version=section.version,
        )
        found = {name: model.get_submodule(name).weight.numel() for name in hidden}
        return found | dict(zip(layers, counts, strict=True))
