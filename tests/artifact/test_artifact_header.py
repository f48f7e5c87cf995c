"""A header with a fitting checksum and a wrong value anywhere: one ArtifactError, or a network that computes."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import container
from hiddennet.artifact import ArtifactError

WRONG = ("x", None, -1, True, float("nan"), 10**30, [-1])


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


SOURCES = {
    "generated": hn.Generated,
    "redrawn": lambda: hn.nn.Redrawn("kaiming_normal"),
    "flipped": hn.nn.Flipped,
    "stored": lambda: hn.Stored(trainable=True),
}


def places(part, way=()):
    """The ways to all values of a JSON document."""
    yield way
    if isinstance(part, dict | list):
        for key in part if isinstance(part, dict) else range(len(part)):
            yield from places(part[key], (*way, key))


def replaced(document, way, value):
    document = copy.deepcopy(document)
    part = document
    for key in way[:-1]:
        part = part[key]
    part[way[-1]] = value
    return document


def snapshot(model):
    return [(type(m), dict(vars(m)), set(m._buffers), m.training) for m in model.modules()], {
        key: value.clone() for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)
    }


def opened(path):
    header, tensors = container.read(path)
    del header["checksum"]  # made anew
    return header, tensors


@pytest.fixture
def any_number(monkeypatch):
    """A header of others may have a NaN; ours has none."""
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda value, **options: dumps(value, **{**options, "allow_nan": True}))


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize("name", SOURCES)
def test_every_value_of_a_header(tmp_path, name):
    path = tmp_path / "net"
    hn.export(hn.hide(small(), SOURCES[name](), hn.nn.Sampled() if name == "flipped" else hn.TopK(0.5)), path)
    header, tensors = opened(path)
    given = hn.hide(small(), hn.Stored(), hn.TopK(0.25))
    kinds, values = snapshot(given)
    refused = 0
    ways = [way for way in places(header) if way and (len(way) < 2 or way[:2] != ("layers", 0))]  # the last layer's do
    for way in ways:
        for wrong in WRONG:
            container.write(path, replaced(header, way, wrong), tensors)
            try:
                found = hn.load(path, copy.deepcopy(given) if refused % 8 else given)
            except ArtifactError as error:
                refused += 1
                assert "\n" not in str(error)
                now, state = snapshot(given)
                assert [kind[0] for kind in now] == [kind[0] for kind in kinds] and now[0][3] == kinds[0][3]
                assert all(torch.equal(state[key], values[key]) for key in values) and state.keys() == values.keys()
            else:
                assert found(torch.ones(2, 1, 4, 4)).shape == (2, 3)
                if found is given:
                    given = hn.hide(small(), hn.Stored(), hn.TopK(0.25))
                    kinds, values = snapshot(given)
    assert refused > len(ways)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda h: h.update(colour="red"), "colour: Extra inputs"),
        (lambda h: h["layers"][0].update(colour="red"), "unknown key 'colour'"),
        (lambda h: h.update(dense_bytes=3), "dense_bytes: 3 where its layers and tensors make"),
        (lambda h: h["layers"].append(h["layers"][0]), "a name that is given twice"),
        (lambda h: h["layers"][1].update(shape=[2**20, 2**20]), r"layers\.1: shape"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, words):
    hn.export(hn.hide(small()), tmp_path / "net")
    header, tensors = opened(tmp_path / "net")
    change(header)
    container.write(tmp_path / "net", header, tensors)
    with pytest.raises(ArtifactError, match=words):
        hn.artifact.read_header(tmp_path / "net")


def test_a_small_file_asks_for_little_memory(tmp_path):
    """Layers made from a seed, all weights kept, are in no bit of the file: a header alone could ask for any size."""
    net = hn.models.build("digits_mlp", num_classes=10)
    hn.export(hn.hide(net, rule=hn.nn.All()), tmp_path / "net")
    assert hn.load(tmp_path / "net")(torch.ones(1, 1, 8, 8)).shape == (1, 10)
    header, tensors = opened(tmp_path / "net")
    header["model"]["width"] = 1000.0
    for layer, shape in zip(header["layers"], ([512000, 64], [512000, 512000], [10, 512000]), strict=True):
        layer["shape"], layer["kept"] = shape, shape[0] * shape[1]
    header["layers"].pop(1)
    header["hidden_weights"] = sum(layer["kept"] for layer in header["layers"])
    header["dense_bytes"] = 4 * header["hidden_weights"]
    container.write(tmp_path / "net", header, tensors)
    with pytest.raises(ArtifactError, match=r"expected a model with|expected .* to hold a bit"):
        hn.load(tmp_path / "net")


@pytest.mark.parametrize("key", ["0.weight", "state.1.running_mean"])
def test_state_of_another_kind(tmp_path, key):
    hn.export(hn.hide(small(), exclude="0"), tmp_path / "net")
    header, tensors = opened(tmp_path / "net")
    key = key if key.startswith("state.") else f"state.{key}"
    tensors[key] = tensors[key].to(torch.int32)
    container.write(tmp_path / "net", header, tensors)
    with pytest.raises(ArtifactError, match=r"of torch\.int32, got torch\.float32"):
        hn.load(tmp_path / "net", small())


def test_metadata_of_a_wrong_kind_is_refused_before_the_file_is_written(tmp_path):
    with pytest.raises(ArtifactError, match="method: Input should be a valid string"):
        hn.export(hn.hide(small()), tmp_path / "net", metadata={"method": 3})
    assert not list(tmp_path.iterdir())
