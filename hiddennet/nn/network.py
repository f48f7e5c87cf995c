"""What concerns all hidden layers of a model at once: selection in one call, masks, density."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.rules import TopK, select_rows
from hiddennet.nn.wiring import Wiring, wirings


def hidden_layers(model: nn.Module) -> dict[str, HiddenMixin]:
    """The hidden layers of a model by name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, HiddenMixin)}


def hides(model: nn.Module) -> bool:
    """Whether a model has hidden layers or wirings: anything that can keep less than all of its weights."""
    return any(isinstance(module, (HiddenMixin, Wiring)) for module in model.modules())


def _groups(layers: list[HiddenMixin]) -> list[list[HiddenMixin]]:
    """Layers that one call can serve: of one device, kind, order and scope (one rule, where the ranking is global)."""
    groups: dict[tuple, list[HiddenMixin]] = defaultdict(list)
    for layer in layers:
        rule = layer.rule
        whole = rule if rule.scope == "global" else None
        groups[(layer.ranked.device, type(rule), rule.by, rule.scope, whole)].append(layer)
    return list(groups.values())


def _select_group(layers: list[HiddenMixin]) -> None:
    rules = [layer.rule for layer in layers]
    hint = torch.stack([layer.selection for layer in layers])
    rows = select_rows([layer.ranked for layer in layers], rules[:1] if rules[0].scope == "global" else rules, hint)
    for layer, row in zip(layers, rows.unbind(0), strict=True):
        layer.keep_selection(row)


def select(model: nn.Module) -> None:
    """Select for every TopK layer of the model, all layers in one call. hide() has the model do so at each forward."""
    layers = [layer for layer in hidden_layers(model).values() if isinstance(layer.rule, TopK)]
    if not layers or layers[0].ranked.device.type == "meta":
        return
    for group in _groups(layers):
        _select_group(group)


def refresh(model: nn.Module) -> None:
    """Forget all cached selections: after writing scores behind autograd's back (`.data`) or replaying a graph."""
    for layer in hidden_layers(model).values():
        layer.forget_selection()


def select_before_forward(model: nn.Module, _inputs) -> None:
    """Forward pre-hook of hide(): select at each training forward, and in evaluation when scores moved."""
    layers = [m for m in model.modules() if isinstance(m, HiddenMixin) and isinstance(m.rule, TopK)]
    if any(layer.training or not layer.selection_is_current() for layer in layers):
        select(model)


def density(model: nn.Module) -> float:
    """The revealed fraction of all hidden layers' weights (for sampled layers the expected one) and of all positions
    of wirings, usable or not."""
    layers, graphs = hidden_layers(model).values(), wirings(model).values()
    total = sum(layer.weight_shape.numel() for layer in layers) + sum(graph.weight.numel() for graph in graphs)
    if total == 0:
        raise ValueError(
            f"density: expected a model with hidden layers or wirings, got {type(model).__name__} without any; hide() "
            "it first, or ask for that of the network it was made from (a compact one has neither)"
        )
    _ensure_selected(model)
    return (sum(layer.kept() for layer in layers) + sum(graph.edges for graph in graphs)) / total


def masks(model: nn.Module) -> dict[str, Tensor]:
    """What each hidden layer and each wiring reveals: name -> bool of the weight's shape."""
    _ensure_selected(model)
    found = {name: layer.mask() for name, layer in hidden_layers(model).items()}
    return found | {name: wiring.mask() for name, wiring in wirings(model).items()}


def _ensure_selected(model: nn.Module) -> None:
    layers = [layer for layer in hidden_layers(model).values() if isinstance(layer.rule, TopK)]
    if not all(layer.selection_is_current() for layer in layers):
        select(model)
