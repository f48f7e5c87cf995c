"""Names and shapes of the original's state dicts ("Discovering Neural Wirings", its released code), as ours."""

from collections.abc import Mapping

from torch import Tensor

from hiddennet.nn.wiring import wirings

from .base import SmallGraph
from .continuous import ContinuousGraph
from .mobilenet import MobileNetGraph

Graph = SmallGraph | MobileNetGraph
_IN_SOLVER = ("conv.", "graph.", "norm.")  # of a ContinuousGraph the original keeps these inside its solver


def original_name(model: Graph, name: str) -> str:
    """What the original calls our state dict's entry `name`."""
    if name.endswith("graph.chosen"):
        name = name.removesuffix("chosen") + "mask"
    return f"odesolve.odefunc.{name}" if isinstance(model, ContinuousGraph) and name.startswith(_IN_SOLVER) else name


def from_original(model: Graph, original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's state dict of a graph network as one that `model.load_state_dict` takes.

    A "module." before all names, the `zeros` buffer and a `graph.mask` of a kind that fixes no edges are left out;
    edge weights [n, n, 1, 1] become [n, n].

    Raises ValueError: entries that are missing, unknown, or of another shape.
    """
    theirs = {name.removeprefix("module."): value for name, value in original.items()}
    theirs = {name: value for name, value in theirs.items() if name.rsplit(".", 1)[-1] != "zeros" and value is not None}
    state, graphs = model.state_dict(), wirings(model)
    draws = {name: value for name, value in state.items() if name.removesuffix(".draw") in graphs}  # ours alone
    ours = {original_name(model, name): name for name in state if name not in draws}
    shapes = {name: value.shape for name, value in state.items()}
    for prefix, graph in graphs.items():
        chosen = f"{prefix}.chosen"
        mask = original_name(model, chosen)
        shapes[chosen] = graph.weight.shape
        if graph.kind == "fine_tune":  # frozen where the file is
            ours.pop(mask, None)
            if mask in theirs:
                ours[mask] = chosen
        elif mask not in ours:
            theirs.pop(mask, None)
    _compare(f"original state dict of {type(model).__name__}", ours, theirs)
    found = dict(draws)
    for name, mine in ours.items():
        value, (owner, _, leaf) = theirs[name], mine.rpartition(".")
        if owner in graphs and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        if value.shape != shapes[mine]:
            raise ValueError(
                f"original state dict of {type(model).__name__}: expected {name} of shape {tuple(shapes[mine])}, "
                f"got {tuple(value.shape)}"
            )
        found[mine] = value != 0 if owner in graphs and leaf == "chosen" else value.contiguous()
    return found


def _compare(what: str, ours: Mapping[str, str], theirs: Mapping[str, Tensor]) -> None:
    for kind, names in (("missing", ours.keys() - theirs.keys()), ("unknown", theirs.keys() - ours.keys())):
        if names:
            listed = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
            raise ValueError(f"{what}: expected {', '.join(list(ours)[:2])}, ..., got {len(names)} {kind}: {listed}")
