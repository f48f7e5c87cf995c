"""expose: turn hidden layers back into plain ones; the way back from hide()."""

from __future__ import annotations

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hiddennet.nn.attention import close_attention
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import hidden_layers


class skip_init(TorchFunctionMode):
    """Within it, new layers' weights are left as the memory was: they are about to be replaced."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def expose(model: nn.Module) -> None:
    """Turn all hidden layers into plain ones of undefined weights, in place."""
    for layer in hidden_layers(model).values():
        _expose(layer)
    close_attention(model)


def _expose(layer: HiddenMixin) -> None:
    device, shape = layer.selection.device, layer.weight_shape
    for name in {*layer._buffers, *layer._parameters} - layer.plain_names:
        delattr(layer, name)
    plain = layer.plain
    for name in ("source", "rule", "scaled", "weight_shape", "plain_names", "psg", "input_signed", "plan", "_sealed"):
        layer.__dict__.pop(name, None)
    layer.__class__ = plain
    layer.weight = nn.Parameter(torch.empty(shape, device=device))
