"""Names and shapes of the original's state dicts ("Discovering Neural Wirings", its released code), as ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .base import SmallGraph
from .continuous import ContinuousGraph
from .mobilenet import MobileNetGraph

Graph = SmallGraph | MobileNetGraph

_IN_SOLVER = ("conv.", "graph.", "norm.")  # of a ContinuousGraph the original keeps these inside its solver


def original_name(model: Graph, name: str) -> str:
    """What the original calls our state dict's entry `name`."""
    name = f"{name.removesuffix('.chosen')}.mask" if name.endswith("graph.chosen") else name
    return f"odesolve.odefunc.{name}" if isinstance(model, ContinuousGraph) and name.startswith(_IN_SOLVER) else name


def from_original(model: Graph, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's state dict of a graph network as one that `model.load_state_dict` takes.

    A "module." before all names, the `zeros` buffer and a `graph.mask` of a kind that fixes no edges are left out;
    edge weights [n, m, 1, 1] become [n, m].

    Raises ValueError: entries that are missing, unknown, or of another shape.
    """
    theirs = {name.removeprefix("module."): value for name, value in state.items()}
    ours = {original_name(model, name): name for name in model.state_dict()}
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    for name in [name for name in shapes if name.endswith("graph.weight")]:
        chosen = f"{name.removesuffix('.weight')}.chosen"
        mask, shapes[chosen] = original_name(model, chosen), shapes[name]
        if model.config.kind == "fine_tune":  # frozen where the file is
            ours.pop(mask, None)
            if theirs.get(mask) is not None:
                ours[mask] = chosen
        elif mask not in ours:
            theirs.pop(mask, None)
    theirs = {name: value for name, value in theirs.items() if name.rsplit(".", 1)[-1] != "zeros" and value is not None}
    what = f"original state dict of {type(model).__name__}"
    for kind, names in (("missing", ours.keys() - theirs.keys()), ("unknown", theirs.keys() - ours.keys())):
        if names:
            listed = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
            raise ValueError(f"{what}: expected {', '.join(list(ours)[:2])}, ..., got {len(names)} {kind}: {listed}")
    found = {}
    for name, mine in ours.items():
        value = theirs[name]
        if _is_edges(mine) and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        if value.shape != shapes[mine]:
            raise ValueError(f"{what}: expected {name} of shape {tuple(shapes[mine])}, got {tuple(value.shape)}")
        found[mine] = value != 0 if mine.endswith("graph.chosen") else value.contiguous()
    return found


def _is_edges(name: str) -> bool:
    return name.split(".")[-2:-1] == ["graph"]


def to_original(model: Graph) -> dict[str, Tensor]:
    """The model's state dict with the original's names and shapes (without its `zeros` buffer)."""
    found = {}
    for name, value in model.state_dict().items():
        if _is_edges(name):
            value = value[:, :, None, None]
            value = value.to(torch.float32) if value.dtype == torch.bool else value
        found[original_name(model, name)] = value
    return found
