"""What concerns all hidden layers of a model at once: selection in one call, masks, density."""

from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hiddennet.nn import ahead
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.memo import check_no_transform
from hiddennet.nn.wiring import Wiring


def hidden_layers(model: nn.Module) -> dict[str, HiddenMixin]:
    """The hidden layers of a model by name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, HiddenMixin)}


def hides(model: nn.Module) -> bool:
    """Whether a model has hidden layers or wirings: anything that can keep less than all of its weights."""
    return any(isinstance(module, (HiddenMixin, Wiring)) for module in model.modules())


def _layers(model: nn.Module) -> list[HiddenMixin]:
    return [module for module in model.modules() if isinstance(module, HiddenMixin)]


@torch.no_grad()
def _select(layers: list[HiddenMixin]) -> None:
    groups: dict[Hashable, list[HiddenMixin]] = defaultdict(list)
    for layer in layers:
        check_no_transform(layer, selecting=True)
        device = layer.selection.device
        if device.type != "meta":
            groups[device, layer.rule.group(layer)].append(layer)
    for members in groups.values():
        for layer, mask in zip(members, members[0].rule.select(members), strict=True):
            layer.keep_selected(mask)


def select(model: nn.Module) -> None:
    """Select for every layer whose rule compares scores, a call a kind. hide() has the model do so at each forward."""
    _select([layer for layer in _layers(model) if layer.rule.selects])


def refresh(model: nn.Module) -> None:
    """Forget all that layers and wirings made of scores and weights: after writing behind autograd's back (`.data`) or
    replaying a graph."""
    for module in model.modules():
        if isinstance(module, (HiddenMixin, Wiring)):
            module.forget()


def begin_pass(model: nn.Module, _inputs: object = None) -> None:
    """Forward pre-hook of hide(): select at each training forward, and in evaluation when scores moved."""
    layers = _layers(model)
    selecting = [layer for layer in layers if layer.rule.selects]
    for layer in selecting:
        if layer.training or not layer.is_selected():
            _select(selecting)
            break
    for layer in layers:
        layer._in_pass, layer._ahead = True, None
    if layers and layers[0].selection.device.type in ahead.DEVICES:
        ahead.begin(layers)


def end_pass(model: nn.Module, _inputs: object = None, _output: object = None) -> None:
    """Forward hook of hide(): what comes after, such as a call of a part alone, selects for itself."""
    for module in model.modules():
        if isinstance(module, HiddenMixin):
            module._in_pass = False
            if module._ahead is not None:
                ahead.end(module)
            if module._read:  # its weight was read, by attention for one, in place of a forward of its own
                module.end_forward()


HOOKS = (begin_pass, end_pass)  # what hide() registers on a model


@contextmanager
def in_pass(model: nn.Module) -> Iterator[None]:
    begin_pass(model)
    try:
        yield
    finally:
        end_pass(model)
