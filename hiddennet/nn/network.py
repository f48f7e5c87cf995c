"""What concerns all hidden layers of a model at once: selection in one call, masks, density."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.wiring import Wiring, wirings


def hidden_layers(model: nn.Module) -> dict[str, HiddenMixin]:
    """The hidden layers of a model by name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, HiddenMixin)}


def hides(model: nn.Module) -> bool:
    """Whether a model has hidden layers or wirings: anything that can keep less than all of its weights."""
    return any(isinstance(module, (HiddenMixin, Wiring)) for module in model.modules())


def _selecting(model: nn.Module) -> list[HiddenMixin]:
    found = []
    for module in model.modules():
        if isinstance(module, HiddenMixin) and module.rule.selects:
            found.append(module)
    return found


@torch.no_grad()
def _select(layers: list[HiddenMixin]) -> None:
    groups: dict[Hashable, list[HiddenMixin]] = defaultdict(list)
    for layer in layers:
        device = layer.selection.device
        if device.type != "meta":
            groups[device, layer.rule.group(layer)].append(layer)
    for members in groups.values():
        for layer, mask in zip(members, members[0].rule.select(members), strict=True):
            layer.keep_selected(mask)


def select(model: nn.Module) -> None:
    """Select for every layer whose rule compares scores, all layers of a kind in one call. hide() has the model do so
    at each forward."""
    _select(_selecting(model))


def refresh(model: nn.Module) -> None:
    """Forget all that layers and wirings made of scores and weights: after writing behind autograd's back (`.data`) or
    replaying a graph."""
    for module in model.modules():
        if isinstance(module, (HiddenMixin, Wiring)):
            module.forget()


def begin_pass(model: nn.Module, _inputs: object = None) -> None:
    """Forward pre-hook of hide(): select at each training forward, and in evaluation when scores moved."""
    layers = _selecting(model)
    for layer in layers:
        if layer.training or not layer.is_selected():
            _select(layers)
            break
    for layer in layers:
        layer._in_pass = True


def end_pass(model: nn.Module, _inputs: object = None, _output: object = None) -> None:
    """Forward hook of hide(): what comes after, such as a call of a part alone, selects for itself."""
    for layer in _selecting(model):
        layer._in_pass = False


HOOKS = (begin_pass, end_pass)  # what hide() registers on a model


def density(model: nn.Module) -> float:
    """The kept fraction of all hidden layers' weights (for sampled layers the expected one) and of all positions
    of wirings, usable or not."""
    layers, graphs = hidden_layers(model).values(), wirings(model).values()
    total = sum(layer.weight_shape.numel() for layer in layers) + sum(graph.weight.numel() for graph in graphs)
    if total == 0:
        raise ValueError(
            f"density: expected a model with hidden layers or wirings, got {type(model).__name__} without any; hide() "
            "it first, or ask for that of the network it was made from (a compact one has neither)"
        )
    with _in_pass(model):
        return (sum(layer.kept() for layer in layers) + sum(graph.edges for graph in graphs)) / total


def masks(model: nn.Module) -> dict[str, Tensor]:
    """What each hidden layer and each wiring keeps: name -> bool of the weight's shape."""
    with _in_pass(model):
        found = {name: layer.mask() for name, layer in hidden_layers(model).items()}
    return found | {name: wiring.mask() for name, wiring in wirings(model).items()}


@contextmanager
def _in_pass(model: nn.Module) -> Iterator[None]:
    begin_pass(model)
    try:
        yield
    finally:
        end_pass(model)
