"""hide: turn the convolutions and linear layers of any model into hidden layers, in place."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable

from torch import nn

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.layers import HiddenConv2d, HiddenLinear
from hiddennet.nn.network import select_before_forward
from hiddennet.nn.rules import Rule, TopK
from hiddennet.nn.sources import Generated, Stored

Filter = Iterable[str] | str | Callable[[str, nn.Module], bool] | None


def _matches(which: Filter, name: str, module: nn.Module) -> bool:
    if callable(which):
        return bool(which(name, module))
    patterns = [which] if isinstance(which, str) else list(which)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(which: Filter, role: str, names: list[str]) -> None:
    """A name or pattern that meets no layer is a mistake worth saying."""
    if which is None or callable(which):
        return
    for pattern in [which] if isinstance(which, str) else which:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"hide: expected {role} to name a Conv2d or Linear layer, got {pattern!r}; "
                f"the layers are {', '.join(names) or 'none'}"
            )


def _convert(
    module: nn.Module, source: Generated | Stored, rule: Rule, score_init: str | float | Callable
) -> nn.Module:
    """A hidden layer with the module's geometry, bias and, for Stored(None), its weight."""
    if isinstance(source, Stored) and source.weight is None:
        source = dataclasses.replace(source, weight=module.weight.detach())
    common = {"source": source, "rule": rule, "score_init": score_init, "device": module.weight.device}
    if isinstance(module, nn.Conv2d):
        layer = HiddenConv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            module.bias is not None,
            module.padding_mode,
            **common,
        )
    else:
        layer = HiddenLinear(module.in_features, module.out_features, module.bias is not None, **common)
    if module.bias is not None:
        layer.bias = module.bias
    layer.train(module.training)
    return layer


def hide(
    model: nn.Module,
    source: Generated | Stored | Callable[[str, nn.Module], Generated | Stored] | None = None,
    rule: Rule | Callable[[str, nn.Module], Rule] | None = None,
    *,
    include: Filter = None,
    exclude: Filter = None,
    score_init: str | float | Callable = "kaiming_uniform",
) -> nn.Module:
    """Replace the model's Conv2d and Linear layers by hidden ones, in place, and return the model.

    Subclasses of the two are left alone, since their own forward would be lost. Layers are numbered in module order;
    a source without a layer number gets its layer's. Biases and all other modules stay as they are.

    Args:
        model: any nn.Module; a single Conv2d or Linear has no parent to be replaced in and is refused.
        source: Generated() by default, or a function (name, module) -> source.
        rule: TopK(0.5) by default, or a function (name, module) -> rule.
        include, exclude: names or glob patterns of layers, or a predicate (name, module) -> bool.
        score_init: "kaiming_uniform" (drawn from torch's generator, in module order), a constant, or a function that
            fills a layer's scores.

    Raises:
        ValueError: nothing to hide, or a pattern that meets no layer. TypeError: model is no such module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"hide: expected model to be an nn.Module, got {type(model).__name__}")
    if type(model) in (nn.Conv2d, nn.Linear):
        raise TypeError(
            f"hide: expected a model that holds layers, got a single {type(model).__name__}; "
            "use HiddenConv2d or HiddenLinear"
        )
    source = source if source is not None else Generated()
    rule = rule if rule is not None else TopK(0.5)
    found = {name: m for name, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)}
    _check_patterns(include, "include", list(found))
    _check_patterns(exclude, "exclude", list(found))
    chosen = {
        name: module
        for name, module in found.items()
        if (include is None or _matches(include, name, module))
        and not (exclude is not None and _matches(exclude, name, module))
    }
    if not chosen:
        raise ValueError(f"hide: expected layers to hide, got none of {len(found)} Conv2d and Linear layers")
    number = sum(isinstance(m, HiddenMixin) for m in model.modules())
    replaced: dict[int, nn.Module] = {}
    for name, module in chosen.items():
        here = source(name, module) if callable(source) else source
        if here.layer is None:
            here = dataclasses.replace(here, layer=number)
        layer_rule = rule(name, module) if callable(rule) else rule
        layer = _convert(module, here, layer_rule, score_init)
        layer._selected_by_network = True
        replaced[id(module)] = layer
        number += 1
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if id(child) in replaced:
                setattr(parent, child_name, replaced[id(child)])
    if select_before_forward not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(select_before_forward)
    return model
