"""The graph networks by the names that configs give them, and the same network over other edges."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from torch import nn

from .config import ContinuousConfig, DiscreteConfig, StaticConfig
from .continuous import ContinuousGraph
from .discrete import DiscreteGraph
from .mobilenet import MobileNetGraph
from .mobilenet_config import MobileNetConfig
from .static import StaticGraph

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
