"""magnitude_topk: learned weights, revealed by their own magnitude; the hidden ones learn too.

What the original's configs name DNWConv: w * topk(|w|), the gradient straight through to every
weight (Wortsman et al. 2019, arXiv 1906.00586, eq. 4). Not the wiring over a graph of channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from hiddennet.methods.base import DrawnSection, Init, Method
from hiddennet.methods.layers import (
    Patterns,
    dense_names,
    draw_weights,
    learn,
    numbers,
    plain_layers,
)
from hiddennet.methods.section import Density
from hiddennet.nn import Stored, TopK, hide


class MagnitudeTopKSection(DrawnSection):
    """method: the weights of largest magnitude are revealed, all weights are learned."""

    title: ClassVar[str] = "method 'magnitude_topk'"
    name: Literal["magnitude_topk"]
    density: Density = Field(0.5, description="fraction revealed; n - int((1 - density) n) of a layer's n weights")
    scope: Literal["layer", "global"] = Field(
        "layer", description="rank each layer by itself, or all hidden layers together"
    )
    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    scale_fan: bool = Field(False, description="multiply the fan by the density")
    exclude: Patterns


class MagnitudeTopK(Method):
    """The scores are the weights themselves."""

    name = "magnitude_topk"
    Section = MagnitudeTopKSection

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        dense = dense_names(model, self.config, section.exclude)
        number = numbers(model)
        hidden = [name for name in plain_layers(model) if name not in dense]
        draw_weights(model, section, self.seed, names=dense)
        density = section.density if section.scale_fan else None
        draw_weights(model, section, self.seed, names=hidden, density=density)
        hide(
            model,
            source=lambda name, _: Stored(trainable=True, gradient="through", layer=number[name]),
            rule=TopK(section.density, by="magnitude", scope=section.scope, of="weights"),
            exclude=lambda name, _: name in dense,
        )
        learn(model)
        return model
