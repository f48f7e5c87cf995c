"""random: a fixed random mask, exactly k weights a layer; the revealed weights learn, or none."""

import hashlib

from pydantic import Field
from torch import nn

from hiddennet import ops
from hiddennet.methods.base import DrawnSection, Init, Method
from hiddennet.methods.layers import (
    DENSITIES,
    Densities,
    Patterns,
    dense_names,
    draw_weights,
    generated,
    layer_counts,
    learn,
    numbers,
    plain_layers,
)
from hiddennet.nn import Fixed, Source, Stored, hide
from hiddennet.registry import register
from hiddennet.settings.section import Density


class MaskSection(DrawnSection):
    """Keys of a method that begins with a random mask."""

    density: Density = Field(0.5, description="fraction of the weights that is revealed")
    init: Init = Field("kaiming_normal", description="distribution of the weights at the start")
    scale_fan: bool = Field(False, description="multiply the fan by the density")
    mask_seed: int | None = Field(None, ge=0, lt=2**63, description="of the masks; null: made from the run's seed")
    exclude: Patterns


class RandomSection(MaskSection):
    """method: a fixed random mask (the papers' "random graph")."""

    densities: Densities = DENSITIES
    train_weights: bool = Field(True, description="false: the weights stay as they were drawn")


@register("method", "random")
class RandomMask(Method):
    """k = n - int((1 - density) n) weights of each layer, chosen by a uniform draw."""

    Section = RandomSection

    def build(self, model: nn.Module) -> nn.Module:
        section = self.section
        dense = dense_names(model, self.setting, section.exclude)
        number = numbers(model)
        hidden = [name for name in plain_layers(model) if name not in dense]
        kept = self.counts(model, hidden)
        trains = getattr(section, "train_weights", True)
        draw_weights(model, section, self.seed, names=dense)
        if trains:
            density = section.density if section.scale_fan else None
            draw_weights(model, section, self.seed, names=hidden, density=density)

        def source(name: str, _: nn.Module) -> Source:
            if trains:
                return Stored(trainable=True, layer=number[name])
            return generated(section, self.seed, number[name], section.scale_fan)

        def rule(name: str, module: nn.Module) -> Fixed:
            return Fixed(self.mask(tuple(module.weight.shape), number[name], kept[name], module.weight.device))

        hide(model, source=source, rule=rule, exclude=dense)
        learn(model, dense=trains)
        return model

    def counts(self, model: nn.Module, hidden: list[str]) -> dict[str, int]:
        """How many weights of each hidden layer are revealed."""
        shapes = {name: tuple(model.get_submodule(name).weight.shape) for name in hidden}
        return layer_counts(self.section.densities, shapes, self.section.density)

    def mask(self, shape: tuple[int, ...], layer: int, k: int, device):
        """The mask of one layer: bool, exactly k ones. Independent of the weights' draw."""
        seed = self.section.mask_seed
        if seed is None:
            digest = hashlib.blake2b(f"mask/{self.seed}".encode(), digest_size=8).digest()
            seed = int.from_bytes(digest, "little") >> 1
        # "standard" is the uniform distribution; only the ranks of the draws are used
        draws = ops.generate_weight(shape, "standard", seed=seed, layer=layer, device=device)
        return ops.topk_mask(draws, k, by="value")
