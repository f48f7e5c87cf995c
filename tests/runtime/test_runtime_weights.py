"""The runtime makes the weights of an artifact to the last bit as hiddennet.load does, whatever they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.ops import INITS
from tests.runtime.common import saved

pytestmark = pytest.mark.isa
KINDS = ("pruning", "flipping", "ternary", "none")

LAYERS = {
    **{f"init_{init}": (hn.Generated(init, seed=2**40 + 7), hn.TopK(0.3)) for init in INITS},
    "signed_all": (hn.Generated("signed_constant", seed=5), hn.All()),
    "by_value": (hn.Generated("kaiming_uniform", seed=1), hn.TopK(0.3, by="value")),
    "sparse": (hn.Generated("signed_constant", seed=1), hn.TopK(0.02)),
    "nothing": (hn.Generated("standard"), hn.TopK(0.0)),
    "scaled_fan": (hn.Generated("kaiming_normal", scale_fan=True), hn.TopK(0.3)),
    "later_draw": (hn.Generated("xavier_normal", seed=9, redraw=3), hn.TopK(0.7)),
    "unsigned": (hn.Generated("unsigned_constant", mode="fan_out", gain=1.7), hn.Threshold(0.01)),
    "trained": (hn.Stored(trainable=True), hn.TopK(0.5)),
    "trained_all": (hn.Stored(trainable=True), hn.All()),
    "expectation": (hn.Generated("kaiming_normal"), hn.Sampled(seed=4)),
    "expectation_stored": (hn.Stored(), hn.Sampled(seed=4)),
    "draw": (hn.Generated("xavier_constant"), hn.Sampled(seed=4, evaluation="draw")),
    "flipped": (hn.Flipped("kaiming_normal", seed=3), hn.TopK(0.4)),
    "flipped_signs": (hn.Flipped("signed_constant", seed=3), hn.All()),
    **{f"activated_{a}": (hn.Activated("kaiming_laplace", seed=6, activation=a), hn.All()) for a in KINDS},
    "redrawn": (hn.Redrawn("kaiming_normal", seed=8), hn.TopK(0.5)),
    "redrawn_signs": (hn.Redrawn("signed_constant", seed=8), hn.TopK(0.5)),
}


def network() -> nn.Module:
    """A layer for each entry, of numbers of weights that fill neither bytes nor the generator's blocks."""
    layers = nn.ModuleDict({name: nn.Conv2d(11, 11, 3, padding=1, bias=False) for name in LAYERS})
    model = nn.Sequential(*layers.values())
    names = dict(zip(map(str, range(len(LAYERS))), LAYERS, strict=True))
    hn.hide(
        model, lambda name, _: LAYERS[names[name]][0], lambda name, _: LAYERS[names[name]][1], include=lambda *_: True
    )
    return model


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    torch.manual_seed(0)
    model, path = network(), tmp_path_factory.mktemp("weights") / "net"
    with torch.no_grad():
        for name, layer in hn.hidden_layers(model).items():
            if list(LAYERS)[int(name)].startswith("flipped"):
                layer.stored.mul_(torch.where(torch.rand_like(layer.stored) < 0.5, -1.0, 1.0))
    for number in (1, 2, 300):  # more than a byte counts
        hn.redraw(model, number, rate=0.3)
    net = saved(model.eval(), path, (11, 4, 4))
    return hn.hidden_layers(hn.load(path, network())), net


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_equal_to_the_last_bit(both, name):
    layers, net = both
    key = str(list(LAYERS).index(name))
    want = layers[key].weight.detach().numpy().view(np.uint32)
    got = net._network.weight(key).view(np.uint32).reshape(want.shape)
    assert np.array_equal(got, want)
    assert (got != 0).any() or name == "nothing"


def test_the_redraws_need_two_bytes(both):
    _, net = both
    redrawn = net._network.weight(str(list(LAYERS).index("redrawn")))
    first = net._network.weight(str(list(LAYERS).index("init_kaiming_normal")))
    assert redrawn.size == first.size and len(np.unique(redrawn)) > redrawn.size // 3
