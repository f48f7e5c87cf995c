"""HiddenConv2d and HiddenLinear: torch's layers, whose weight is made of a source and a rule at each forward."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.rules import Rule, TopK
from hiddennet.nn.sources import Generated, Stored
from hiddennet.ops.checks import check_choice
from hiddennet.ops.masked_conv import PLANS, conv2d, linear
from hiddennet.ops.psg import hidden_conv2d, hidden_linear


class HiddenConv2d(HiddenMixin, nn.Conv2d):
    """torch.nn.Conv2d whose weight is source x rule(scores).

    Args:
        source: Generated or Stored. rule: TopK, Threshold, Sampled, Fixed or All.
        score_init: "kaiming_uniform" (U(+-1/sqrt(fan_in)), torch's generator) or a constant.
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
        source: Generated | Stored | None = None,
        rule: Rule | None = None,
        score_init: str | float = "kaiming_uniform",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device
        )
        if isinstance(source, Stored) and source.weight is None:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._setup(tuple(self.weight.shape), source or Generated(), rule or TopK(0.5), score_init)
        self._reset_bias()

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        if self.plan is not None:
            check_choice("HiddenConv2d", "plan", self.plan, tuple(PLANS))
        parts = (self._scores_for_ops(), self.rule_state(), self.source_state(), self.bias)
        numbers = (self.stride, padding, self.dilation, self.groups)
        if self.psg is not None and self.training and torch.is_grad_enabled():
            y = hidden_conv2d(x, *parts, numbers, self.psg, self.input_signed)
        else:
            y = conv2d(x, *parts, *numbers, self.plan)
        self._after_forward()
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self._describe()}"


class HiddenLinear(HiddenMixin, nn.Linear):
    """torch.nn.Linear whose weight is source x rule(scores). Arguments as in HiddenConv2d; the default is no bias."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device=None,
        *,
        source: Generated | Stored | None = None,
        rule: Rule | None = None,
        score_init: str | float = "kaiming_uniform",
    ) -> None:
        super().__init__(in_features, out_features, bias, device)
        if isinstance(source, Stored) and source.weight is None:
            nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._setup(tuple(self.weight.shape), source or Generated(), rule or TopK(0.5), score_init)
        self._reset_bias()

    def forward(self, x: Tensor) -> Tensor:
        parts = (self._scores_for_ops(), self.rule_state(), self.source_state(), self.bias)
        if self.psg is not None and self.training and torch.is_grad_enabled():
            y = hidden_linear(x, *parts, self.psg, self.input_signed)
        else:
            y = linear(x, *parts)
        self._after_forward()
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self._describe()}"
