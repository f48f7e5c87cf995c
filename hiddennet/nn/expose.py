"""expose: put plain layers back in the place of hidden ones; the way back from hide()."""

from __future__ import annotations

from torch import nn
from torch.overrides import TorchFunctionMode

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import hidden_layers


class undrawn(TorchFunctionMode):
    """Within it, new layers' weights are left as the memory was: they are about to be replaced."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def expose(model: nn.Module) -> None:
    """Put plain layers, of undefined weights, in the place of all hidden ones."""
    plain = {id(layer): _plain(layer) for layer in hidden_layers(model).values()}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # a layer may stand in two places
            if id(child) in plain:
                parent._modules[name] = plain[id(child)]


def _plain(layer: HiddenMixin) -> nn.Conv2d | nn.Linear:
    """A torch layer of the hidden layer's geometry and bias, on its device."""
    device = layer.selection.device
    with undrawn():
        if isinstance(layer, nn.Linear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device=device)
        else:
            plain = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
                bias=False,
                padding_mode=layer.padding_mode,
                device=device,
            )
    plain.bias = layer.bias
    return plain.train(layer.training)
