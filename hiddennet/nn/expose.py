"""expose: turn hidden layers back into plain ones; the way back from hide()."""

from collections.abc import Mapping

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


# later than become_hidden
_LATER = ("psg", "input_signed", "plan", "_forward_dtype", "_ahead", "_asked", "_standing", "_rule_selected", "_ours")


def expose(model: nn.Module, weights: Mapping[str, nn.Parameter] | None = None) -> None:
    """Turn all hidden layers into plain ones, in place, which have nothing left of hiding.

    weights: the layers' parameters by name; None: ones of undefined values.
    """
    for name, layer in hidden_layers(model).items():
        shape, device = layer.weight_shape, layer.selection.device
        _expose(layer, nn.Parameter(torch.empty(shape, device=device)) if weights is None else weights[name])
    close_attention(model)


def _expose(layer: HiddenMixin, weight: nn.Parameter) -> None:
    plain = layer.plain
    for name in {*layer._buffers, *layer._parameters} - layer.plain_names:
        delattr(layer, name)
    for name in (*layer._ours, *_LATER):
        layer.__dict__.pop(name, None)
    layer.__class__ = plain
    layer.weight = weight
