"""Networks that are wirings: static, discrete, continuous in time, MobileNet-like (Wortsman et al., NeurIPS 2019)."""

from .base import SmallGraph
from .build import IMAGE_SIZES, NETWORKS, config_of, from_original, graph_keys, make, original_name, rewired
from .config import ContinuousConfig, DiscreteConfig, GraphConfig, StaticConfig
from .continuous import ContinuousGraph
from .discrete import DiscreteGraph
from .mobilenet import MobileNetGraph
from .mobilenet_config import MobileNetConfig
from .ode import NotConverged
from .stage import GraphStage
from .static import StaticGraph

__all__ = [
    "IMAGE_SIZES",
    "NETWORKS",
    "ContinuousConfig",
    "ContinuousGraph",
    "DiscreteConfig",
    "DiscreteGraph",
    "GraphConfig",
    "GraphStage",
    "MobileNetConfig",
    "MobileNetGraph",
    "NotConverged",
    "SmallGraph",
    "StaticConfig",
    "StaticGraph",
    "config_of",
    "from_original",
    "graph_keys",
    "make",
    "original_name",
    "rewired",
]
