"""Weights and biases of the networks of Chijiwa et al. (arXiv 2106.09269) and Sreenivasan et al. (arXiv 2202.12002).

All counts are on the meta device: nothing is drawn.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import hiddennet as hn
from hiddennet import models


def on_meta(name, **arguments):
    with torch.device("meta"):
        return models.build(name, **{"num_classes": 10, "batch_norm": "non_affine", **arguments})


def count(model, kind):
    return sum(p.numel() for name, p in model.named_parameters() if name.endswith(kind))


@pytest.mark.parametrize(
    ("name", "width", "weights", "biases"),
    [
        ("conv6", 0.25, 142_128, 362),
        ("conv6", 0.5, 566_368, 714),
        ("conv6", 1, 2_261_184, 1_418),
        ("conv6", 2, 9_036_160, 2_826),
        ("conv4", 1, 2_425_024, 906),
        ("cifar_resnet18", 0.25, 708_288, 10),
        ("cifar_resnet18", 0.5, 2_804_928, 10),
        ("cifar_resnet18", 1, 11_164_352, 10),
        ("cifar_resnet18", 2, 44_576_448, 10),
        ("cifar_resnet34", 0.25, 1_339_584, 10),
        ("cifar_resnet34", 0.5, 5_330_112, 10),
        ("cifar_resnet34", 1, 21_265_088, 10),
        ("cifar_resnet34", 2, 84_979_392, 10),
    ],
)
def test_iterands_cifar_networks(name, width, weights, biases):
    scaled = {} if name.startswith("conv") else {"stem_scaled": False}
    model = on_meta(name, width=width, bias=True, **scaled)
    assert (count(model, "weight"), count(model, "bias")) == (weights, biases)


@pytest.mark.parametrize(
    ("depth", "weights", "affine"),
    [(18, 11_678_912, 9_600), (34, 21_779_648, 17_024), (50, 25_502_912, 53_120), (101, 44_442_816, 105_344)],
)
def test_iterands_imagenet_networks(depth, weights, affine):
    model = on_meta(f"resnet{depth}", num_classes=1000, bias=True, stem_scaled=False)
    assert (count(model, "weight"), count(model, "bias")) == (weights, 1000)
    model = on_meta(f"resnet{depth}", num_classes=1000, batch_norm="affine")
    assert sum(p.numel() for p in model.parameters()) == weights + affine


def test_a_stem_that_keeps_its_channels_has_a_projection_behind_it():
    model = on_meta("cifar_resnet18", width=0.5, stem_scaled=False)
    assert model.conv1.out_channels == 64
    assert model.layer1[0].shortcut[0].weight.shape == (32, 64, 1, 1)
    assert model.layer1[0].skip_name == "shortcut"
    assert on_meta("cifar_resnet18", width=1, stem_scaled=False).layer1[0].skip_name is None
    assert on_meta("cifar_resnet18", width=0.5).layer1[0].skip_name is None
    assert on_meta("resnet18", width=2, stem_scaled=False).layer1[0].downsample[0].weight.shape == (128, 64, 1, 1)


# name: (arguments, weights with projections, layers without, weights without)
PRUNABLE = {
    "resnet20": ({}, 268_336, 20, 268_336),
    "resnet32": ({}, 461_872, 32, 461_872),
    "resnet32_double": ({"num_classes": 100}, 1_856_864, 32, 1_856_864),
    "cifar_resnet18": ({}, 11_164_352, 21, 11_164_352),
    "tiny_resnet18": ({"num_classes": 200}, 11_097_280 + 172_032, 18, 11_097_280),
    "resnet50": ({"num_classes": 1000}, 22_734_016 + 2_768_896, 50, 22_734_016),
    "resnet101": ({"num_classes": 200}, 40_035_520 + 2_768_896, 101, 40_035_520),
    "vgg16": ({}, 14_715_584, 14, 14_715_584),
    "tiny_vgg16": ({"num_classes": 200}, 14_812_864, 14, 14_812_864),
    "wide_resnet28_2": ({}, 1_463_984, 29, 1_463_984),
    "mobilenet_v1": ({}, 3_195_328, 28, 3_195_328),
    "mobilenet_v2": ({}, 2_261_824, 58, 2_261_824),
    "conv4": ({}, 2_425_024, 7, 2_425_024),
}


@pytest.mark.parametrize("name", PRUNABLE)
def test_what_is_pruned(name):
    arguments, everything, layers, weights = PRUNABLE[name]
    model = on_meta(name, **arguments)

    def size(found):
        return sum(layer.weight.numel() for layer in found.values())

    assert size(models.prunable(model)) == everything == sum(p.numel() for p in model.parameters())
    without = models.prunable(model, shortcuts=False)
    assert (len(without), size(without)) == (layers, weights)
    assert list(without) == [name for name in models.prunable(model) if name in without]
    assert list(without)[-1] == model.last_layer


def test_the_double_network_is_the_single_one_of_width_2():
    double, wide = on_meta("resnet32_double", num_classes=100), on_meta("resnet32", num_classes=100, width=2)
    assert str(double) == str(wide)
    assert on_meta("resnet32_double", width=0.5).conv1.out_channels == 16


def test_mobilenet_v1_of_a_quarter():
    model = on_meta("mobilenet_v1", width=0.25, bias=True, batch_norm="affine")
    assert sum(p.numel() for p in model.parameters()) == 215_642
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32, device="meta"))
    assert counter.get_total_flops() == 2 * 3_331_072


@pytest.mark.parametrize(("size", "stride"), [(32, 1), (64, 1), (65, 2), (224, 2)])
def test_mobilenet_v1_begins_with_stride_2_for_large_images(size, stride):
    model = on_meta("mobilenet_v1", image_size=size, width=0.25)
    assert model.conv1.stride == (stride, stride)
    with torch.no_grad():
        found = model.layers(model.conv1(torch.zeros(1, 3, size, size, device="meta")))
    assert found.shape == (1, 256, -(-size // (16 * stride)), -(-size // (16 * stride)))


def test_the_order_of_pruning():
    def block(prefix, *layers):
        return [prefix + layer for layer in layers]

    wide = list(models.prunable(on_meta("wide_resnet28_2")))
    assert wide[:6] == [
        "conv1",
        *block("block1.0.", "conv1", "conv2", "shortcut"),
        *block("block1.1.", "conv1", "conv2"),
    ]
    mobile = list(models.prunable(on_meta("mobilenet_v2")))
    assert mobile[:5] == ["conv1", *block("blocks.0.", "conv1", "conv2", "conv3", "shortcut.0")]
    assert mobile[-2:] == ["conv2", "fc"]
    first = list(models.prunable(on_meta("mobilenet_v1")))
    assert [*first[:3], first[-1]] == ["conv1", "layers.0.conv1", "layers.0.conv2", "linear"]
    assert sum("shortcut" in name for name in mobile) == 4
    resnet = list(models.prunable(on_meta("resnet50")))
    assert resnet[1:5] == block("layer1.0.", "conv1", "conv2", "conv3", "downsample.0")
    thin = list(models.prunable(on_meta("resnet20")))
    assert thin == ["conv1", *(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)), "fc"]


def test_a_hidden_network_is_pruned_in_the_same_order():
    model = models.build("mobilenet_v2", num_classes=3, width=0.1, batch_norm="non_affine")
    plain = list(models.prunable(model))
    hidden = models.prunable(hn.hide(model))
    assert list(hidden) == plain
    assert all(isinstance(layer, hn.nn.hidden.HiddenMixin) for layer in hidden.values())


def test_biases_are_zero_and_where_they_belong():
    small = models.build("conv2", num_classes=3, width=0.25, bias=True)
    layers = list(models.prunable(small).values())
    assert all(layer.bias is not None and not layer.bias.any() for layer in layers)
    for name in ("resnet20", "wide_resnet28_2", "mobilenet_v2", "vgg16", "resnet18"):
        model = models.build(name, num_classes=3, width=0.1, bias=True, batch_norm="non_affine")
        assert [key for key, _ in model.named_parameters() if key.endswith("bias")] == [f"{model.last_layer}.bias"]
        assert not model.get_parameter(f"{model.last_layer}.bias").any()
    for name in ("lenet5", "ramanujan_net", "fc1000_3"):
        model = on_meta(name, bias=True)
        assert all(layer.bias is not None for layer in models.prunable(model).values())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("conv4", {"stem_scaled": False}, "stem_scaled: expected True for conv4, got False; it is for cifar_resnet101"),
        (
            "resnet20",
            {"conv_bias": True},
            "conv_bias: expected False for resnet20, got True; it is for tiny_vgg16, vgg11",
        ),
        ("resnext50_32x4d", {"width": 0.3}, "width: expected convolutions that can be split into 32 groups, got 0.3; "),
        ("resnet20", {"stem_scaled": False}, "stem_scaled: expected True for resnet20"),
        ("conv4", {"bias": 1}, "bias: expected true or false, got 1"),
        ("resnet18", {"stem_scaled": None}, "stem_scaled: expected true or false, got None"),
        ("lenet5", {"image_size": 11}, "image_size: expected at least 12 for this network, got 11"),
        ("ramanujan_net", {"image_size": 5}, "image_size: expected at least 6 for this network, got 5"),
        ("vgg16", {"image_size": 31}, "image_size: expected at least 32 for a network with 5 poolings, got 31"),
        ("mobilenet_v2", {"width": 0.01}, "width: expected at least one channel"),
    ],
)
def test_impossible_requests_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        on_meta(name, **arguments)


def test_an_architecture_without_the_newer_keys_still_builds():
    architecture = dict(on_meta("cifar_resnet18", width=0.5).architecture)
    newer = {key: architecture.pop(key) for key in ("bias", "conv_bias", "stem_scaled", "layers", "dropout")}
    with torch.device("meta"):
        model = models.build(**architecture)
    assert model.architecture == {**architecture, **newer}


def test_the_example_net_drops_channels_and_units_in_training_only():
    torch.manual_seed(0)
    model = models.build("ramanujan_net", num_classes=10)
    assert model.fc1.in_features == 9216
    images = torch.randn(4, 1, 28, 28)
    seen = []
    model.fc1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].view(4, 64, 144)))
    model(images)
    dropped = (seen[0] == 0).all(2)
    assert 20 < dropped.sum() < 110  # of 256 channels at 0.25, all pixels of one together
    assert torch.equal(dropped, (seen[0] == 0).any(2))
    with torch.no_grad():
        assert torch.equal(model.eval()(images), model(images))
    assert isinstance(model.dropout2, nn.Dropout) and model.dropout2.p == 0.5
