"""Layers, sources and rules: a hidden layer's effective weight is its source's weights where its rule reveals them."""

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hide import hide
from hiddennet.nn.layers import HiddenConv2d, HiddenLinear
from hiddennet.nn.network import density, hidden_layers, hides, masks, refresh, select
from hiddennet.nn.psg import PSGConv2d, PSGLinear, psg
from hiddennet.nn.redraw import redraw
from hiddennet.nn.rules import All, Fixed, KthValue, Rounded, Sampled, TargetedDropout, Threshold, TopK
from hiddennet.nn.sources import Activated, Flipped, Generated, Redrawn, Stored
from hiddennet.nn.wiring import Wiring, wirings

__all__ = [
    "Activated",
    "All",
    "Fixed",
    "Flipped",
    "Generated",
    "HiddenConv2d",
    "HiddenLinear",
    "HiddenMixin",
    "KthValue",
    "PSGConv2d",
    "PSGLinear",
    "Redrawn",
    "Rounded",
    "Sampled",
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
]
