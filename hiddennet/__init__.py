"""hiddennet: find good sub-networks of randomly weighted networks, and ship them as a seed and one bit a weight."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from hiddennet import _start
from hiddennet._version import __version__

if _start.is_command():
    _start.prepare()

if TYPE_CHECKING:
    from hiddennet import analysis, models, nn, ops, optim, pruning
    from hiddennet.artifact import export, load
    from hiddennet.compaction import compact
    from hiddennet.nn import (
        Activated,
        All,
        Fixed,
        Flipped,
        Generated,
        HiddenConv2d,
        HiddenLinear,
        KthValue,
        Redrawn,
        Rounded,
        Sampled,
        Stored,
        TargetedDropout,
        Threshold,
        TopK,
        density,
        hidden_layers,
        hide,
        masks,
        psg,
        redraw,
        refresh,
        select,
    )
    from hiddennet.ordinary import plain
    from hiddennet.ordinary.contents import summary
    from hiddennet.ordinary.onnx_file import export_onnx
    from hiddennet.registry import register

__all__ = [
    "Activated",
    "All",
    "Fixed",
    "Flipped",
    "Generated",
    "HiddenConv2d",
    "HiddenLinear",
    "KthValue",
    "Redrawn",
    "Rounded",
    "Sampled",
    "Stored",
    "TargetedDropout",
    "Threshold",
    "TopK",
    "__version__",
    "analysis",
    "compact",
    "density",
    "export",
    "export_onnx",
    "hidden_layers",
    "hide",
    "load",
    "masks",
    "models",
    "nn",
    "ops",
    "optim",
    "plain",
    "pruning",
    "psg",
    "redraw",
    "refresh",
    "register",
    "select",
    "summary",
]


_MODULES = ("analysis", "models", "nn", "ops", "optim", "pruning")
_HOMES = {
    "compact": "compaction",
    "export": "artifact",
    "export_onnx": "ordinary.onnx_file",
    "load": "artifact",
    "plain": "ordinary",
    "register": "registry",
    "summary": "ordinary.contents",
}  # of the names below; the others are of nn


def __dir__() -> list[str]:
    """What there is, imported already or not."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str):
    """Import what is used when it is used first: hiddennet.runtime does without torch."""
    if name in _MODULES:
        return importlib.import_module(f"hiddennet.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'hiddennet' has no attribute {name!r}")
    _import_core()
    found = getattr(importlib.import_module(f"hiddennet.{_HOMES.get(name, 'nn')}"), name)
    globals()[name] = found
    return found


def _import_core() -> None:
    """What registers rules, sources, optimisers and ops, and takes the time that torch takes."""
    for name in ("nn", "ops", "optim"):
        importlib.import_module(f"hiddennet.{name}")


if sys.modules.get("torch") is not None:
    _import_core()
else:
    _start.when_torch_is_imported("hiddennet.ops")
