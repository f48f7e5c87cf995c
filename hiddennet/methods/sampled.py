"""sampled: masks drawn from learned probabilities. Zhou et al. 2019, "supermasks", section 4.1."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from hiddennet.methods.base import DrawnSection, Method
from hiddennet.methods.layers import Patterns, dense_names, draw_weights, generated, learn, numbers
from hiddennet.nn import Sampled, hidden_layers, hide
from hiddennet.registry import register
from hiddennet.settings.section import Number


class SampledSection(DrawnSection):
    """method: each weight is revealed with probability sigmoid(score); the scores are learned."""

    score_init: Literal["kaiming_uniform"] | Number = Field(
        "kaiming_uniform", description="U(+-1/sqrt(fan_in)), or one number for all scores"
    )
    evaluation: Literal["expectation", "draw"] = Field(
        "expectation",
        description="evaluate with weights times their probabilities, or with one fixed draw",
    )
    train_batch_norm: bool = Field(True, description="batch norm's scale and shift learn, where the model has them")
    freeze_dense: bool = Field(False, description="layers that are not hidden stay as drawn")
    exclude: Patterns


@register("method", "sampled")
class SampledMask(Method):
    """Bernoulli(sigmoid(s)) anew at each training forward; straight through to the probability."""

    Section = SampledSection

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        dense = dense_names(model, self.setting, section.exclude)
        number = numbers(model)
        draw_weights(model, section, self.seed, names=dense)
        hide(
            model,
            source=lambda name, _: generated(section, self.seed, number[name]),
            rule=Sampled(self.seed, section.evaluation),
            exclude=dense,
            score_init=section.score_init,
        )
        learn(model, batch_norm=section.train_batch_norm, dense=not section.freeze_dense)
        return model

    @torch.no_grad()
    def on_epoch_end(self, model: nn.Module, epoch: int) -> dict[str, float]:
        """The expected kept fraction of each layer, and their plain average."""
        layers = hidden_layers(model)
        kept = torch.stack([layer.scores.sigmoid().mean() for layer in layers.values()]).tolist()
        found = {f"density/{name}": value for name, value in zip(layers, kept, strict=True)}
        return {**found, "layer_density": sum(kept) / len(kept)}
