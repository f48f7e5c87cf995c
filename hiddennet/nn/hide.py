"""hide: turn the convolutions and linear layers of any model into hidden layers, in place."""

import contextlib
import copy
import dataclasses
import fnmatch
import warnings
from collections.abc import Callable, Iterable, Iterator

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from hiddennet.nn.attention import close_attention, open_attention
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hidden_state import ScoreInit
from hiddennet.nn.network import begin_pass, end_pass, hidden_layers
from hiddennet.nn.other_layers import LAYERS, hidden_class, hideable
from hiddennet.nn.rule import Rule
from hiddennet.nn.rules import TopK
from hiddennet.nn.source import Source
from hiddennet.nn.sources import Generated
from hiddennet.nn.summary import dense_weights


@contextlib.contextmanager
def all_or_nothing(modules: Iterable[nn.Module]) -> Iterator[None]:
    """On an error within, the modules are of the class and have the attributes, parameters and `requires_grad` that
    they had; what their tensors hold is not put back."""
    held, modules = (dict, list, set), list(modules)
    before = [
        (module, type(module), {k: copy.copy(v) if isinstance(v, held) else v for k, v in vars(module).items()})
        for module in modules
    ]
    learned = [(p, p.requires_grad) for module in modules for p in module.parameters(recurse=False)]
    try:
        yield
    except BaseException:
        for module, kind, state in before:
            module.__class__, module.__dict__ = kind, state
        for parameter, requires_grad in learned:
            parameter.requires_grad_(requires_grad)
        raise


Filter = Iterable[str] | str | Callable[[str, nn.Module], bool] | None


def matches(which: Filter, name: str, module: nn.Module) -> bool:
    if callable(which):
        return bool(which(name, module))
    patterns = [which] if isinstance(which, str) else which
    return any(name == pattern or (_is_glob(pattern) and fnmatch.fnmatchcase(name, pattern)) for pattern in patterns)


def _is_glob(pattern: str) -> bool:
    return not {"*", "?", "["}.isdisjoint(pattern)


def chosen_by(include: Filter, exclude: Filter, name: str, module: nn.Module) -> bool:
    """Whether a layer is included, and not excluded."""
    wanted = include is None or matches(include, name, module)
    return wanted and not (exclude is not None and matches(exclude, name, module))


def check_patterns(op: str, which: Filter, role: str, names: list[str]) -> None:
    """A name or pattern that meets no layer is a mistake worth saying."""
    if which is None or callable(which):
        return
    for pattern in [which] if isinstance(which, str) else which:
        if not any(matches(pattern, name, None) for name in names):
            raise ValueError(
                f"{op}: expected {role} to name a convolution or linear layer, got {pattern!r}; "
                f"the layers are {', '.join(names) or 'none'}"
            )


def _convert(
    model: nn.Module, chosen: dict[str, nn.Module], parts: list[tuple[Source, Rule]], score_init: ScoreInit
) -> None:
    """Turn plain layers into hidden ones of these sources and rules, in place: all of them, or on an error none."""
    with all_or_nothing(chosen.values()):
        ties = _ties(model, chosen.values())
        for module, (source, rule) in zip(chosen.values(), parts, strict=True):
            module.__class__ = hidden_class(type(module))
            module.become_hidden(source, rule, score_init, fresh=False)
        for layer, (weight, others) in zip(chosen.values(), ties, strict=True):
            _check_tie(layer, weight, others)


def hide(
    model: nn.Module,
    source: Source | Callable[[str, nn.Module], Source] | None = None,
    rule: Rule | Callable[[str, nn.Module], Rule] | None = None,
    *,
    include: Filter = None,
    exclude: Filter = None,
    score_init: ScoreInit = "kaiming_uniform",
) -> nn.Module:
    """Turn the model's convolutions and linear layers into hidden ones, in place, and return the model.

    Hidden are convolutions of 1, 2 and 3 dimensions, transposed ones, linear layers and the projections of
    nn.MultiheadAttention; subclasses of them too, whose own forward runs with the effective weight. A layer stays the
    object it is, wherever it stands, with its bias and its hooks; on an error the model is as it was. Layers of other
    kinds stay dense: a warning names them, unless `exclude` does or `include` chooses. Layers are numbered in module
    order; a source without a layer number gets its layer's.

    Args:
        model: any nn.Module; a single Conv2d or Linear has no parent to be replaced in and is refused.
        source: Generated() by default, or a function (name, module) -> source.
        rule: TopK(0.5) by default, or a function (name, module) -> rule.
        include, exclude: names or glob patterns of layers, or a predicate (name, module) -> bool.
        score_init: "kaiming_uniform" (drawn from torch's generator, in module order), a constant, or a function that
            fills a layer's scores.

    Raises:
        ValueError: nothing to hide; a pattern that meets no layer; a weight that is tied to another module's, or made
            of other tensors. TypeError: model is no such module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"hide: expected model to be an nn.Module, got {type(model).__name__}")
    if hideable(model) or isinstance(model, HiddenMixin):
        raise TypeError(
            f"hide: expected a model that holds layers, got a single {type(model).__name__}; "
            "use HiddenConv2d or HiddenLinear"
        )
    source = source if source is not None else Generated()
    rule = rule if rule is not None else TopK(0.5)
    open_attention(model)
    try:
        _hide(model, source, rule, include, exclude, score_init)
    finally:
        close_attention(model)
    if begin_pass not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(begin_pass)
        model.register_forward_hook(end_pass)
    if include is None:
        _say_what_stays(model, exclude)
    return model


def _hide(model: nn.Module, source, rule, include: Filter, exclude: Filter, score_init: ScoreInit) -> None:
    found = {name: m for name, m in model.named_modules() if hideable(m)}
    check_patterns("hide", include, "include", list(found))
    others = [name for name, module in model.named_modules() if isinstance(module, LAYERS) and name not in found]
    check_patterns("hide", exclude, "exclude", [*found, *others, *(dense_weights(model).keys() - found.keys())])
    chosen = {name: module for name, module in found.items() if chosen_by(include, exclude, name, module)}
    _check_own(model, include, exclude)
    if not chosen:
        hidden = sum(isinstance(m, HiddenMixin) for m in model.modules())
        already = f"; {hidden} are hidden already" if hidden else ""
        kinds = sorted({type(m).__name__ for n, (m, _) in dense_weights(model).items() if n not in found})
        others = f"; other layers with weights are of {', '.join(kinds)}" if kinds else ""
        raise ValueError(f"hide: expected layers to hide, got none of {len(found)} that can be{already}{others}")
    parts = []
    first = sum(isinstance(m, HiddenMixin) for m in model.modules())
    for number, (name, module) in enumerate(chosen.items(), start=first):
        here = source(name, module) if callable(source) else source
        if getattr(here, "layer", 0) is None:
            here = dataclasses.replace(here, layer=number)
        parts.append((here, rule(name, module) if callable(rule) else rule))
    _convert(model, chosen, parts, score_init)


def _ties(model: nn.Module, layers: Iterable[nn.Module]) -> list[tuple[nn.Parameter, dict[str, nn.Module]]]:
    """Each layer's weight, and the other modules that have it too, by the parameter's name there."""
    holders: dict[int, dict[str, nn.Module]] = {}
    for name, module in model.named_modules():
        for leaf, parameter in module._parameters.items():
            holders.setdefault(id(parameter), {})[f"{name}.{leaf}".lstrip(".")] = module
    return [
        (layer.weight, {name: module for name, module in holders[id(layer.weight)].items() if module is not layer})
        for layer in layers
    ]


def _check_tie(layer: HiddenMixin, weight: nn.Parameter, others: dict[str, nn.Module]) -> None:
    """Refuse a weight that other modules have, too, where hiding the layer parts them or hides it in one alone."""
    if others and (layer.stored is not weight or any(hideable(module) for module in others.values())):
        raise ValueError(
            f"hide: expected weights of layers' own, got one of {type(layer).__name__} that is {' and '.join(others)}, "
            f"too, which {layer.source.kind} weights would part; hide both with Stored(), or exclude them"
        )


def _check_own(model: nn.Module, include: Filter, exclude: Filter) -> None:
    """Refuse layers whose weight torch makes of other tensors: they would lose it, or keep it unsaid."""
    for name, module in model.named_modules():
        if not isinstance(module, LAYERS) or isinstance(module, HiddenMixin) or hideable(module):
            continue
        wanted = chosen_by(include, exclude, name, module)
        if wanted and isinstance(module._parameters.get("weight"), UninitializedParameter):
            raise ValueError(
                f"hide: expected a weight of known shape, got none yet in {name} ({type(module).__name__}); "
                "call the model once before hide(), or exclude the layer"
            )
        made = "weight" not in module._parameters or parametrize.is_parametrized(module)
        if wanted and made and not hasattr(module, "psg"):
            raise ValueError(
                f"hide: expected the weight of {name} to be a parameter of its own, got one that is made of others "
                "(pruned, weight-normed or parametrized); make it permanent (torch.nn.utils.prune.remove, "
                "torch.nn.utils.parametrize.remove_parametrizations) or exclude the layer"
            )


def _say_what_stays(model: nn.Module, exclude: Filter) -> None:
    """Name, once, what hide() could not hide, with its share of all weights."""
    dense = dense_weights(model)
    kept = {n: m for n, m in dense.items() if chosen_by(None, exclude, n, m[0])}
    kept = {n: m for n, m in kept.items() if not hideable(m[0]) and not getattr(m[0], "never_hidden", False)}
    if not kept:
        return
    weights = sum(size for _, size in kept.values())
    total = sum(layer.weight_shape.numel() for layer in hidden_layers(model).values())
    total += sum(size for _, size in dense.values())
    names = [f"{name or 'the model'} ({type(module).__name__})" for name, (module, _) in kept.items()]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    warnings.warn(
        f"hide: {weights / total:.1%} of the weights stay dense, in layers of other kinds: "
        f"{', '.join(names[:6])}{more}; hiddennet.summary(model) lists all, exclude= says that it is meant",
        stacklevel=3,
    )
