"""psg: let the layers of any model learn by PSG's gradient; PSGConv2d and PSGLinear are what plain layers become."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hide import Filter, check_patterns, chosen_by, matches
from hiddennet.ops.code_gradient import PSGConfig
from hiddennet.ops.psg import psg_conv2d, psg_linear


class _PSGState:
    """Attributes of a layer in training; of no state dict."""

    psg: PSGConfig | None = None
    input_signed: bool = False
    training: bool


class PSGConv2d(_PSGState, nn.Conv2d):
    """torch.nn.Conv2d whose weight gets PSG's gradient in training; set `psg` to a PSGConfig (None: the exact one)."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.psg is None or not self.training:
            return super()._conv_forward(x, weight, bias)
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        numbers = (self.stride, padding, self.dilation, self.groups)
        return psg_conv2d(x, weight, bias, *numbers, config=self.psg, input_signed=self.input_signed)


class PSGLinear(_PSGState, nn.Linear):
    """torch.nn.Linear whose weight gets PSG's gradient in training; set `psg` to a PSGConfig (None: the exact one)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.psg is None or not self.training:
            return super().forward(x)
        return psg_linear(x, self.weight, self.bias, config=self.psg, input_signed=self.input_signed)


_PLAIN = {nn.Conv2d: PSGConv2d, nn.Linear: PSGLinear}


@torch.no_grad()
def _with_negative_inputs(model: nn.Module, layers: dict[str, nn.Module], example: Any) -> set[str]:
    """The layers whose input has a negative value in one forward pass, in evaluation mode."""
    least: dict[str, Tensor] = {}

    def look(name: str):
        def hook(module, inputs, named) -> None:
            x = (inputs[0] if inputs else named["input"]).detach()
            low = x.amin() if x.numel() else x.new_zeros(())
            least[name] = torch.minimum(least[name], low) if name in least else low

        return hook

    modes = {m: m.training for m in model.modules()}
    hooks = [layer.register_forward_pre_hook(look(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        model.eval()
        model(*(example if isinstance(example, (tuple, list)) else (example,)))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    unseen = [name for name in layers if name not in least]
    if unseen:
        raise ValueError(f"psg: expected the example to pass every layer, got none for {', '.join(unseen)}")
    return {name for name, low in least.items() if bool(low < 0)}


def _signed_names(model, layers: dict[str, nn.Module], signed: str | Iterable[str], example: Any) -> set[str]:
    if example is not None:
        if signed != "first":
            raise ValueError(f"psg: expected signed or an example, got both; leave out signed={signed!r}")
        return _with_negative_inputs(model, layers, example)
    if signed == "first" and "first" not in layers:
        convolutions = [name for name, layer in layers.items() if isinstance(layer, nn.Conv2d)]
        return set((convolutions or list(layers))[:1])
    check_patterns("psg", signed, "signed", list(layers))
    return {name for name, layer in layers.items() if matches(signed, name, layer)}


def psg(
    model: nn.Module,
    config: PSGConfig,
    *,
    signed: str | Iterable[str] = "first",
    example: Tensor | tuple | None = None,
    include: Filter = None,
    exclude: Filter = None,
) -> nn.Module:
    """Let the model's convolutions and linear layers learn by PSG's gradient, in place, and return the model.

    A plain Conv2d or Linear becomes a PSGConv2d or PSGLinear, keeping its parameters, hooks and place (as hide makes
    other classes of plain layers, hide first); hidden layers keep their class. State dicts do not change. Other
    subclasses are left alone. Calling it again sets `psg` and `input_signed` of the chosen layers anew; a layer's
    `psg = None` switches it off.

    Args:
        model: any nn.Module, or a single layer.
        config: see hiddennet.ops.PSGConfig.
        signed: whose inputs have negative values: "first" (the first convolution in module order, of those found: the
            one that sees the images; where there is none, the first layer), or names or glob patterns of layers.
        example: a batch (a tuple: several arguments) for one forward pass in evaluation mode, by which signed inputs
            are found, in place of `signed`.
        include, exclude: as in hide.

    Raises:
        ValueError: nothing found, a pattern that meets no layer. TypeError: no module, no config.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"psg: expected model to be an nn.Module, got {type(model).__name__}")
    if not isinstance(config, PSGConfig):
        raise TypeError(f"psg: expected config to be a PSGConfig, got {type(config).__name__}")
    known = (PSGConv2d, PSGLinear, HiddenMixin)
    found = {name: m for name, m in model.named_modules() if type(m) in _PLAIN or isinstance(m, known)}
    check_patterns("psg", include, "include", list(found))
    check_patterns("psg", exclude, "exclude", list(found))
    signed_names = _signed_names(model, found, signed, example)
    chosen = {name: module for name, module in found.items() if chosen_by(include, exclude, name, module)}
    if not chosen:
        raise ValueError(f"psg: expected layers to change, got none of {len(found)} convolutions and linear layers")
    for name, layer in chosen.items():
        layer.__class__ = _PLAIN.get(type(layer), type(layer))
        layer.psg = config
        layer.input_signed = name in signed_names
    return model
