"""hide: train what a pruner left: the masked layers become hidden ones of fixed masks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from hiddennet import nn as hidden
from hiddennet.nn.layers import hideable


def hide(model: nn.Module, masks: Mapping[str, Tensor], *, trainable: bool = True) -> nn.Module:
    """Put hidden layers of fixed masks in the place of those that prune() masked, in place; return the model.

    The weights stay as they are; any optimiser then trains the kept ones, and the others stay out for good.

    >>> masks = prune(model, "synflow", 0.3, iterations=100, input_shape=(3, 32, 32))
    >>> optimizer = torch.optim.SGD(hide(model, masks).parameters(), lr=0.1, momentum=0.9)

    Args:
        model: the pruned model. masks: of its Conv2d and Linear weights, as prune() returns them.
        trainable: False freezes the weights.

    Raises:
        ValueError: a mask of something else: a bias, a layer of another kind or one that is hidden already.
    """
    layers = {}
    for name, mask in masks.items():
        layer_name, _, kind = name.rpartition(".")
        module = dict(model.named_modules()).get(layer_name)
        if kind != "weight" or module is None or not hideable(module):
            got = "none" if module is None else f"{kind} of {type(module).__name__}"
            raise ValueError(
                f"pruning.hide: expected {name} to be the weight of a plain layer that hide() takes, got {got}; "
                "exclude the layer from the pruning"
            )
        layers[layer_name] = mask
    return hidden.hide(
        model,
        source=hidden.Stored(trainable=trainable),
        rule=lambda name, _: hidden.Fixed(layers[name]),
        include=lambda name, _: name in layers,
    )
