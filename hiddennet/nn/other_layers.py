"""The hidden form of any layer: of torch's own ones, and of subclasses, whose own forward runs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.layers import HiddenConv2d, HiddenLinear
from hiddennet.ops.masked_conv import compute_dtype


class HiddenOther(HiddenMixin):
    """A layer of torch, or a subclass of one, whose own forward runs with the effective weight in place of its own:
    convolutions of other dimensions, transposed ones, those that pad or standardise (timm's). See hidden_class."""

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        self._forward_dtype = compute_dtype(type(self).__name__, x)
        try:
            y = super().forward(x, *args, **kwargs)
        finally:
            self._forward_dtype = None
        self.end_forward()
        return y

    def __reduce_ex__(self, _):
        return _rebuilt, (self.plain,), self.__getstate__()


def _rebuilt(plain: type[nn.Module]) -> HiddenOther:
    made = hidden_class(plain)
    return made.__new__(made)


_CLASSES: dict[type[nn.Module], type[HiddenMixin]] = {nn.Conv2d: HiddenConv2d, nn.Linear: HiddenLinear}
LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def hidden_class(plain: type[nn.Module]) -> type[HiddenMixin]:
    """The hidden form of a layer's class: of LAYERS, or a subclass of one."""
    if plain not in _CLASSES:
        _CLASSES[plain] = type(f"Hidden{plain.__name__}", (HiddenOther, plain), {"plain": plain})
    return _CLASSES[plain]


def hideable(module: nn.Module) -> bool:
    """Whether hide() can turn the module into a hidden layer: a plain one of LAYERS with a weight of its own.

    Not: hidden layers, layers that PSG trains, those that are still lazy, whose weight is made of other tensors
    (parametrized, weight-normed, pruned by torch) or is no tensor of real numbers (quantised), and those that say
    `never_hidden`.
    """
    if not isinstance(module, LAYERS) or isinstance(module, HiddenMixin) or hasattr(module, "psg"):
        return False
    weight = module._parameters.get("weight")
    own = weight is not None and not isinstance(weight, UninitializedParameter) and weight.is_floating_point()
    return own and not getattr(module, "never_hidden", False) and not parametrize.is_parametrized(module)
