"""The networks of Chen et al. (Peek-a-Boo, ICLR 2022): counts, multiplications, what is pruned and learned, shapes.

All counts are on the meta device: nothing is drawn.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn
from hiddennet import models

# name: parameters, prunable, weights whose signs are learned, all that SGD learns, multiplications
CIFAR = {
    "conv4_bn": (2_426_816, 2_425_024, 2_425_024, 1_792, 98_306_560),
    "conv6_bn": (2_264_000, 2_261_184, 2_261_184, 2_816, 153_881_088),
    "resnet20_projection": (272_474, 270_256, 270_256, 2_218, 40.8e6),
    "resnet110_projection": (1_730_714, 1_721_776, 1_721_776, 8_938, 253.1e6),
    "cifar_resnet18": (11_173_962, 11_159_232, 11_159_232, 14_730, 555.4e6),
    "cifar_resnet34": (21_282_122, 21_259_968, 21_259_968, 22_154, 1159.4e6),
    "cifar_resnet50": (23_520_842, 23_447_232, 23_447_232, 73_610, 1297.8e6),
    "cifar_resnet101": (42_512_970, 42_387_136, 42_387_136, 125_834, 2510.0e6),
    "cifar_resnet152": (58_156_618, 57_984_704, 57_984_704, 171_914, 3722.1e6),
    "wide_resnet28_10": (36_479_194, 36_454_832, 36_454_832, 24_362, 5951.1e6),
    "vgg11": (9_231_114, 9_222_848, 9_217_728, 13_386, 152.8e6),
    "vgg13": (9_416_010, 9_407_168, 9_402_048, 13_962, 228.3e6),
    "vgg16": (14_728_266, 14_715_584, 14_710_464, 17_802, 313.2e6),
    "vgg19": (20_040_522, 20_024_000, 20_018_880, 21_642, 398.1e6),
}
IMAGENET = {
    "resnet18": (11_689_512, 11_506_880, 11_166_912, 522_600, 1814.1e6),
    "resnet34": (21_797_672, 21_607_616, 21_267_648, 530_024, None),
    "resnet50": (25_557_032, 22_734_016, 23_454_912, 2_102_120, 4089.2e6),
    "resnet101": (44_549_160, 41_673_920, 42_394_816, 2_154_344, None),
}


def on_meta(name, classes=10, **arguments):
    arguments |= {"conv_bias": True} if name.startswith("vgg") else {}
    arguments |= {} if name.endswith("_bn") else {"bias": True}
    with torch.device("meta"):
        return models.build(name, num_classes=classes, **arguments)


def multiplications(model):
    """Of convolutions and linear layers, for one image."""
    found = []

    def add(layer, _, out):
        found.append(layer.weight.numel() * (out.shape[2:].numel() if out.dim() == 4 else 1))

    for layer in models.prunable(model).values():
        layer.register_forward_hook(add)
    size = model.architecture["image_size"]
    model(torch.empty(2, 3, size, size, device="meta"))
    return sum(found)


@pytest.mark.parametrize("name", [*CIFAR, *IMAGENET])
def test_the_originals_counts(name):
    total, prunable, learned, rest, macs = {**CIFAR, **IMAGENET}[name]
    model = on_meta(name, 1000 if name in IMAGENET else 10)
    layers = models.peek_a_boo_layers(model)
    sizes = {name: layer.weight.numel() for name, layer in models.prunable(model).items()}
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(sizes[layer] for layer in layers.pruned) == prunable
    assert sum(sizes[layer] for layer in layers.learned) == learned
    assert total - learned == rest
    if macs is not None:
        assert multiplications(model) == pytest.approx(macs, abs=0.051e6 if isinstance(macs, float) else 0)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_originals_signs_of_vgg_were_learned_in_biases_too(depth):
    """Its table counts the convolutions' biases to the signs; here SGD learns them."""
    theirs = {11: (9_220_480, 10_634), 13: (9_404_992, 11_018), 16: (14_714_688, 13_578), 19: (20_024_384, 16_138)}
    model = on_meta(f"vgg{depth}")
    biases = sum(m.bias.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    _, _, learned, rest, _ = CIFAR[f"vgg{depth}"]
    assert (learned + biases, rest - biases) == theirs[depth]
    plain = models.build(f"vgg{depth}", num_classes=10, bias=True, width=0.05)
    assert [name for name, layer in models.prunable(plain).items() if layer.bias is not None] == ["classifier"]


def test_layers_that_stay_whole():
    cifar = models.peek_a_boo_layers(on_meta("cifar_resnet18"))
    assert "fc" not in cifar.pruned and "layer2.0.shortcut.0" in cifar.pruned
    imagenet = models.peek_a_boo_layers(on_meta("resnet18", 1000))
    assert set(imagenet.pruned) - set(imagenet.learned) == {"fc"}
    assert set(imagenet.learned) - set(imagenet.pruned) == {f"layer{i}.0.downsample.0" for i in (2, 3, 4)}
    small = models.peek_a_boo_layers(on_meta("conv4_bn"))
    assert small.pruned == small.learned and small.pruned[-1] == "linear.6"
    for other in ("digits_mlp", "lenet5", "mobilenet_v2"):
        model = on_meta(other)
        layers = models.peek_a_boo_layers(model)
        assert layers.pruned == layers.learned == list(models.prunable(model))


def test_layers_with_signed_inputs():
    """Found by what the layers see, over two images of noise."""
    torch.manual_seed(0)
    for name in ("conv4_bn", "resnet20_projection", "cifar_resnet50", "wide_resnet28_10", "vgg11", "resnet18"):
        model = models.build(name, num_classes=3, width=0.1)
        seen: set[nn.Module] = set()
        for layer in models.prunable(model).values():
            layer.register_forward_pre_hook(lambda m, x, seen=seen: seen.add(m) if bool((x[0] < 0).any()) else None)
        model(torch.randn(2, 3, 64, 64) if name == "resnet18" else torch.randn(2, 3, 32, 32))
        signed = [layer_name for layer_name, layer in models.prunable(model).items() if layer in seen]
        assert models.peek_a_boo_layers(model).signed == signed, name


def test_a_hidden_network_has_the_same_layers():
    model = models.build("vgg11", num_classes=3, width=0.05)
    plain = models.peek_a_boo_layers(model)
    assert models.peek_a_boo_layers(hn.hide(model)) == plain


@pytest.mark.parametrize("name", [*CIFAR, "resnext50_32x4d"])
def test_shapes(name):
    torch.manual_seed(0)
    model = models.build(name, num_classes=5, width=0.25)
    size = 32 if name in CIFAR else 64
    images = torch.randn(2, 3, size, size)
    assert model.train()(images).shape == (2, 5)
    with torch.no_grad():
        logits = model.eval()(images)
        torch.testing.assert_close(model(images[:1]), logits[:1], rtol=1e-4, atol=1e-4)
    assert logits.isfinite().all()


def test_names_of_the_small_networks_are_the_originals():
    keys = list(on_meta("conv4_bn").state_dict())
    weights = [key.removesuffix(".weight") for key in keys if key.endswith(".weight")]
    convs = [f"convs.{i}" for i in (0, 1, 3, 4, 7, 8, 10, 11)]  # convolution, batch norm, ReLU; then a pooling
    assert weights == convs + [f"linear.{i}" for i in (0, 1, 3, 4, 6)]
    state = on_meta("conv6_bn").state_dict()
    assert state["linear.0.weight"].shape == (256, 4096, 1, 1) and "convs.18.running_var" in state


def test_skip_paths_of_option_b():
    torch.manual_seed(0)
    block = models.build("resnet20_projection", num_classes=10).eval().layer2[0]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        inner = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
        expected = F.relu(inner + block.shortcut[1](F.conv2d(x, block.shortcut[0].weight, stride=2)))
        torch.testing.assert_close(block(x), expected)
    plain = on_meta("resnet20_projection")
    assert [key for key in plain.state_dict() if "shortcut.0" in key] == [
        f"layer{i}.0.shortcut.0.weight" for i in (2, 3)
    ]


def test_blocks_of_the_wide_network():
    """The skip path sees the block's input as it is, and the second convolution has the stride."""
    torch.manual_seed(0)
    model = models.build("wide_resnet28_10", num_classes=10, width=0.1).eval()
    block = model.block2[0]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        inner = F.conv2d(F.relu(block.bn1(x)), block.conv1.weight, padding=1)
        inner = F.conv2d(F.relu(block.bn2(inner)), block.conv2.weight, stride=2, padding=1)
        torch.testing.assert_close(block(x), inner + F.conv2d(x, block.shortcut.weight, stride=2))
    momenta = {name: m.momentum for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert [name for name, momentum in momenta.items() if momentum == 0.9] == ["bn1"]
    assert {momentum for name, momentum in momenta.items() if name != "bn1"} == {0.1}
