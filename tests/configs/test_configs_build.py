"""Each of the 112 builds at its full size, with the weights it should have, and takes a step.

Full sizes are built on the meta device, where tensors have shapes and no memory; the step is taken
by a narrow network of the same architecture on a few random images, with the config's own method,
optimiser, learning rate and loss.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import config
from hiddennet.train.build import build_model
from hiddennet.train.engine import Engine
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter
from tests.configs.shipped import facts, table

WEIGHTS = {  # of the original's networks, counted there
    "FC": 266_200,
    "Conv2": 4_300_992,
    "Conv4": 2_425_024,
    "Conv6": 2_261_184,
    "Conv8": 5_275_840,
    "cResNet18": 11_164_352,
    "ResNet18": 11_678_912,
    "ResNet50": 25_502_912,
    "ResNet101": 44_442_816,
    "WideResNet50_2": 68_814_016,
    "WideResNet101_2": 126_747_840,
}
KEPT = {  # at density 0.3, layer by layer
    "ResNet18": 3_503_684,
    "ResNet50": 7_650_902,
    "ResNet101": 13_332_914,
    "WideResNet50_2": 20_644_231,
    "WideResNet101_2": 38_024_402,
}
INPUTS = {"mnist": (1, 28, 10), "cifar10": (3, 32, 10), "imagenet": (3, 224, 1000)}
ARCHES = {row.ours: facts()[row.original]["arch"] for row in table("Counterparts")}
NARROW = 0.0625


@pytest.mark.parametrize("name", ARCHES)
def test_builds_at_full_size(name):
    resolved = config.load(name)
    channels, size, classes = INPUTS[resolved.data.name]
    # a random mask is counted when it is made, which takes real memory; those networks are small
    with torch.device("cpu" if resolved.method.name == "random" else "meta"):
        model, _ = build_model(resolved, classes, channels, size)
    arch = ARCHES[name].removesuffix("Wide")
    layers = hn.hidden_layers(model)
    if resolved.method.name == "dense":
        weights = [p.numel() for n, p in model.named_parameters() if p.dim() > 1]
        assert not layers and sum(weights) == WEIGHTS[arch]
        assert all(p.requires_grad for p in model.parameters())
        return
    assert sum(layer.weight_shape.numel() for layer in layers.values()) == WEIGHTS[arch]
    assert not any(type(module) in (nn.Conv2d, nn.Linear) for module in model.modules())
    if resolved.method.name == "edge_popup" and arch in KEPT:
        assert sum(layer.k for layer in layers.values()) == KEPT[arch]


@pytest.mark.parametrize("name", ARCHES)
def test_takes_a_step(name):
    resolved = config.load(name, [f"model.width={NARROW}"])
    channels, size, _ = INPUTS[resolved.data.name]
    size = min(size, 32)
    model, method = build_model(resolved, 10, channels, size)
    engine = Engine(model, resolved, torch.device("cpu"), Ranks(), method)
    before = {key: value.clone() for key, value in tensors(model).items()}
    weights = {n: layer.effective_weight().detach() for n, layer in hn.hidden_layers(model).items()}
    images, labels = torch.randn(4, channels, size, size), torch.arange(4)
    meter = Meter(torch.device("cpu"))
    engine.step(images, labels, meter, len(images))
    assert engine.finite()
    assert math.isfinite(float(meter.read(Ranks())[0].loss))
    changed = {key for key, value in tensors(model).items() if not torch.equal(value, before[key])}
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learns <= changed
    kind = resolved.method.name
    leaf = "scores" if kind in ("edge_popup", "sampled") else "weight"
    assert any(key.endswith(leaf) for key in learns)
    if kind in ("edge_popup", "sampled"):
        assert not any(key.endswith(".weight") and "bn" not in key for key in tensors(model))
    if kind == "random":
        for layer_name, layer in hn.hidden_layers(model).items():
            assert not layer.stored.grad[~layer.mask()].any()
            assert not torch.equal(layer.effective_weight(), weights[layer_name])
    if kind in ("edge_popup", "random", "magnitude_topk"):
        assert method.density(model) == pytest.approx(resolved.method.density, abs=0.02)


def tensors(model) -> dict[str, torch.Tensor]:
    """The model's state, tensors only."""
    return {key: value for key, value in model.state_dict().items() if torch.is_tensor(value)}
