"""Which layers a method hides, what weights they start from, which parameters learn, and how a density is shared out
among layers: equally, or by Erdős-Rényi-Kernel (ERK)."""

import fnmatch
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from hiddennet import ops
from hiddennet.methods.base import DrawnSection, Setting
from hiddennet.nn import Fixed, Generated, Stored, hidden_layers, hide
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.other_layers import hideable
from hiddennet.nn.rules import kept_count

Patterns = Annotated[
    list[str],
    Field(default_factory=list, description="names or patterns of layers that stay dense"),
]


def plain_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can be hidden, by name, in module order."""
    return {name: module for name, module in model.named_modules() if hideable(module)}


def matching(patterns: Iterable[str], layers: Iterable[str], key: str) -> list[str]:
    """The layers that a pattern meets, in their order.

    Raises ValueError, naming the config's key, for a pattern that meets none.
    """
    found, layers = set(), list(layers)
    for pattern in patterns:
        met = fnmatch.filter(layers, pattern)
        if not met:
            raise ValueError(
                f"{key}: expected names or patterns of layers, got {pattern!r}; the layers are {', '.join(layers)}"
            )
        found.update(met)
    return [name for name in layers if name in found]


def dense_names(model: nn.Module, setting: Setting, exclude: Iterable[str] = ()) -> list[str]:
    """Names of the layers that stay dense: the config's first and last layer, and the patterns.

    Raises ValueError for a pattern that meets no layer, and when no layer is left to hide.
    """
    layers = plain_layers(model)
    dense = set()
    for key in ("first_layer", "last_layer"):
        if getattr(setting, key) == "dense":
            dense.add(getattr(model, key))
    dense.update(matching(exclude, layers, "method.exclude"))
    if not layers.keys() - dense:
        raise ValueError(f"method: expected a layer to hide, got {len(dense)} dense layers and no other; exclude fewer")
    return [name for name in layers if name in dense]


def numbers(model: nn.Module) -> dict[str, int]:
    """Each layer's number in the weight generator: its place among all layers, hidden or not.

    So a layer has the same weights from the same seed whatever the method.
    """
    names = [name for name, module in model.named_modules() if hideable(module) or isinstance(module, HiddenMixin)]
    return {name: number for number, name in enumerate(names)}


def generated(section: DrawnSection, seed: int, layer: int, scale_fan: bool = False) -> Generated:
    """The frozen source of layer number `layer`."""
    return Generated(section.init, seed, layer=layer, scale_fan=scale_fan, **section.variance)


@torch.no_grad()
def draw_weights(
    model: nn.Module,
    section: DrawnSection,
    seed: int,
    *,
    names: Iterable[str] | None = None,
    density: float | None = None,
) -> None:
    """Draw the weights of the named plain layers (all by default) from the seed, in place.

    density: the kept fraction that the fan is scaled by, or None.
    """
    number = numbers(model)
    layers = plain_layers(model)
    for name in layers if names is None else names:
        weight = layers[name].weight
        how = {"seed": seed, "layer": number[name], "density": density, "device": weight.device, **section.variance}
        weight.copy_(ops.generate_weight(tuple(weight.shape), section.init, **how))


def is_batch_norm(module: nn.Module) -> bool:
    """Whether the module normalises over the batch, whatever its name."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def learn(model: nn.Module, *, hidden: bool = True, batch_norm: bool = True, dense: bool = True) -> None:
    """Set which parameters require gradients.

    hidden: scores with their thresholds, and stored weights whose source is trainable. batch_norm: scales and shifts.
    dense: everything else.
    """
    stored = {id(m.stored): m.source for m in hidden_layers(model).values() if m.stored is not None}
    scores = {id(m.scores) for m in hidden_layers(model).values() if m.scores is not None}
    scores |= {id(m.threshold) for m in hidden_layers(model).values() if hasattr(m, "threshold")}
    normal = {id(p) for m in model.modules() if is_batch_norm(m) for p in m.parameters()}
    for parameter in model.parameters():
        key = id(parameter)
        if key in stored:
            parameter.requires_grad_(hidden and stored[key].trainable)
        elif key in scores:
            parameter.requires_grad_(hidden)
        else:
            parameter.requires_grad_(batch_norm if key in normal else dense)


def hide_unpruned(model: nn.Module, section: DrawnSection, setting: Setting, seed: int) -> None:
    """Hide drawn weights, which learn, under masks of ones: for methods that prune while they train.

    section: one with `exclude`.
    """
    dense, number = dense_names(model, setting, section.exclude), numbers(model)
    draw_weights(model, section, seed)
    hide(
        model,
        source=lambda name, _: Stored(trainable=True, layer=number[name]),
        rule=lambda _, module: Fixed(torch.ones_like(module.weight, dtype=torch.bool)),
        exclude=dense,
    )
    learn(model)


Densities = Literal["uniform", "erk"]
DENSITIES = Field(
    "uniform",
    description="of the layers: all as density says, or erk: larger layers less, in proportion to the sum of their "
    "dimensions over the product, together density",
)


def layer_densities(how: Densities, shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """The kept fraction of each layer, by name, so that all together keep `density`.

    erk: layer l keeps e (sum of its dimensions) / (their product), e such that the whole is met; a layer that would
    keep more than all is kept whole and the others share what is left. Mocanu et al. 2018 (arXiv 1707.04780) for linear
    layers; Evci et al. 2020 (arXiv 1911.11134), section 3, for kernels.

    shapes: of the weights, [out, in, *kernel].
    """
    if how == "uniform":
        return dict.fromkeys(shapes, density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    whole: set[str] = set()
    while True:
        rest = {name: sum(shapes[name]) / size for name, size in sizes.items() if name not in whole}
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in whole)
        factor = budget / sum(share * sizes[name] for name, share in rest.items()) if rest else 0.0
        full = {name for name, share in rest.items() if factor * share > 1.0}
        if not full:
            return {name: 1.0 if name in whole else factor * rest[name] for name in shapes}
        whole |= full


def layer_counts(how: Densities, shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, int]:
    """How many weights of each layer are kept."""
    found = layer_densities(how, shapes, density)
    return {name: kept_count(math.prod(shape), found[name]) for name, shape in shapes.items()}
