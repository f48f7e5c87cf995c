"""Hidden layers as the plain ones that they were, with their effective weights; and batch norms folded into the
convolutions and linear layers whose output they alone read."""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

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
        for name in ("psg", "input_signed"):
            module.__dict__.pop(name, None)
    made = module.__dict__.get("architecture")
    if isinstance(made, dict) and made.keys() == _ARCHITECTURE:
        del module.architecture


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FOLDED_INTO = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)

Pair = tuple[str, str]  # names of a layer and of the batch norm after it


def fold_batch_norms(model: nn.Module) -> None:
    """Fold, in place, each batch norm whose layer is known and is used for it alone; identities stand for them.

    A warning names the batch norms that stay.
    """
    untraced = ""
    try:
        graph = fx.Tracer().trace(model)
        pairs = list(_in_graph(graph, model))
    except Exception as error:  # as in trace.py
        untraced = f"; torch.fx cannot trace the model ({str(error).strip().partition(chr(10))[0]:.120})"
        pairs = list(_in_sequences(model))
    shared = _shared_tensors(model)
    for layer_name, norm_name in pairs:
        layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
        if _fits(layer, norm) and not any(id(t) in shared for m in (layer, norm) for t in m.parameters()):
            fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
            turned = {"transpose": True} if isinstance(layer, _TRANSPOSED) else {}
            _put(model, layer_name, fuse(layer, norm, **turned))
            _put(model, norm_name, nn.Identity())
    left = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if left:
        more = f" and {len(left) - 6} more" if len(left) > 6 else ""
        warnings.warn(
            f"plain: {len(left)} batch norms are not folded, as no layer is known that is theirs alone: "
            f"{', '.join(left[:6])}{more}{untraced}",
            stacklevel=4,
        )


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in (layer, norm))
    if type(layer) not in _FOLDED_INTO or type(norm) not in _NORMS or hooks or norm.running_var is None:
        return False
    width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return width == norm.num_features and all(
        name in m._parameters for m in (layer, norm) for name in ("weight", "bias")
    )


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module.eval())


def _shared_tensors(model: nn.Module) -> set[int]:
    """Parameters that more than one place has."""
    counts = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    return {key for key, count in counts.items() if count > 1}


def _standing_once(model: nn.Module) -> set[str]:
    """Names of modules that stand in one place."""
    named = list(model.named_modules(remove_duplicate=False))
    counts = Counter(id(module) for _, module in named)
    return {name for name, module in named if counts[id(module)] == 1}


def _in_graph(graph: fx.Graph, model: nn.Module) -> Iterator[Pair]:
    """Layers that are called once, whose output goes to a batch norm, that is called once, and nowhere else."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    read = {node.target for node in graph.nodes if node.op == "get_attr"}
    once = {name for name, count in calls.items() if count == 1} & _standing_once(model)
    once -= {name.rpartition(".")[0] for name in read}
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        if {node.target, source.target} <= once:
            yield source.target, node.target


def _in_sequences(model: nn.Module) -> Iterator[Pair]:
    once = _standing_once(model)
    for name, module in model.named_modules():
        if type(module) is nn.Sequential:
            for pair in pairwise(f"{name}.{key}".lstrip(".") for key in module._modules):
                if set(pair) <= once:
                    yield pair
