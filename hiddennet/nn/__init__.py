"""Layers, sources and rules: a hidden layer's effective weight is its source's weights where its rule reveals them."""

from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.hide import hide
from hiddennet.nn.latent import Latent, latent
from hiddennet.nn.layers import HiddenConv2d, HiddenLinear
from hiddennet.nn.network import density, hidden_layers, masks, refresh, select
from hiddennet.nn.psg import PSGConv2d, PSGLinear, psg
from hiddennet.nn.redraw import redraw
from hiddennet.nn.rules import All, Fixed, KthValue, Rounded, Sampled, Threshold, TopK
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
    "Latent",
    "PSGConv2d",
    "PSGLinear",
    "Redrawn",
    "Rounded",
    "Sampled",
    "Stored",
    "Threshold",
    "TopK",
    "Wiring",
    "density",
    "hidden_layers",
    "hide",
    "latent",
    "masks",
    "psg",
    "redraw",
    "refresh",
    "select",
    "wirings",
]
