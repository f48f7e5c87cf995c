"""hide: turn the convolutions and linear layers of any model into hidden layers, in place."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections.abc import Callable, Iterable

from torch import nn

from hiddennet.nn.hidden import HiddenMixin, ScoreInit
from hiddennet.nn.layers import HIDDEN
from hiddennet.nn.network import begin_pass, end_pass
from hiddennet.nn.rule import Rule
from hiddennet.nn.rules import TopK
from hiddennet.nn.source import Source
from hiddennet.nn.sources import Generated

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


def _convert(chosen: dict[str, nn.Module], parts: list[tuple[Source, Rule]], score_init: ScoreInit) -> None:
    """Turn plain layers into hidden ones of these sources and rules, in place: all of them, or on an error none."""
    before = [(m, type(m), {k: copy.copy(v) for k, v in m.__dict__.items()}) for m in chosen.values()]
    learned = [(p, p.requires_grad) for m in chosen.values() for p in m.parameters(recurse=False)]
    try:
        for module, (source, rule) in zip(chosen.values(), parts, strict=True):
            module.__class__ = HIDDEN[type(module)]
            module.become_hidden(source, rule, score_init, fresh=False)
    except BaseException:
        for module, plain, state in before:
            module.__class__, module.__dict__ = plain, state
        for parameter, requires_grad in learned:
            parameter.requires_grad_(requires_grad)
        raise


def hide(
    model: nn.Module,
    source: Source | Callable[[str, nn.Module], Source] | None = None,
    rule: Rule | Callable[[str, nn.Module], Rule] | None = None,
    *,
    include: Filter = None,
    exclude: Filter = None,
    score_init: ScoreInit = "kaiming_uniform",
) -> nn.Module:
    """Turn the model's Conv2d and Linear layers into hidden ones, in place, and return the model.

    A layer stays the object it is, wherever it stands, with its bias and its hooks; on an error the model is as it was.
    Subclasses of the two are left alone, since their own forward would be lost. Layers are numbered in module order;
    a source without a layer number gets its layer's.

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
    if type(model) in HIDDEN:
        raise TypeError(
            f"hide: expected a model that holds layers, got a single {type(model).__name__}; "
            "use HiddenConv2d or HiddenLinear"
        )
    source = source if source is not None else Generated()
    rule = rule if rule is not None else TopK(0.5)
    found = {name: m for name, m in model.named_modules() if type(m) in HIDDEN}
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
    parts = []
    first = sum(isinstance(m, HiddenMixin) for m in model.modules())
    for number, (name, module) in enumerate(chosen.items(), start=first):
        here = source(name, module) if callable(source) else source
        if getattr(here, "layer", 0) is None:
            here = dataclasses.replace(here, layer=number)
        parts.append((here, rule(name, module) if callable(rule) else rule))
    _convert(chosen, parts, score_init)
    if begin_pass not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(begin_pass)
        model.register_forward_hook(end_pass)
    return model
