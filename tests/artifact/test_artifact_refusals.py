"""What does not fit is refused in one sentence that names it, and leaves the model as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import container as file
from hiddennet import models
from hiddennet.artifact import ArtifactError


def conv4(**changes) -> nn.Module:
    arguments = {"num_classes": 10, "width": 0.125, **changes}
    return models.build("conv4", **arguments)


@pytest.fixture
def path(tmp_path):
    hn.export(hn.hide(conv4()), tmp_path / "net")
    return tmp_path / "net"


@pytest.mark.parametrize(
    "given, words",
    [
        (
            lambda: conv4(width=0.25),
            r"conv2d layer convs\.0 of shape \(8, 3, 3, 3\), got conv2d of shape \(16, 3, 3, 3\)",
        ),
        (
            lambda: conv4(num_classes=11),
            r"linear layer linear\.4 of shape \(10, 32\), got linear of shape \(11, 32\)",
        ),
        (
            lambda: models.build("conv2", num_classes=10, width=0.125),
            r"conv2d layer convs\.5 of shape \(16, 8, 3, 3\), got no such layer",
        ),
        (
            lambda: models.build("conv6", num_classes=10, width=0.125),
            r"linear layer linear\.0 of shape \(32, 1024\), got linear of shape \(32, 512\)",
        ),
        (
            lambda: hn.hide(conv4(width=0.25)),
            r"convs\.0 of shape \(8, 3, 3, 3\), got conv2d of shape \(16, 3, 3, 3\)",
        ),
        (
            lambda: nn.ModuleDict({"convs": conv4().convs, "linear": nn.Sequential(nn.ReLU())}),
            r"linear layer linear\.0 of shape \(32, 1024\), got no such layer",
        ),
        (
            lambda: nn.ModuleDict({"convs": conv4().convs, "linear": conv4().linear, "more": nn.BatchNorm2d(3)}),
            r"no more\.weight, got one of shape \(3,\)",
        ),
        (lambda: nn.Linear(3, 3), r"convs\.0 of shape \(8, 3, 3, 3\), got no such layer"),
    ],
)
def test_first_difference_is_named(path, given, words):
    with pytest.raises(ArtifactError, match=words) as caught:
        hn.load(path, given())
    assert "\n" not in str(caught.value)


def test_state_of_another_shape_is_named(tmp_path):
    def net(features):
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Flatten(), features))

    hn.export(hn.hide(net(nn.BatchNorm1d(16))), tmp_path / "net")
    with pytest.raises(ArtifactError, match=r"1\.1\.weight of shape \(16,\), got shape \(36,\)"):
        hn.load(tmp_path / "net", net(nn.BatchNorm1d(36)))
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    with pytest.raises(ArtifactError, match=r"1\.1\.bias of shape \(16,\), got no such tensor"):
        hn.load(tmp_path / "net", plain)


@pytest.mark.parametrize("hide", [False, True])
def test_refused_load_changes_nothing(path, hide):
    given = conv4(num_classes=11)
    if hide:
        hn.hide(given, hn.Stored())
    before = {key: copy.deepcopy(value) for key, value in given.state_dict().items()}
    kinds = [type(module) for module in given.modules()]
    with pytest.raises(ArtifactError):
        hn.load(path, given)
    assert [type(module) for module in given.modules()] == kinds and given.training
    for key, value in given.state_dict().items():
        same = torch.equal if isinstance(value, torch.Tensor) else (lambda a, b: a == b)
        assert same(value, before[key])


def damaged(path, change):
    """Rewrite the artifact with a header or tensors changed and a checksum that fits."""
    header, tensors = file.read(path)
    header = {key: value for key, value in header.items() if key not in ("checksum",)}
    change(header, tensors)
    file.write(path, header, tensors)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda h, t: h.pop("layers"), r"layers: Field required"),
        (lambda h, t: h["layers"][0].pop("source"), r"layers\.0\.source: Field required"),
        (lambda h, t: h["layers"][0]["source"].update(colour="red"), "colour"),
        (lambda h, t: h["layers"][0]["source"].update(init="magic"), "init.*magic"),
        (lambda h, t: h["model"].update(name="conv9"), "cannot be built.*conv9.*--plugins"),
        (lambda h, t: h["model"].update(depth=3), "depth"),
        (lambda h, t: t.pop("mask_bits"), "numbers in mask_bits, got 0"),
        (lambda h, t: t.update(mask_bits=t["mask_bits"][:-1]), "numbers in mask_bits"),
        (lambda h, t: t.update(mask_bits=t["mask_bits"].int()), "mask_bits to be torch.uint8"),
        (
            lambda h, t: h["layers"][0].update(shape=[3, 8, 3, 3]),
            r"got conv2d of shape \(8, 3, 3, 3\)",
        ),
        (lambda h, t: h["layers"][0].update(name=""), "no such layer"),
    ],
)
def test_wrong_contents_with_a_right_checksum(path, change, words):
    damaged(path, change)
    with pytest.raises(ArtifactError, match=words) as caught:
        hn.load(path)
    assert "\n" not in str(caught.value)


def test_kept_count_must_fit_the_mask(tmp_path):
    net = hn.hide(conv4(), hn.Stored(), hn.TopK(0.5))
    hn.export(net, tmp_path / "net")
    damaged(tmp_path / "net", lambda h, t: h["layers"][0].update(kept=3))
    with pytest.raises(ArtifactError, match=r"expected 3 weights revealed in layer convs\.0, got 1"):
        hn.load(tmp_path / "net")


def test_wirings_are_written_in_float32_alone(tmp_path):
    wiring = hn.nn.Wiring(4, 8, density=0.5)
    with pytest.raises(TypeError, match=r"single Wiring; put it into an nn\.Sequential"):
        hn.export(wiring, tmp_path / "net")
    for dtype in (torch.float64, torch.bfloat16):
        with pytest.raises(TypeError, match=rf"expected wiring 0 in float32, got {dtype}; convert"):
            hn.export(nn.Sequential(wiring).to(dtype), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_single_layer_is_no_model(tmp_path):
    with pytest.raises(TypeError, match=r"single HiddenConv2d; put it into an nn\.Sequential"):
        hn.export(hn.HiddenConv2d(3, 4, 3), tmp_path / "net")


def test_state_that_is_no_tensor_is_refused(tmp_path):
    class Odd(nn.Sequential):
        def get_extra_state(self):
            return {"epoch": 3}

    with pytest.raises(TypeError, match="got dict for _extra_state"):
        hn.export(hn.hide(Odd(nn.Linear(3, 4))), tmp_path / "net")


@pytest.mark.parametrize("function", ["load", "read_header", "sizes"])
def test_every_reader_checks_the_file(path, function):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="checksum"):
        getattr(hn.artifact, function)(path)
