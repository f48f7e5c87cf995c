"""Batch norms folded into the convolutions and linear layers whose output they alone read."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

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
            _put(model, layer_name, _fused(layer, norm))
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


def _fused(layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, _TRANSPOSED))


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
