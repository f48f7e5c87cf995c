"""Compact networks: wirings without their dead nodes, smaller in memory, on disk and in time; for evaluation alone.

base.py says which nodes and edges are left, parts.py runs them; mobilenet.py, static.py and discrete.py (with stem.py)
are the networks; file.py keeps them in a file, positions.py the places of their edges.
"""

import copy

from torch import nn

from hiddennet.models.dnw import DiscreteGraph, MobileNetGraph, StaticGraph

from .base import CompactNetwork
from .discrete import CompactDiscrete, compact_discrete
from .file import load, needed_bytes, restore, save
from .mobilenet import CompactMobileNet, compact_mobilenet
from .static import CompactStatic, compact_static

__all__ = [
    "CompactDiscrete",
    "CompactMobileNet",
    "CompactNetwork",
    "CompactStatic",
    "compact",
    "load",
    "needed_bytes",
    "restore",
    "save",
]

_MADE_BY = {MobileNetGraph: compact_mobilenet, StaticGraph: compact_static, DiscreteGraph: compact_discrete}


def compact(model: nn.Module) -> CompactNetwork:
    """Return the network without what cannot change its output: same logits in evaluation, to rounding.

    Removed, again and again until nothing changes: edges that are not run or weigh 0, nodes that no output can hear,
    nodes that send zeros whatever comes in. Nodes that hear nothing send a constant: they stay where it matters, and
    the last stage's are folded into the classifier's bias. Batch norms become a scale and a shift a node. Wortsman et
    al. 2019 (their `fast_eval`, which is one pass, and drops the constants of the last stage).

    Args:
        model: a MobileNetGraph, StaticGraph or DiscreteGraph, on any device; it is not changed, and nothing of it is
            kept.

    Raises:
        TypeError: another model. A ContinuousGraph has no exact compact form: its step sizes depend on all nodes.
    """
    for kind, make in _MADE_BY.items():
        if isinstance(model, kind):
            device = next(model.parameters()).device
            made = make(model) if device.type == "cpu" else make(copy.deepcopy(model).cpu()).to(device)
            made.architecture = getattr(model, "architecture", None)
            return made
    names = ", ".join(kind.__name__ for kind in _MADE_BY)
    raise TypeError(
        f"compact: expected one of {names}, got {type(model).__name__}; other networks have no exact compact form, "
        "evaluate them as they are"
    )
