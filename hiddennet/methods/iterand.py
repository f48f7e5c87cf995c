"""iterand: edge-popup whose pruned weights are drawn anew every K steps. Chijiwa et al. 2021, arXiv 2106.09269."""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet.methods.base import Init, Setting
from hiddennet.methods.layers import Patterns, dense_names, draw_weights, learn, numbers
from hiddennet.methods.search import Search, SearchSection
from hiddennet.nn import KthValue, Redrawn, hide, redraw
from hiddennet.ops.inits import fans
from hiddennet.registry import register
from hiddennet.settings.section import Density, Number, Positive

ScoreInit = Literal["kaiming_uniform", "kaiming_normal", "signed_constant", "uniform"]


class IteRandSection(SearchSection):
    """method: the highest scores reveal random weights; weights not revealed are drawn anew now and then."""

    density: Density = Field(0.5, description="fraction revealed: scores at or above the kth smallest, ties kept")
    init: Init = Field("kaiming_uniform", description="distribution of the weights, see hiddennet.ops.init_scale")
    linear_init: Init | None = Field(None, description="distribution in linear layers; null: as init")
    gain: Number = Field(1.0, gt=0.0, description="factor on all weights")
    score_init: ScoreInit = Field(
        "kaiming_uniform", description="distribution of the scores, for relu: kaiming_uniform is U(+-sqrt(6/fan_in))"
    )
    score_gain: Number = Field(1.0, gt=0.0, description="factor on the scores at the start")
    last_density: Density | None = Field(None, description="density of the last layer; null: as density")
    rate: Number = Field(
        0.1, ge=0.0, le=1.0, description="probability that a pruned weight is replaced at a redraw; 0: edge-popup"
    )
    period: Positive | None = Field(
        300, description="steps between redraws, or redraws an epoch, by period_unit; null: no redraws"
    )
    period_unit: Literal["steps", "per_epoch"] = Field("steps", description="what period counts")
    share: Number = Field(
        1.0, gt=0.0, le=1.0, description="share of the pruned weights, those of the lowest scores, that may be redrawn"
    )
    decay: Number | None = Field(
        None, description="with mix, in place of replacing by rate: weight <- decay weight + mix new draw"
    )
    mix: Number | None = Field(None, description="see decay")
    train_batch_norm: bool = Field(False, description="batch norm's scale and shift learn, where the model has them")
    exclude: Patterns

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if (self.decay is None) != (self.mix is None):
            yield f"method.decay: expected both or neither of decay and mix, got {self.decay} and {self.mix}"


def score_filler(init: ScoreInit, gain: float) -> Callable[[Tensor], None]:
    """A function that fills scores [out, in, *kernel] in place, from torch's generator."""

    @torch.no_grad()
    def fill(scores: Tensor) -> None:
        deviation = (2.0 / fans(tuple(scores.shape))[0]) ** 0.5
        if init == "kaiming_uniform":
            scores.uniform_(-1.0, 1.0).mul_(3.0**0.5 * deviation)
        elif init == "uniform":
            scores.uniform_(-1.0, 1.0)
        else:
            scores.normal_(0.0, deviation)
            if init == "signed_constant":
                scores.sign_().mul_(deviation)
        scores.mul_(gain)

    return fill


@register("method", "iterand")
class IteRand(Search):
    """Algorithm 1: scores learn as in edge-popup, ranked by value; redraws leave what is revealed as it is."""

    Section = IteRandSection

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        dense = dense_names(model, self.setting, section.exclude)
        number = numbers(model)
        last = getattr(model, "last_layer", None)
        draw_weights(model, section, self.seed, names=dense)

        def source(name: str, module: nn.Module) -> Redrawn:
            init = section.linear_init if isinstance(module, nn.Linear) and section.linear_init else section.init
            how = {"layer": number[name], "gain": section.gain, "decayed": section.decay is not None}
            return Redrawn(init, self.seed, **how, **section.variance)

        def rule(name: str, _: nn.Module) -> KthValue:
            other = section.last_density is not None and name == last
            return KthValue(section.last_density if other else section.density)

        fill = score_filler(section.score_init, section.score_gain)
        hide(model, source=source, rule=rule, exclude=dense, score_init=fill)
        learn(model, batch_norm=section.train_batch_norm, dense=False)
        return model

    @property
    def steps_between(self) -> int | None:
        """Optimiser steps from one redraw to the next; None without redraws.

        Raises ValueError for more redraws an epoch than it has steps.
        """
        section = self.section
        if section.period is None or (section.rate == 0.0 and section.decay is None):
            return None
        if section.period_unit == "steps":
            return section.period
        if section.period > self.steps_per_epoch:
            raise ValueError(
                f"method.period: expected at most as many redraws as an epoch has steps ({self.steps_per_epoch}), "
                f"got {section.period}"
            )
        return self.steps_per_epoch // section.period

    def before_forward(self, model: nn.Module, step: int) -> None:
        between = self.steps_between
        if between is None or step >= self.search_epochs * self.steps_per_epoch or (step + 1) % between:
            return
        section = self.section
        redraw(
            model,
            (step + 1) // between,
            rate=section.rate if section.decay is None else 1.0,
            share=section.share,
            decay=section.decay,
            mix=section.mix,
        )
