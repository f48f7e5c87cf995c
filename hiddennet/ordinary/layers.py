"""Hidden layers as the plain ones that they were, with their effective weights."""

from __future__ import annotations

import warnings
from dataclasses import fields

import torch
from torch import Tensor, nn

from hiddennet.models.registry import Options
from hiddennet.nn.expose import expose
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.network import HOOKS, hidden_layers, in_pass
from hiddennet.nn.psg import PSGConv2d, PSGLinear

_ARCHITECTURE = {one.name for one in fields(Options)}


def expose_layers(model: nn.Module) -> None:
    """Turn the hidden layers of a model in evaluation mode into plain ones of their effective weights, in place; and
    take from all modules what this package gave them."""
    layers = hidden_layers(model)
    with in_pass(model):
        weights = {name: layer.effective_weight() for name, layer in layers.items()}
    dtypes = {name: _dtype(layer, model) for name, layer in layers.items()}
    parameters = _shared(model, {name: weight.to(dtypes[name]) for name, weight in weights.items()})
    expose(model, parameters)
    for module in model.modules():
        _tidy(module)


def _dtype(layer: HiddenMixin, model: nn.Module) -> torch.dtype:
    """That of the layer's own bias and the like; else that which all other parameters have; else float32."""
    own = [layer._parameters.get(name, layer._buffers.get(name)) for name in layer.plain_names]
    dtypes = {t.dtype for t in own if t is not None and t.is_floating_point()}
    if not dtypes:
        others = (m for m in model.modules() if not isinstance(m, HiddenMixin))
        dtypes = {p.dtype for m in others for p in m.parameters(recurse=False) if p.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def _shared(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    """A Parameter for each hidden layer: one for those whose stored weights are tied, to each other or to other
    modules', as long as what is left of them by their masks is the same."""
    dense = {id(p): p for m in model.modules() if not isinstance(m, HiddenMixin) for p in m.parameters(recurse=False)}
    layers, made, tied = hidden_layers(model), {}, {}
    for name, weight in weights.items():
        stored = layers[name].stored
        if stored is None:
            made[name] = nn.Parameter(weight)
            continue
        known = tied.setdefault(id(stored), [dense[id(stored)]] if id(stored) in dense else [])
        found = next((p for p in known if p.dtype == weight.dtype and torch.equal(p, weight)), None)
        if found is None:
            known.append(found := nn.Parameter(weight))
        made[name] = found
    parted = {key for key, known in tied.items() if len(known) > 1}
    if parted:
        names = [name for name in weights if id(layers[name].stored) in parted]
        warnings.warn(
            f"plain: a tied weight is no longer one where different masks leave different weights of it: "
            f"{', '.join(names)}",
            stacklevel=4,
        )
    return made


def _tidy(module: nn.Module) -> None:
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook in HOOKS]:
            del hooks[key]
    if isinstance(module, (PSGConv2d, PSGLinear)):
        module.__class__ = nn.Conv2d if isinstance(module, PSGConv2d) else nn.Linear
        _forget(module, ("psg", "input_signed"))
    made = module.__dict__.get("architecture")
    if isinstance(made, dict) and made.keys() == _ARCHITECTURE:
        del module.architecture


def _forget(module: nn.Module, names: tuple[str, ...]) -> None:
    for name in names:
        module.__dict__.pop(name, None)
