"""Hidden layers: torch's layers, whose weight is made of a source and a rule at each forward."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from hiddennet.nn.hidden import HiddenMixin, ScoreInit
from hiddennet.nn.kept import kept_weight
from hiddennet.nn.rule import Rule
from hiddennet.nn.rules import TopK
from hiddennet.nn.source import Source
from hiddennet.nn.sources import Generated
from hiddennet.ops.masked_conv import compute_dtype, conv2d, linear
from hiddennet.ops.psg import hidden_conv2d, hidden_linear


class HiddenConv2d(HiddenMixin, nn.Conv2d):
    """torch.nn.Conv2d whose weight is source x rule(scores).

    Args:
        source: a hiddennet.nn.Source; Generated() by default. rule: a hiddennet.nn.Rule; TopK(0.5) by default.
        score_init: "kaiming_uniform" (U(+-1/sqrt(fan_in)), torch's generator), a constant, or a function that fills.
        The others are torch.nn.Conv2d's; the default is no bias, as in the papers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        device=None,
        *,
        source: Source | None = None,
        rule: Rule | None = None,
        score_init: ScoreInit = "kaiming_uniform",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device
        )
        self.become_hidden(source or Generated(), rule or TopK(0.5), score_init, fresh=True)
        self._reset_bias()

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0, 0)
        weight, numbers = self.masked_weight(), (self.stride, padding, self.dilation, self.groups)
        if not self.training:
            weight = kept_weight(self, weight, compute_dtype(None, x))
        if self.psg is not None and self.training and torch.is_grad_enabled():
            y = hidden_conv2d(x, weight, self.bias, numbers, self.psg, self.input_signed)
        else:
            y = conv2d(x, weight, self.bias, *numbers, self.plan)
        self.end_forward()
        return y


class HiddenLinear(HiddenMixin, nn.Linear):
    """torch.nn.Linear whose weight is source x rule(scores). Arguments as in HiddenConv2d; the default is no bias."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device=None,
        *,
        source: Source | None = None,
        rule: Rule | None = None,
        score_init: ScoreInit = "kaiming_uniform",
    ) -> None:
        super().__init__(in_features, out_features, bias, device)
        self.become_hidden(source or Generated(), rule or TopK(0.5), score_init, fresh=True)
        self._reset_bias()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.masked_weight()
        if not self.training:
            weight = kept_weight(self, weight, compute_dtype(None, x))
        if self.psg is not None and self.training and torch.is_grad_enabled():
            y = hidden_linear(x, weight, self.bias, self.psg, self.input_signed)
        else:
            y = linear(x, weight, self.bias)
        self.end_forward()
        return y


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


HiddenConv2d.plain, HiddenLinear.plain = nn.Conv2d, nn.Linear
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
