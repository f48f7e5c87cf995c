"""Changes to modules that happen whole or not at all."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator

from torch import nn


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
