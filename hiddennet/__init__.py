"""hiddennet: find good sub-networks of randomly weighted networks, and ship them as a seed and one bit a weight."""

from __future__ import annotations

from hiddennet import _start

if _start.is_command():
    _start.prepare()

from hiddennet import nn, ops, optim
from hiddennet._version import __version__
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


def __dir__() -> list[str]:
    """What there is, imported already or not."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str):
    """export, export_onnx, load, compact, plain, summary, analysis, models and pruning are imported when first used."""
    if name in ("analysis", "models", "pruning"):
        import importlib

        return importlib.import_module(f"hiddennet.{name}")
    if name in ("export", "load"):
        from hiddennet import artifact

        return getattr(artifact, name)
    if name == "compact":
        from hiddennet import compaction

        return compaction.compact
    if name == "plain":
        from hiddennet import ordinary

        return ordinary.plain
    if name == "summary":
        from hiddennet.ordinary import contents

        return contents.summary
    if name == "export_onnx":
        from hiddennet.ordinary import onnx_file

        return onnx_file.export_onnx
    raise AttributeError(f"module 'hiddennet' has no attribute {name!r}")
