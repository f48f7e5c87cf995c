"""magnitude_topk: learned weights, revealed by their own magnitude; the hidden ones learn too.

What the original's configs name DNWConv: w * topk(|w|), the gradient straight through to every
weight (Wortsman et al. 2019, arXiv 1906.00586, eq. 4); its sparse ResNets. With `drop` it is targeted
dropout, which the paper compares with. Not the wiring over a graph of channels.
"""

from typing import Annotated, Literal

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
from hiddennet.nn import Stored, TargetedDropout, TopK, hide
from hiddennet.registry import register
from hiddennet.settings.section import Density, Number


class MagnitudeTopKSection(DrawnSection):
    """method: the weights of largest magnitude are revealed, all weights are learned."""

    density: Density = Field(
        0.5, description="fraction revealed; n - int((1 - density) n) of a layer's n weights, 1 - density as a decimal"
    )
    drop: Annotated[Number, Field(ge=0.0, le=1.0)] | None = Field(
        None,
        description="targeted dropout: training leaves each weight that is not among the largest out with this "
        "probability, anew at each step, and gradients reach what takes part; null: the largest alone take part, "
        "gradients reach all",
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="rank each layer by itself, or all hidden layers together"
    )
    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    scale_fan: bool = Field(False, description="multiply the fan by the density")
    exclude: Patterns


@register("method", "magnitude_topk")
class MagnitudeTopK(Method):
    """The scores are the weights themselves."""

    Section = MagnitudeTopKSection

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        dense = dense_names(model, self.setting, section.exclude)
        number = numbers(model)
        hidden = [name for name in plain_layers(model) if name not in dense]
        draw_weights(model, section, self.seed, names=dense)
        density = section.density if section.scale_fan else None
        draw_weights(model, section, self.seed, names=hidden, density=density)
        rule = TopK(section.density, scope=section.scope, of="weights", rounding="decimal")
        if section.drop is not None:
            rule = TargetedDropout(section.density, section.drop, self.seed, scope=section.scope)
        gradient = "through" if section.drop is None else "masked"
        hide(
            model,
            source=lambda name, _: Stored(trainable=True, gradient=gradient, layer=number[name]),
            rule=rule,
            exclude=dense,
        )
        learn(model)
        return model
