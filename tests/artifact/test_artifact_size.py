"""At most one bit a hidden weight, and batch-norm statistics; trained weights only where revealed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import artifact, models
from hiddennet.artifact.layers import Streams
from hiddennet.nn.expose import skip_init
from hiddennet.nn.source import put_values, take_values

RESNETS = {"resnet18": 11_678_912, "resnet50": 25_502_912, "cifar_resnet18": 11_164_352}


@pytest.mark.parametrize("name", RESNETS)
def test_one_bit_a_weight(tmp_path, name):
    with skip_init():
        classes = 10 if name.startswith("cifar") else 1000
        net = models.build(name, num_classes=classes, batch_norm="non_affine")
    hn.hide(net, rule=hn.TopK(0.3))
    hn.export(net, tmp_path / "net")
    statistics = sum(4 * b.numel() for n, b in net.named_buffers() if n.endswith(("mean", "var")))
    sizes = artifact.sizes(tmp_path / "net")
    weights = RESNETS[name]
    assert sizes["hidden_weights"] == weights
    assert sizes["artifact_bytes"] == (tmp_path / "net").stat().st_size
    assert sizes["artifact_bytes"] <= 1.05 * (weights / 8 + statistics)
    assert 4 * weights + statistics <= sizes["dense_bytes"] <= 1.001 * (4 * weights + statistics)
    assert sizes["ratio"] == sizes["dense_bytes"] / sizes["artifact_bytes"]
    assert sizes["bits_per_weight"] == 8 * sizes["artifact_bytes"] / weights
    if name == "resnet50":
        assert sizes["artifact_bytes"] <= 3.5e6


def sized(tmp_path, source, rule) -> float:
    """Bytes of a 512 x 512 layer's artifact beyond its header, for each weight."""
    torch.manual_seed(4)
    net = hn.hide(nn.Sequential(nn.Linear(512, 512, bias=False)), source, rule)
    hn.export(net, tmp_path / "net")
    return ((tmp_path / "net").stat().st_size - 2000) / 512**2


@pytest.mark.parametrize(
    "source, rule, bits",
    [
        (hn.Generated(), hn.TopK(0.3), 0.8813),
        (hn.Generated(), hn.TopK(0.01), 0.0808),
        (hn.Generated(), hn.All(), 0),
        (hn.Stored(), hn.TopK(0.25), 0.8113 + 0.25 * 32),
        (hn.Stored(), hn.All(), 32),
        (hn.Stored(torch.full((512, 512), 0.5)), hn.TopK(0.25), 0.8113),
        (hn.Stored(torch.randn(512, 512).sign()), hn.TopK(0.25), 0.8113 + 0.25),
        (hn.Generated(), hn.Sampled(evaluation="draw"), 1),
        (hn.Generated(), hn.Sampled(evaluation="expectation"), 32),
    ],
)
def test_bits_by_kind(tmp_path, source, rule, bits):
    assert sized(tmp_path, source, rule) == pytest.approx(bits / 8, abs=0.01)


@pytest.mark.parametrize(
    "values, kind",
    [
        ([0.5, -0.5, -0.5, 0.5], "constant"),
        ([0.5, 0.0, -0.5, -0.0], "constant"),
        ([0.1, 0.1, 0.1], "constant"),
        ([-0.1], "constant"),
        ([], "constant"),
        ([0.0, -0.0], "constant"),
        ([0.5, 0.25], "values"),
        ([0.5, math.nan], "values"),
        ([math.inf, -math.inf], "constant"),
        ([math.inf, 0.5], "values"),
        ([0.0] * 65 + [0.5], "values"),
        ([0.0] * 64 + [1e-40], "constant"),
    ],
)
def test_stored_weights_to_the_bit(values, kind):
    values = torch.tensor(values, dtype=torch.float32)
    streams = Streams()
    entry = put_values(values, streams.put)
    assert entry["as"] == kind
    again = take_values(entry, values.numel(), Streams.of(streams.tensors()).take)
    assert torch.equal(again.view(torch.int32), values.view(torch.int32))
