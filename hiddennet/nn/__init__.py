"""Layers, sources and rules: a hidden layer's effective weight is its source's weights where its rule reveals them."""

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hide import hide
from hiddennet.nn.layers import HiddenConv2d, HiddenLinear
from hiddennet.nn.network import density, hidden_layers, masks, refresh, select
from hiddennet.nn.redraw import redraw
from hiddennet.nn.rules import All, Fixed, KthValue, Rounded, Sampled, Threshold, TopK
from hiddennet.nn.sources import Flipped, Generated, Redrawn, Stored

__all__ = [
    "All",
    "Fixed",
    "Flipped",
    "Generated",
    "HiddenConv2d",
    "HiddenLinear",
    "HiddenMixin",
    "KthValue",
    "Redrawn",
    "Rounded",
    "Sampled",
    "Stored",
    "Threshold",
    "TopK",
    "density",
    "hidden_layers",
    "hide",
    "masks",
    "redraw",
    "refresh",
    "select",
]
