"""The graph networks by the names that configs give them, the same network over other edges, and the original's state
dicts ("Discovering Neural Wirings", its released code) as ours."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from torch import Tensor, nn

from hiddennet.models.dnw.base import SmallGraph
from hiddennet.models.dnw.config import ContinuousConfig, DiscreteConfig, StaticConfig
from hiddennet.models.dnw.continuous import ContinuousGraph
from hiddennet.models.dnw.discrete import DiscreteGraph
from hiddennet.models.dnw.mobilenet import MobileNetGraph
from hiddennet.models.dnw.mobilenet_config import MobileNetConfig
from hiddennet.models.dnw.static import StaticGraph
from hiddennet.nn.wiring import wirings

NETWORKS: dict[str, tuple[type[nn.Module], type]] = {
    "dnw_static": (StaticGraph, StaticConfig),
    "dnw_discrete": (DiscreteGraph, DiscreteConfig),
    "dnw_continuous": (ContinuousGraph, ContinuousConfig),
    "dnw_mobilenet": (MobileNetGraph, MobileNetConfig),
}
IMAGE_SIZES = dict.fromkeys(NETWORKS, 32) | {"dnw_mobilenet": 224}  # as published; others do, too
# What models.build is told by keys of its own.
_BUILT = ("num_classes", "in_channels", "image_size", "width")


def graph_keys(name: str) -> list[str]:
    """The keys of `graph` that the network of this name takes."""
    return [field.name for field in fields(NETWORKS[name][1]) if field.name not in _BUILT]


def config_of(name: str, graph: Mapping[str, Any] | None, **built: Any) -> Any:
    """The config object of a network; built: those of num_classes, in_channels, image_size and width that it has.

    Raises ValueError for keys that this network does not have, and what its config refuses.
    """
    known, given = graph_keys(name), dict(graph or {})
    for key in given:
        if key not in known:
            raise ValueError(f"model.graph.{key}: expected a key of {name} ({', '.join(known)}), got {key}")
    has = {field.name for field in fields(NETWORKS[name][1])}
    if "width" not in has and built.get("width", 1.0) != 1.0:
        raise ValueError(
            f"model.width: expected 1 with {name}, got {built['width']}; its nodes are in model.graph, its edges in "
            "method.density"
        )
    tuples = {key: _tuples(value) for key, value in given.items()}
    return NETWORKS[name][1](**{"kind": "complete", **tuples, **{k: v for k, v in built.items() if k in has}})


def make(
    name: str, *, graph: Mapping[str, Any] | None, num_classes: int, in_channels: int, image_size: int, width: float
) -> nn.Module:
    """The network of this name. Its weights are drawn from torch's generator. Raises as config_of."""
    built = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size, "width": width}
    return NETWORKS[name][0](config_of(name, graph, **built))


def rewired(model: nn.Module, **changes: Any) -> nn.Module:
    """A new network of the model's class and config but for `changes` (kind, density, ...), with new weights.

    Raises ValueError: what its config refuses.
    """
    config = replace(model.config, **changes)
    other = type(model)(config)
    if hasattr(model, "architecture"):
        name = model.architecture["name"]
        graph = {key: _lists(value) for key, value in asdict(config).items() if key in graph_keys(name)}
        other.architecture = {**model.architecture, "graph": graph}
    return other


def _tuples(value: Any) -> Any:
    """Lists, as configs have them, as tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _lists(value: Any) -> Any:
    """Tuples as lists, which every file format knows."""
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


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
