"""What methods that search for a sub-network have in common: the fine-tuning of its weights that may follow."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet.methods.base import DrawnSection, Method, Setting
from hiddennet.methods.layers import learn, numbers
from hiddennet.methods.sanity import MEANING, Check, alter
from hiddennet.nn import Fixed, Stored, hidden_layers, hide, masks
from hiddennet.nn.expose import expose
from hiddennet.settings.recipe import Recipe, TrainStage


class FineTuneRecipe(Recipe):
    """Keys of the fine-tuning after a search: the mask stays, the weights learn."""

    sanity: Check | None = Field(None, description=f"alter the sub-network first; {MEANING}")
    train_batch_norm: bool = Field(True, description="batch norm's scale and shift learn, where the model has them")


class SearchSection(DrawnSection):
    """Keys of a method that finds a sub-network and may then train its weights."""

    sections: ClassVar[dict[str, object]] = {"fine_tune": FineTuneRecipe}
    fine_tune: FineTuneRecipe | None = Field(
        None, description="train the weights of the sub-network afterwards, in a stage of its own; null: no"
    )

    def mistakes(self, setting: Setting) -> list[str]:
        found = super().mistakes(setting)
        if self.fine_tune is not None and setting.epochs == 0:
            found.append("method.fine_tune: expected a search of at least one epoch before it, got train.epochs 0")
        if self.fine_tune is not None:
            found += self.fine_tune.mistakes("method.fine_tune.", setting.epochs, setting.validation)
        return found


@torch.no_grad()
def train_weights_of(
    model: nn.Module, kept: dict[str, Tensor], *, sanity: Check | None, seed: int, train_batch_norm: bool
) -> None:
    """Turn a searched network into one with the fixed masks `kept` whose revealed weights learn, in place."""
    layers = hidden_layers(model)
    weights = {name: layer.source_weight() for name, layer in layers.items()}
    number = numbers(model)
    if sanity is not None:
        scores = {name: layer.rule.importance(layer) for name, layer in layers.items()}
        known = scores if all(found is not None for found in scores.values()) else None
        kept, weights = alter(sanity, kept, weights, known, seed)
    device = next(iter(layers.values())).selection.device
    expose(model)
    for name, weight in weights.items():
        model.get_submodule(name).weight.copy_(weight)
    hide(
        model,
        source=lambda name, _: Stored(trainable=True, layer=number[name]),
        rule=lambda name, _: Fixed(kept[name].to(device)),
        include=lambda name, _: name in kept,
    )
    learn(model, batch_norm=train_batch_norm)


class Search(Method):
    """A search in stages of its own, `search_stages`; then, if the config says so, the fine-tuning."""

    @property
    def search_stages(self) -> list[TrainStage]:
        """The stages of the search."""
        return [self.stage("search")]

    @property
    def stages(self) -> list[TrainStage]:
        recipe, search = self.section.fine_tune, self.search_stages
        return search if recipe is None else [*search, recipe.stage("fine_tune", self.setting.epochs)]

    @property
    def search_epochs(self) -> int:
        """Epochs before the fine-tuning."""
        return sum(stage.epochs for stage in self.search_stages)

    def found(self, model: nn.Module) -> dict[str, Tensor]:
        """The masks that fine-tuning keeps, by layer."""
        return masks(model)

    def enter_search_stage(self, model: nn.Module, stage: int) -> None:
        """Change the model's make-up for a later stage of the search, in place."""

    def enter_stage(self, model: nn.Module, stage: int) -> None:
        if stage < len(self.search_stages):
            self.enter_search_stage(model, stage)
            return
        recipe = self.section.fine_tune
        train_weights_of(
            model,
            self.found(model),
            sanity=recipe.sanity,
            seed=self.seed,
            train_batch_norm=recipe.train_batch_norm,
        )
