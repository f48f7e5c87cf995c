"""Whole networks against stored values of the rare-gems code: logits in training and evaluation, loss, score gradients.

The layers are filled by closed formulas in module order, so the architecture alone is on trial.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hiddennet import models
from tests.golden import Golden

pytestmark = pytest.mark.isa

# the original's name: ours, classes, side of the images
NETWORKS = {
    "resnet20": ("resnet20", 10, 32),
    "resnet32": ("resnet32", 10, 32),
    "resnet32_double": ("resnet32_double", 100, 32),
    "cResNet18": ("cifar_resnet18", 10, 32),
    "TinyResNet18": ("tiny_resnet18", 200, 64),
    "ResNet50": ("resnet50", 1000, 64),
    "WideResNet28": ("wide_resnet28_2", 10, 32),
    "MobileNetV2": ("mobilenet_v2", 10, 32),
    "vgg16": ("vgg16", 10, 32),
    "Conv4": ("conv4", 10, 32),
}
# How far logits in float32 are from float64 where batch norms see few values (4 images of 2x2 or 1x1 pixels),
# with room for another machine's; gradients amplify it once more, where a ReLU changes sides.
ROUNDING = {"resnet50": 2e-3, "tiny_resnet18": 1e-4, "mobilenet_v2": 1e-4, "vgg16": 1e-4}
PARTS = ("train_logits", "loss", "score_gradnorm", "subnet_sizes", "eval_logits")


def sine(shape, frequency, phase, amplitude=1.0):
    steps = torch.arange(math.prod(shape), dtype=torch.float64)
    return (amplitude * torch.sin(frequency * steps + phase)).float().view(shape)


def filled(layer, number):
    """Effective weight of a layer and d effective / d score, from the formulas."""
    shape = tuple(layer.weight.shape)
    weight = sine(shape, 1.3 + 0.011 * number, 0.3 * number, 2 / math.sqrt(math.prod(shape[1:])))
    scores = 0.5 + 0.5 * sine(shape, 0.9 + 0.017 * number, 0.2 * number)
    flags = sine(shape, 2.1 + 0.019 * number, 0.1 * number) > -0.8
    return weight * (scores > 0.5) * flags, weight * flags


@pytest.mark.parametrize("original", NETWORKS)
def test_the_original(original):
    stored = Golden("rare_gems")
    golden = {part: stored[f"L_{original}_{part}"] for part in PARTS}
    name, classes, side = NETWORKS[original]
    model = models.build(name, num_classes=classes, image_size=side, batch_norm="non_affine")
    layers = list(models.prunable(model).values())
    surrogates = []
    with torch.no_grad():
        for number, layer in enumerate(layers):
            effective, surrogate = filled(layer, number)
            layer.weight.copy_(effective)
            surrogates.append(surrogate)
    images = sine((4, 3, side, side), 0.0137, 0.2) * sine((4, 1, 1, 1), 1.0, 0.5)
    labels = torch.tensor([1, 3, 5, 7])

    logits = model.train()(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    with torch.no_grad():
        evaluated = model.eval()(images)
    norms = [(layer.weight.grad * s).norm().item() for layer, s in zip(layers, surrogates, strict=True)]

    assert golden["subnet_sizes"].tolist() == [layer.weight.numel() for layer in layers]
    shown = golden["train_logits"].shape[1]
    deep = ROUNDING.get(name, 1e-5)
    np.testing.assert_allclose(logits.detach()[:, :shown].numpy(), golden["train_logits"], rtol=1e-4, atol=deep)
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-4)
    np.testing.assert_allclose(norms, golden["score_gradnorm"], rtol=max(1e-2, 50 * deep))
    np.testing.assert_allclose(evaluated[:, :shown].numpy(), golden["eval_logits"], rtol=1e-4, atol=1e-5)
