"""What concerns all hidden layers of a model at once: selection in one call, masks, density."""

from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch._C._functorch import peek_interpreter_stack

from hiddennet.nn import ahead
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.memo import check_no_transform, keep_all
from hiddennet.nn.wiring import Wiring


def hidden_layers(model: nn.Module) -> dict[str, HiddenMixin]:
    """The hidden layers of a model by name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, HiddenMixin)}


def hides(model: nn.Module) -> bool:
    """Whether a model has hidden layers or wirings: anything that can keep less than all of its weights."""
    return any(isinstance(module, (HiddenMixin, Wiring)) for module in model.modules())


_passing: WeakKeyDictionary[nn.Module, list[HiddenMixin]] = WeakKeyDictionary()  # in a forward: their layers


def _layers(model: nn.Module) -> list[HiddenMixin]:
    """As model.modules() has them, in a tenth of its time."""
    if torch.compiler.is_compiling():
        return [module for module in model.modules() if isinstance(module, HiddenMixin)]
    found, seen, waiting = [], set(), [model]
    while waiting:
        module = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        if isinstance(module, HiddenMixin):
            found.append(module)
        if module._modules:
            waiting.extend(reversed(module._modules.values()))
    return found


@torch.no_grad()
def _select(layers: list[HiddenMixin]) -> None:
    groups: dict[Hashable, list[HiddenMixin]] = defaultdict(list)
    transformed = peek_interpreter_stack() is not None
    for layer in layers:
        if transformed:
            check_no_transform(layer, selecting=True)
        device = layer.selection.device
        if device.type != "meta":
            groups[device, layer.rule.group(layer)].append(layer)
    for members in groups.values():
        masks, ranked = members[0].rule.select(members), [(layer.rule.ranked(layer),) for layer in members]
        keep_all([layer._selected for layer in members], masks, ranked)
        for layer in members:
            layer.__dict__["_rule_selected"] = layer.rule


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
    compiling = torch.compiler.is_compiling()
    known = None if compiling else ahead.standing.get(model)
    known = None if known is None else known()
    if known is not None and known.begin(model):
        _passing[model] = known.layers
        return
    layers = _layers(model)
    if not compiling:
        _passing[model] = layers
    selecting, selected = [layer for layer in layers if layer.rule.selects], False
    for layer in selecting:
        if layer.training or not layer.is_selected():
            _select(selecting)
            selected = True
            break
    for layer in layers:
        state = layer.__dict__  # past nn.Module's own way to set attributes, which looks for parameters first
        state["_in_pass"], state["_ahead"] = True, None
    if layers and layers[0].selection.device.type in ahead.DEVICES:
        ahead.begin(model, layers, selected)


def end_pass(model: nn.Module, _inputs: object = None, _output: object = None) -> None:
    """Forward hook of hide(): what comes after, such as a call of a part alone, selects for itself."""
    layers = None if torch.compiler.is_compiling() else _passing.pop(model, None)
    for layer in _layers(model) if layers is None else layers:
        state = layer.__dict__
        state["_in_pass"] = False
        if layer._ahead is not None:
            ahead.end(state)
        if layer._read:  # its weight was read, by attention for one, in place of a forward of its own
            layer.end_forward()


HOOKS = (begin_pass, end_pass)  # what hide() registers on a model


@contextmanager
def in_pass(model: nn.Module) -> Iterator[None]:
    begin_pass(model)
    try:
        yield
    finally:
        end_pass(model)
