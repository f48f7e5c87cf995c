"""The models by name: exact weight counts, shapes, parameter names, refused arguments."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from hiddennet import models

# name: (weights of convolutions and classifier, number of those layers, batch norms, num_classes)
COUNTS = {
    "fc": (266_200, 3, 0, 10),
    "conv2": (4_300_992, 5, 0, 10),
    "conv4": (2_425_024, 7, 0, 10),
    "conv6": (2_261_184, 9, 0, 10),
    "conv4_bn": (2_425_024, 7, 6, 10),
    "conv6_bn": (2_261_184, 9, 8, 10),
    "conv8": (5_275_840, 11, 0, 10),
    "digits_mlp": (64 * 512 + 512 * 512 + 5120, 3, 0, 10),
    "digits_conv": (288 + 18_432 + 1024 * 256 + 2560, 4, 0, 10),
    "cifar_resnet18": (11_164_352, 21, 20, 10),
    "cifar_resnet34": (21_265_088, 37, 36, 10),
    "cifar_resnet50": (23_467_712, 54, 53, 10),
    "cifar_resnet101": (42_407_616, 105, 104, 10),
    # 152: as ImageNet's 60 040 384 less its larger stem (7 680) and 990 classes (2 027 520)
    "cifar_resnet152": (58_005_184, 156, 155, 10),
    "resnet18": (11_678_912, 21, 20, 1000),
    "resnet34": (21_779_648, 37, 36, 1000),
    "resnet50": (25_502_912, 54, 53, 1000),
    "resnet152": (60_040_384, 156, 155, 1000),
    "resnext50_32x4d": (24_959_680, 54, 53, 1000),
    "resnext101_32x8d": (88_587_456, 105, 104, 1000),
    "resnet101": (44_442_816, 105, 104, 1000),
    "wide_resnet50_2": (68_814_016, 54, 53, 1000),
    "wide_resnet101_2": (126_747_840, 105, 104, 1000),
    "tiny_resnet18": (11_269_312, 21, 20, 200),
    "resnet20": (268_336, 20, 19, 10),
    "resnet32": (461_872, 32, 31, 10),
    "resnet32_double": (1_856_864, 32, 31, 100),
    "resnet20_projection": (270_896, 22, 21, 10),
    "resnet110_projection": (1_722_416, 112, 111, 10),
    "wide_resnet28_10": (36_461_232, 29, 25, 10),
    "wide_resnet28_2": (1_463_984, 29, 25, 10),
    "mobilenet_v1": (3_195_328, 28, 27, 10),
    "mobilenet_v2": (2_261_824, 58, 57, 10),
    "vgg11": (9_222_848, 9, 8, 10),
    "vgg13": (9_407_168, 11, 10, 10),
    "vgg19": (20_024_000, 17, 16, 10),
    "vgg16": (14_715_584, 14, 13, 10),
    "tiny_vgg16": (14_812_864, 14, 13, 200),
    "lenet5": (150 + 2400 + 48_000 + 10_080 + 840, 5, 0, 10),
    "ramanujan_net": (288 + 18_432 + 9216 * 128 + 1280, 4, 0, 10),
    "fc1000_1": (794_000, 2, 0, 10),
    "fc1000_2": (1_794_000, 3, 0, 10),
    "fc1000_3": (2_794_000, 4, 0, 10),
}


def on_meta(name, **arguments):
    with torch.device("meta"):
        return models.build(name, **{"num_classes": 10, **arguments})


def weighted(model):
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def test_every_name_is_counted_here():
    assert models.names() == sorted([*COUNTS, *models.GRAPHS, "lstm_lm"])


@pytest.mark.parametrize("name", COUNTS)
def test_weight_counts(name):
    weights, layers, norms, classes = COUNTS[name]
    model = on_meta(name, num_classes=classes, batch_norm="non_affine")
    assert sum(p.numel() for p in model.parameters()) == weights
    assert len(weighted(model)) == layers
    assert all(m.bias is None for m in weighted(model))
    assert len([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]) == norms


@pytest.mark.parametrize(
    ("name", "classes", "total"),
    [
        ("cifar_resnet18", 10, 11_173_952),
        ("resnet18", 1000, 11_688_512),
        ("resnet50", 1000, 25_556_032),
        ("wide_resnet50_2", 1000, 68_882_240),
        ("mobilenet_v1", 1000, 4_231_976 - 1000),  # the paper's network, less the classifier's bias
    ],
)
def test_totals_with_affine_batch_norm(name, classes, total):
    model = on_meta(name, num_classes=classes, batch_norm="affine")
    assert sum(p.numel() for p in model.parameters()) == total


@pytest.mark.parametrize(
    ("name", "width", "weights"),
    [
        ("conv4", 0.25, 152_368),
        ("conv6", 0.25, 142_128),
        ("conv4", 0.5, 607_328),
        ("conv6", 0.5, 566_368),
        ("conv4", 1, 2_425_024),
        ("conv6", 1, 2_261_184),
        ("conv4", 2, 9_691_520),
        ("conv6", 2, 9_036_160),
    ],
)
def test_width_multiplies_channels_but_not_input_and_output(name, width, weights):
    model = on_meta(name, width=width)
    assert sum(p.numel() for p in model.parameters()) == weights
    assert model.convs[0].in_channels == 3
    assert weighted(model)[-1].out_features == 10


def test_width_truncates_and_scales_residual_networks():
    model = on_meta("resnet50", width=0.3)
    assert model.conv1.out_channels == int(64 * 0.3) == 19
    assert model.layer4[0].conv1.out_channels == int(512 * 0.3)
    assert model.fc.in_features == 4 * int(512 * 0.3)
    assert on_meta("fc", width=0.5).linear[0].out_features == 150


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101",
                                  "resnet152", "resnext50_32x4d", "resnext101_32x8d",
                                  "wide_resnet50_2", "wide_resnet101_2"])  # fmt: skip
def test_imagenet_networks_have_torchvisions_names_and_shapes(name):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
    del theirs["fc.bias"]
    ours = on_meta(name, num_classes=1000).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_imagenet_networks_compute_what_torchvision_does(name):
    torchvision = pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=7)
    nn.init.zeros_(theirs.fc.bias)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    ours = models.build(name, num_classes=7)
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["fc.bias"])
    images = torch.randn(1, 3, 64, 64, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_parameter_names_of_the_small_networks():
    def keys(name):
        return list(on_meta(name).state_dict())

    assert keys("fc") == [f"linear.{i}.weight" for i in (0, 2, 4)]
    convs = [0, 2, 5, 7, 10, 12, 15, 17]
    for depth in (2, 4, 6, 8):
        expected = [f"convs.{i}.weight" for i in convs[:depth]]
        assert keys(f"conv{depth}") == expected + [f"linear.{i}.weight" for i in (0, 2, 4)]


def test_parameter_names_of_the_cifar_networks():
    state = on_meta("cifar_resnet50", batch_norm="non_affine").state_dict()
    weights = [key for key in state if key.endswith("weight")]
    block = "layer2.0."
    assert weights[0] == "conv1.weight"
    assert weights[-1] == "fc.weight"
    assert [key for key in weights if key.startswith(block)] == [
        block + part for part in ("conv1.weight", "conv2.weight", "conv3.weight",
                                  "shortcut.0.weight")
    ]  # fmt: skip
    assert "layer2.0.shortcut.1.running_mean" in state
    assert "layer4.2.bn3.running_var" in state
    assert "layer2.1.shortcut.0.weight" not in state


@pytest.mark.parametrize("name", COUNTS)
def test_a_batch_of_one_and_first_and_last_layer(name):
    model = on_meta(name, num_classes=7)
    channels, size = model.architecture["in_channels"], model.architecture["image_size"]
    images = torch.zeros(1, channels, size, size, device="meta")
    assert model.eval()(images).shape == (1, 7)
    modules = dict(model.named_modules())
    layers = weighted(model)
    assert modules[model.first_layer] is layers[0]
    assert modules[model.last_layer].weight.shape[0] == 7
    assert isinstance(modules[model.last_layer], nn.Conv2d if name.endswith("_bn") else nn.Linear)


@pytest.mark.parametrize("name", ["fc", "digits_conv", "conv4", "cifar_resnet18", "resnet18", "resnet20",
                                  "wide_resnet28_2", "mobilenet_v1", "mobilenet_v2", "lenet5",
                                  "ramanujan_net"])  # fmt: skip
def test_channels_and_image_size_are_honoured(name):
    model = on_meta(name, in_channels=2, image_size=20, num_classes=3)
    assert model(torch.zeros(4, 2, 20, 20, device="meta")).shape == (4, 3)


@pytest.mark.parametrize("name", ["digits_conv", "conv2", "conv4_bn", "cifar_resnet18", "resnet20",
                                  "resnet20_projection", "wide_resnet28_2", "wide_resnet28_10", "mobilenet_v1",
                                  "mobilenet_v2", "vgg16", "lenet5"])  # fmt: skip
def test_a_batch_of_one_equals_its_row_of_a_larger_batch(name):
    torch.manual_seed(0)
    model = models.build(name, num_classes=5, width=0.25).eval()
    channels, size = model.architecture["in_channels"], model.architecture["image_size"]
    images = torch.randn(3, channels, size, size)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[1:2], model(images[1:2]))
        last = images.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(last), model(images))


@pytest.mark.parametrize("kind", ["affine", "non_affine", "none"])
def test_batch_norm_kinds(kind):
    model = on_meta("cifar_resnet18", batch_norm=kind)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == (0 if kind == "none" else 20)
    assert all(m.affine == (kind == "affine") and m.track_running_stats for m in norms)
    assert isinstance(model.layer1[0].bn1, nn.Identity) == (kind == "none")


@pytest.mark.parametrize(("name", "size"), [("digits_mlp", 8), ("conv4", 32), ("cifar_resnet18", 32), ("resnet50", 32),
                                            ("resnet20", 32), ("wide_resnet28_2", 32), ("mobilenet_v1", 32),
                                            ("mobilenet_v2", 32), ("lenet5", 28)])  # fmt: skip
def test_gradients_reach_every_parameter(name, size):
    torch.manual_seed(1)
    model = models.build(name, num_classes=4, width=1 if name == "lenet5" else 0.125, image_size=size)
    images = torch.randn(4, model.architecture["in_channels"], size, size)
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_architecture_makes_the_model_again():
    model = on_meta("conv4", width=0.5, num_classes=6, in_channels=1, image_size=28)
    with torch.device("meta"):
        again = models.build(**model.architecture)
    assert again.architecture == model.architecture
    assert str(again) == str(model)


def test_copies_and_pickles():
    model = models.build("cifar_resnet18", num_classes=3, width=0.0625).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(images), model(images))
            assert twin.architecture == model.architecture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "conv5"}, r"model: expected one of .*got 'conv5'; did you mean 'conv\d'"),
        ({"name": "cResNet18"}, "did you mean '(cifar_)?resnet18'"),
        ({"name": "zzz"}, "model: expected one of"),
        ({"num_classes": 0}, "num_classes: expected a whole number of at least 1, got 0"),
        ({"in_channels": 1.5}, "in_channels: expected a whole number"),
        ({"image_size": 0}, "image_size: expected a whole number"),
        ({"image_size": 3}, "image_size: expected at least 4 .* 2 poolings, got 3"),
        ({"width": 0}, "width: expected a positive number, got 0"),
        ({"width": float("nan")}, "width: expected a positive number"),
        ({"width": 0.01}, "width: expected at least one channel .* layer of 64"),
        ({"name": "dnw_static", "graph": 3}, "graph: expected a map of keys .* got 3"),
        ({"name": "dnw_static", "graph": {"steps": 3}}, "model.graph.steps: expected a key of dnw_static"),
        ({"graph": {"steps": 3}}, "graph: expected None for conv4, got {'steps': 3}; it is for dnw_continuous"),
        ({"batch_norm": "learned"}, "batch_norm: expected one of affine, non_affine, none"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(**{"name": "conv4", "num_classes": 10, **arguments})


def test_importing_the_models_needs_no_torchvision():
    code = "import sys, hiddennet.models as m; m.names(); sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
