"""Hidden layers: torch's layers, whose weight is made of a source and a rule at each forward."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hidden_state import ScoreInit
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
        made = None
        if self._ahead is not None and (self.kernel_size != (1, 1) or max(x.shape[2:]) > 1):  # else a matrix product
            made = self.made_ahead(x)
        if made is not None:
            try:
                bias = self._parameters["bias"]  # past Module.__getattr__, which takes longer than all else here
            except KeyError:  # made of other tensors
                bias = self.bias
            y = F.conv2d(x, made, bias, self.stride, padding, self.dilation, self.groups)
            self.end_forward()
            return y
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
        made = None if self._ahead is None else self.made_ahead(x)
        if made is not None:
            y = F.linear(x, made, self.bias)
            self.end_forward()
            return y
        weight = self.masked_weight()
        if not self.training:
            weight = kept_weight(self, weight, compute_dtype(None, x))
        if self.psg is not None and self.training and torch.is_grad_enabled():
            y = hidden_linear(x, weight, self.bias, self.psg, self.input_signed)
        else:
            y = linear(x, weight, self.bias)
        self.end_forward()
        return y


HiddenConv2d.plain, HiddenLinear.plain = nn.Conv2d, nn.Linear
