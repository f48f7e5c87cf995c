"""Compact networks in files: the same bits again, few bytes, damage noticed; the command line."""

from __future__ import annotations

import os

import pytest
import torch

import hiddennet as hn
from hiddennet import artifact, cli, compaction
from hiddennet import container as file
from hiddennet.artifact import ArtifactError
from hiddennet.compaction import positions
from hiddennet.models.dnw import (
    DiscreteConfig,
    DiscreteGraph,
    MobileNetConfig,
    MobileNetGraph,
    StaticConfig,
    StaticGraph,
)

TINY = {"stages": ((6, 9, 1, 1), (9, 8, 2, 3)), "num_classes": 5, "image_size": 16}
NETWORKS = {
    "mobilenet": lambda: MobileNetGraph(MobileNetConfig(width=0.3, **TINY)),
    "mobilenet, small": lambda: MobileNetGraph(MobileNetConfig(width=0.3, small=True, **TINY)),
    "mobilenet, dense products": lambda: MobileNetGraph(MobileNetConfig(width=1.0, **TINY)),
    "mobilenet, nothing alive": lambda: MobileNetGraph(MobileNetConfig(width=0.0, **TINY)),
    "static": lambda: StaticGraph(StaticConfig(blocks=(6, 9, 12, 8), outputs=5, density=0.1)),
    "discrete": lambda: DiscreteGraph(DiscreteConfig(nodes=30, inputs=5, outputs=6, density=0.1)),
}


@pytest.fixture
def made():
    return hn.compact(MobileNetGraph(MobileNetConfig(width=0.3, **TINY)))


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip(name, tmp_path):
    compact, path = hn.compact(NETWORKS[name]()), tmp_path / "deep" / "compact.safetensors"
    hn.export(compact, path, metadata={"data": "digits", "method": "dnw"})
    again = hn.load(path)
    assert type(again) is type(compact) and not again.training
    want, got = compact.state_dict(), again.state_dict()
    assert want.keys() == got.keys()
    for key, tensor in want.items():
        assert tensor.dtype == got[key].dtype and torch.equal(tensor, got[key]), key
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(again(x), compact(x))
    header = artifact.read_header(path)
    assert header["method"] == "dnw" and header["metadata"] == {"data": "digits"}
    sizes = artifact.sizes(path)
    assert sizes["artifact_bytes"] == os.path.getsize(path) and sizes["dense_bytes"] == compact.spec["dense_bytes"]
    compaction.save(again, tmp_path / "again.safetensors", {"data": "digits", "method": "dnw"})
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("small", [False, True])
def test_a_file_is_about_as_large_as_what_is_alive(small, tmp_path):
    stages = ((16, 64, 1, 1), (64, 96, 2, 4))
    config = MobileNetConfig(width=0.225, small=small, stages=stages, num_classes=1000, image_size=32)
    model = MobileNetGraph(config)
    compact, path = hn.compact(model), tmp_path / "compact.safetensors"
    hn.export(compact, path)
    needed = compaction.needed_bytes(compact)
    assert os.path.getsize(path) <= 1.1 * needed["total"]
    state = sum(t.numel() * t.element_size() for t in compact.state_dict().values())
    assert state <= 1.35 * needed["total"]
    whole = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert state < 0.7 * whole


@pytest.mark.parametrize("size", [1, 2, 7, 8, 64, 1000, 100_000])
def test_positions_of_every_density(size):
    for n in sorted({0, 1, size // 100, size // 10, size // 2, size - 1, size}):
        chosen = torch.randperm(size)[:n].sort().values
        low, high = positions.encode(chosen, size)
        assert (low.numel(), high.numel()) == positions.sizes(n, size)
        assert torch.equal(positions.decode(low, high, n, size), chosen)
        bits = positions.information(n, size)
        assert 8 * (low.numel() + high.numel()) <= bits + 2 * n + 16  # at low densities 0.6 bits each
        if (n, size) == (1000, 100_000):
            assert 8 * (low.numel() + high.numel()) <= bits + 0.7 * n + 16


def test_positions_refuse_what_they_did_not_write():
    low, high = positions.encode(torch.tensor([1, 5, 90]), 100)
    with pytest.raises(ValueError, match="expected streams of"):
        positions.decode(low[:0], high, 3, 100)
    with pytest.raises(ValueError, match="expected 3 numbers, got 0"):
        positions.decode(low, torch.zeros_like(high), 3, 100)
    with pytest.raises(ValueError, match="expected ascending numbers below 91"):
        positions.decode(*positions.encode(torch.tensor([1, 5, 92]), 93), 3, 91)


def test_damage_is_noticed(made, tmp_path):
    path = tmp_path / "compact.safetensors"
    hn.export(made, path)
    data = bytearray(path.read_bytes())
    for at in (len(data) // 2, len(data) - 3):
        changed = bytearray(data)
        changed[at] ^= 4
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match="to match its checksum"):
            hn.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, t: t.pop("classifier.bias"), "expected bias of shape"),
        (lambda h, t: t.pop("stages.0.products.0.low"), "KeyError"),
        (lambda h, t: t.update(extra=torch.zeros(1)), "unknown tensors"),
        (lambda h, t: t.update({"stages.0.nodes.scale": torch.zeros(1)}), "expected scale of shape"),
        (lambda h, t: h["spec"].update(network="Other"), "KeyError"),
        (lambda h, t: h.pop("products"), "products: Field required"),
        (lambda h, t: h["spec"]["stages"][0].update(inputs=2), "of shape"),
        (lambda h, t: t["stages.1.products.0.high"].zero_(), "expected .* numbers, got 0"),
    ],
)
def test_a_file_that_is_no_network_is_refused(made, tmp_path, change, message):
    path = tmp_path / "compact.safetensors"
    hn.export(made, path)
    header, tensors = file.read(path)
    del header["checksum"]
    change(header, tensors)
    file.write(path, header, tensors)
    with pytest.raises(ArtifactError, match=message):
        hn.load(path)


def test_one_kind_of_file_is_not_taken_for_the_other(made, tmp_path):
    path = tmp_path / "artifact.safetensors"
    hn.export(made, path)
    with pytest.raises(ArtifactError, match="expected no model to load"):
        hn.load(path, torch.nn.Linear(2, 2))
    hn.export(torch.nn.Sequential(torch.nn.Linear(2, 2)), path)
    with pytest.raises(ArtifactError, match="expected a compact network in"):
        compaction.load(path)
    with pytest.raises(TypeError, match="expected a compact network, got Linear"):
        compaction.save(torch.nn.Linear(2, 2), path)


def test_the_command_line_evaluates_it(tmp_path, capsys):
    config = MobileNetConfig(
        width=0.4, stages=((4, 6, 1, 1), (6, 8, 2, 2)), num_classes=10, in_channels=1, image_size=8
    )
    compact, path = hn.compact(MobileNetGraph(config)), tmp_path / "compact.safetensors"
    hn.export(compact, path, metadata={"data": "digits", "method": "dnw"})
    assert cli.main(["eval", str(path), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "dnw" in said and f"{compact.edges / compact.spec['positions']:.4f}" in said
