"""What methods that search for a sub-network have in common: the fine-tuning of its weights that may follow; and the
sanity checks of what was found (Frankle et al. 2020, arXiv 2009.08576; Rare Gems, section 5): does it matter which
weights were kept, and which values they have? Each keeps every layer's density."""

import hashlib
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.methods.base import DrawnSection, Method, Setting
from hiddennet.methods.layers import draw_weights, learn, numbers
from hiddennet.methods.weights import load_weights
from hiddennet.nn import Fixed, Stored, hidden_layers, hide, masks
from hiddennet.nn.expose import expose
from hiddennet.settings.recipe import Recipe, TrainStage

Check = Literal["reinitialize", "shuffle_mask", "shuffle_weights", "invert"]
MEANING = (
    "reinitialize: weights drawn anew (Kaiming normal); shuffle_mask: the mask permuted within each layer; "
    "shuffle_weights: the weights permuted within each layer; invert: the lowest scores kept instead of the highest"
)


def _seed_of(seed: int, check: str) -> int:
    digest = hashlib.blake2b(f"sanity/{check}/{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _draws(shape: torch.Size, seed: int, layer: int) -> Tensor:
    return ops.generate_weight(tuple(shape), "uniform", seed=seed, layer=layer)


@torch.no_grad()
def alter(
    check: Check,
    masks: dict[str, Tensor],
    weights: dict[str, Tensor],
    scores: dict[str, Tensor] | None,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the masks (bool) and weights (float32) of a sub-network after a check, on the CPU, by layer name.

    scores: what the masks were ranked by, the higher the better kept; needed by "invert".

    Raises ValueError for "invert" of a sub-network without scores.
    """
    if check == "invert" and not scores:
        raise ValueError(
            "sanity: expected a sub-network found by scores for invert, got one without; "
            "name a run of a method that learns scores, or use another check"
        )
    drawn = _seed_of(seed, check)
    new_masks, new_weights = dict(masks), dict(weights)
    for number, name in enumerate(masks):
        mask, weight = masks[name].cpu(), weights[name].cpu()
        kept = int(mask.count_nonzero())
        if check == "reinitialize":
            fresh = ops.generate_weight(tuple(weight.shape), "kaiming_normal", seed=drawn, layer=number)
            new_weights[name] = fresh
        elif check == "shuffle_mask":
            new_masks[name] = ops.topk_mask(_draws(weight.shape, drawn, number), kept)
        elif check == "shuffle_weights":
            order = _draws(weight.shape, drawn, number).flatten().argsort(stable=True)
            new_weights[name] = weight.flatten()[order].view(weight.shape)
        else:
            new_masks[name] = ops.topk_mask(-scores[name].cpu().contiguous(), kept)
    return new_masks, new_weights


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

    def mistakes(self, setting: Setting) -> Iterator[str]:
        yield from super().mistakes(setting)
        if self.fine_tune is not None and setting.epochs == 0:
            yield "method.fine_tune: expected a search of at least one epoch before it, got train.epochs 0"
        if self.fine_tune is not None:
            yield from self.fine_tune.mistakes("method.fine_tune.", setting.epochs, setting.validation)


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
        include=list(kept),
    )
    learn(model, batch_norm=train_batch_norm)


class Search(Method):
    """A search in stages of its own, `search_stages`; then, if the config says so, the fine-tuning."""

    def start(self, model: nn.Module, dense: list[str]) -> None:
        """Give the plain model the weights that are searched in: those of `weights`, or drawn ones, which sources draw
        in all but the layers that stay dense."""
        where = self.section.weights
        draw_weights(model, self.section, self.seed, names=None if where else dense)
        self.notes = load_weights(model, where, self.setting.open_run) if where else []

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
