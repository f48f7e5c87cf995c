"""edge_popup: scores are learned, the weights never. Ramanujan et al. 2020, arXiv 1911.13299.

Also on trained weights: given ones, or those of `dense_epochs` epochs of ordinary training first.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from hiddennet.methods.base import Setting
from hiddennet.methods.layers import (
    DENSITIES,
    Densities,
    Patterns,
    dense_names,
    draw_weights,
    generated,
    layer_densities,
    learn,
    numbers,
    plain_layers,
)
from hiddennet.methods.search import Search, SearchSection
from hiddennet.nn import Rule, Source, Stored, TopK, hide
from hiddennet.registry import REGISTRIES, register
from hiddennet.settings.recipe import TrainStage
from hiddennet.settings.section import Count, Density, Number, Values

RULES, SOURCES = Values("rule"), Values("source")


class EdgePopupSection(SearchSection):
    """method: the top-k of learned scores reveals frozen weights."""

    sections: ClassVar[dict[str, Any]] = {**SearchSection.sections, "rule": RULES, "source": SOURCES}
    density: Density = Field(0.5, description="fraction revealed; n - int((1 - density) n) of a layer's n weights")
    by: Literal["magnitude", "value"] = Field(
        "magnitude", description="rank scores by magnitude (the paper) or by value"
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="rank each layer by itself, or all hidden layers together"
    )
    densities: Densities = DENSITIES
    rule: RULES.type | None = Field(  # type: ignore[valid-type]
        None,
        description="another rule that reveals by learned scores, in place of the top-k, by its name: grouped, ...",
    )
    source: SOURCES.type | None = Field(  # type: ignore[valid-type]
        None, description="another source of weights in place of init, by its name; null: drawn once and frozen"
    )
    scale_fan: bool = Field(False, description="multiply the fan by the density")
    score_init: Literal["kaiming_uniform"] | Number = Field(
        "kaiming_uniform", description="U(+-1/sqrt(fan_in)), or one number for all scores"
    )
    weights: str | None = Field(
        None,
        description="frozen weights to hide in, in place of drawn ones: a checkpoint, a run, an "
        "artifact, or torchvision:NAME",
    )
    dense_epochs: Count = Field(0, description="epochs of ordinary training of the weights before they are frozen")
    train_batch_norm: bool = Field(True, description="batch norm's scale and shift learn, where the model has them")
    freeze_dense: bool = Field(False, description="layers that are not hidden stay as drawn")
    exclude: Patterns

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if self.dense_epochs and self.dense_epochs >= setting.epochs:
            yield f"method.dense_epochs: expected fewer than train.epochs ({setting.epochs}), got {self.dense_epochs}"
        if self.dense_epochs and self.weights:
            yield (
                "method.weights: expected null with dense_epochs (one or the other gives the "
                f"trained weights), got {self.weights!r}"
            )
        if self.scale_fan and (self.weights or self.dense_epochs):
            yield "method.scale_fan: expected false with trained weights, got true; it scales drawn weights only"
        if self.rule is not None:
            keys = ("density", "by", "scope", "densities")
            yield from [
                f"method.{key}: expected none with method.rule, which says it itself, got {getattr(self, key)!r}; "
                f"leave it out, or write its default, {default!r}, over one inherited"
                for key in keys
                if getattr(self, key) != (default := type(self).model_fields[key].default)
            ]
            if not REGISTRIES["rule"][self.rule.name].has_scores:
                yield f"method.rule.name: expected a rule with learned scores, got {self.rule.name!r}"
        if self.densities != "uniform" and self.scope == "global":
            yield "method.densities: expected uniform where scope is global, which shares the density itself"
        if self.source is not None and (self.weights or self.dense_epochs):
            yield "method.source: expected null with trained weights, got one"


@register("method", "edge_popup")
class EdgePopup(Search):
    """Eq. 3: y = conv(x, w * h(|s|)), h = 1 for the top k; eq. 5: ds = dw_eff * w."""

    Section = EdgePopupSection

    @property
    def search_stages(self) -> list[TrainStage]:
        dense, train = self.section.dense_epochs, self.setting.epochs
        if not dense:
            return super().search_stages
        clock = {"first": 0, "length": train}  # one schedule over both
        return [self.stage("dense", dense, **clock), self.stage("search", train - dense, **clock)]

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        dense = dense_names(model, self.setting, section.exclude)
        if section.dense_epochs:
            draw_weights(model, section, self.seed)
            return model
        self.start(model, dense)
        self._hide(model, dense, stored=section.weights is not None)
        return model

    def enter_search_stage(self, model: nn.Module, stage: int) -> None:
        self._hide(model, dense_names(model, self.setting, self.section.exclude), stored=True)

    def _hide(self, model: nn.Module, dense: list[str], stored: bool) -> None:
        section, number = self.section, numbers(model)

        def source(name: str, _: nn.Module) -> Source:
            if stored:
                return Stored(layer=number[name])
            if section.source is not None:
                return section.source.make(seed=self.seed, layer=number[name])
            return generated(section, self.seed, number[name], section.scale_fan)

        shapes = {name: tuple(layer.weight.shape) for name, layer in plain_layers(model).items() if name not in dense}
        densities = layer_densities(section.densities, shapes, section.density)

        def rule(name: str, _: nn.Module) -> Rule:
            if section.rule is not None:
                return section.rule.make(seed=self.seed)
            return TopK(densities[name], by=section.by, scope=section.scope)

        hide(model, source=source, rule=rule, exclude=dense, score_init=section.score_init)
        learn(model, batch_norm=section.train_batch_norm, dense=not section.freeze_dense)
