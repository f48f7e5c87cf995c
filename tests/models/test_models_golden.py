"""Whole networks against what the original computes: same seeds, same masks, same loss.

The original's draws are redone here in its order (weights, then scores, layer by layer), so only
the architecture is on trial: order, strides, padding, pooling, flattening, skips.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hiddennet import models

# The original at seed 0, signed constants, k = 0.5, images sin(0.013 i), labels 0..3:
# loss, sum |W|, sum W, sum |dL/dS| = sum |W * dL/d(W * mask)|, weights kept
ORIGINAL = {
    "conv2": (2.3036422729, 55002.3761, 5.3990, 198.0448, 2150496),
    "conv4": (2.2726643085, 51917.8912, 66.4820, 85.6953, 1212512),
    "conv6": (2.2748141289, 71986.2225, 2.4341, 57.1455, 1130592),
    "conv8": (2.2916715145, 149107.4620, 42.3419, 45.5658, 2637920),
    "cifar_resnet18": (2.0351703167, 296018.3524, 125.4474, 2550.7179, 5582176),
}


def draw_as_the_original(weight):
    """Signed constants and the mask of the upper half of |scores|, both shaped like ``weight``."""
    shape = weight.shape if weight.dim() == 4 else (*weight.shape, 1, 1)
    drawn = nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))
    scores = nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))
    constant = math.sqrt(2) / math.sqrt(math.prod(shape[1:]))
    order = scores.abs().flatten().argsort(stable=True)
    mask = torch.ones(order.numel())
    mask[order[: int(0.5 * order.numel())]] = 0
    return (drawn.sign() * constant).view_as(weight), mask.view_as(weight)


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_original_at_seed_0(name):
    loss, weight_abs, weight_sum, gradient_abs, kept = ORIGINAL[name]
    model = models.build(name, num_classes=10, batch_norm="non_affine").train()
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    torch.manual_seed(0)
    drawn = [draw_as_the_original(layer.weight) for layer in layers]
    with torch.no_grad():
        for layer, (weight, mask) in zip(layers, drawn, strict=True):
            layer.weight.copy_(weight * mask)
    images = torch.sin(0.013 * torch.arange(12288, dtype=torch.float64)).float()
    found = F.cross_entropy(model(images.view(4, 3, 32, 32)), torch.arange(4))
    found.backward()

    def total(tensors):
        return sum(t.double().sum().item() for t in tensors)

    assert total(mask for _, mask in drawn) == kept
    assert total(w.abs() for w, _ in drawn) == pytest.approx(weight_abs, abs=1e-3)
    assert total(w for w, _ in drawn) == pytest.approx(weight_sum, abs=1e-3)
    assert found.item() == pytest.approx(loss, abs=1e-4)
    gradients = ((w * m.weight.grad).abs() for m, (w, _) in zip(layers, drawn, strict=True))
    assert total(gradients) == pytest.approx(gradient_abs, rel=1e-3)
