"""Layers, sources and rules: a hidden layer's effective weight is its source's weights where its rule keeps them."""

from hiddennet.nn.fixed import All, Fixed, Threshold
from hiddennet.nn.flipped import Activated, Flipped
from hiddennet.nn.grouped import Grouped, PerChannel
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hide import hide
from hiddennet.nn.kth_value import KthValue
from hiddennet.nn.layers import HiddenConv2d, HiddenLinear
from hiddennet.nn.network import hidden_layers, hides, refresh, select
from hiddennet.nn.psg import PSGConv2d, PSGLinear, psg
from hiddennet.nn.redraw import Redrawn, redraw
from hiddennet.nn.rounded import Rounded
from hiddennet.nn.rule import Rule, Selecting
from hiddennet.nn.rules import TopK
from hiddennet.nn.sampled import Sampled, TargetedDropout
from hiddennet.nn.source import Source, without_weight
from hiddennet.nn.sources import Generated
from hiddennet.nn.stored import Stored
from hiddennet.nn.summary import density, masks
from hiddennet.nn.wiring import Wiring, wirings
from hiddennet.registry import REGISTRIES

REGISTRIES["rule"].base, REGISTRIES["source"].base = Rule, Source

__all__ = [
    "Activated",
    "All",
    "Fixed",
    "Flipped",
    "Generated",
    "Grouped",
    "HiddenConv2d",
    "HiddenLinear",
    "HiddenMixin",
    "KthValue",
    "PSGConv2d",
    "PSGLinear",
    "PerChannel",
    "Redrawn",
    "Rounded",
    "Rule",
    "Sampled",
    "Selecting",
    "Source",
    "Stored",
    "TargetedDropout",
    "Threshold",
    "TopK",
    "Wiring",
    "density",
    "hidden_layers",
    "hide",
    "hides",
    "masks",
    "psg",
    "redraw",
    "refresh",
    "select",
    "wirings",
    "without_weight",
]
