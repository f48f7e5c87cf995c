"""Modules of this package's classes as torch.fx.GraphModules of torch's layers."""

from torch import fx, nn

from hiddennet.models.dnw import ContinuousGraph
from hiddennet.nn.wiring import Wiring
from hiddennet.ordinary.graphs import ORDINARY

_PACKAGE = __name__.partition(".")[0] + "."
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def without_ours(model: nn.Module) -> nn.Module:
    """The model, in place but for modules of this package's classes, for which others stand.

    A network of hiddennet.models that torch.fx cannot trace (the LSTM, which carries a state) keeps its class.

    Raises ValueError for what no ordinary layers compute.
    """
    return _replaced(model, {}, "", within=False)


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_PACKAGE)


def _is_transparent(module: nn.Module) -> bool:
    """Whether a trace sees what is called within: modules of ours, and sequences that hold some."""
    return _is_ours(module) or (type(module) is nn.Sequential and any(_is_ours(m) for m in module.modules()))


def _replaced(module: nn.Module, done: dict[int, nn.Module], name: str, *, within: bool) -> nn.Module:
    """What stands for a module. within: what holds it is going to be traced, and it with that."""
    if id(module) in done:
        return done[id(module)]
    _check(module, name)
    make, seen = ORDINARY.get(type(module)), _is_transparent(module)
    if make is None or not any(isinstance(child, Wiring) for child in module.children()):  # else it reads them itself
        for key, child in module._modules.items():
            if child is not None:
                module._modules[key] = _replaced(child, done, f"{name}.{key}".lstrip("."), within=seen)
    made = module if make is None else make(module)
    if _is_ours(made) and (make is not None or not within):
        made = _traced(made, module)
    done[id(module)] = made
    return made


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not _is_transparent(m)


def _traced(module: nn.Module, original: nn.Module) -> nn.Module:
    tracer = _Tracer()
    try:
        graph = tracer.trace(module.eval())
    except Exception:  # a forward of Python that decides by values or keeps a state is refused with many types
        return module
    graph._tracer_cls = None  # which a pickle would name
    made = fx.GraphModule(tracer.root, graph, type(original).__name__)
    for hooks in _HOOKS:
        setattr(made, hooks, getattr(original, hooks))
    return made


def _check(module: nn.Module, name: str) -> None:
    where = f" {name}" if name else ""
    if isinstance(module, ContinuousGraph):
        raise ValueError(
            f"plain: expected a network of a fixed number of layers, got{where} a ContinuousGraph, whose steps depend "
            "on what comes in; export it as an artifact, or find a StaticGraph or DiscreteGraph instead"
        )
    if isinstance(module, tuple(ORDINARY)) and type(module) not in ORDINARY:
        raise ValueError(
            f"plain: expected {' or '.join(kind.__name__ for kind in ORDINARY if isinstance(module, kind))} itself, "
            f"got{where} a {type(module).__name__}, a subclass whose forward is its own; write it with ordinary layers "
            "of its wirings' eval_weight()"
        )
