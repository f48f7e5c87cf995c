"""IteRand's rule: scores at or above the kth smallest, ties kept, in a layer and over a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.nn.kth_value import pruned_below_kth


def expected(scores: torch.Tensor, p: float) -> torch.Tensor:
    """The mask in the words of the paper's mask: kthvalue, and `score >= t`."""
    flat = scores.detach().flatten()
    kth = 1 + round(0.01 * float(p * 100) * (flat.numel() - 1))
    return scores.detach() >= flat.kthvalue(kth).values


@pytest.mark.parametrize("n, p, kth", [(1, 0.5, 1), (2, 0.5, 1), (4, 0.5, 3), (10, 0.6, 6), (11, 1.0, 11), (7, 0.0, 1)])
def test_kth_rounds_half_to_even(n, p, kth):
    assert pruned_below_kth(n, 1 - p) == kth - 1


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.6, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_masks_are_those_of_kthvalue(p, ties):
    torch.manual_seed(3)
    model = hn.hide(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(20, 7)), rule=hn.KthValue(1 - p))
    layers = hn.hidden_layers(model)
    with torch.no_grad():
        for layer in layers.values():
            layer.scores.normal_()
            if ties:
                layer.scores.copy_((layer.scores * 2).round() / 2)
    found = hn.masks(model)
    for name, layer in layers.items():
        want = expected(layer.scores, p)
        assert torch.equal(found[name], want), name
        assert layer.kept() == int(want.sum())
        alone = hn.HiddenLinear(20, 7, rule=hn.KthValue(1 - p)) if layer.weight_shape == (7, 20) else None
        if alone is not None:
            with torch.no_grad():
                alone.scores.copy_(layer.scores)
            assert torch.equal(alone.mask(), want)


def test_gradient_reaches_every_score_without_a_sign():
    torch.manual_seed(0)
    layer = hn.HiddenLinear(6, 4, source=hn.Generated("kaiming_uniform", seed=1), rule=hn.KthValue(0.5))
    x, up = torch.randn(3, 6), torch.randn(3, 4)
    layer(x).backward(up)
    weight = hn.ops.generate_weight((4, 6), "kaiming_uniform", seed=1)
    torch.testing.assert_close(layer.scores.grad, (up.T @ x) * weight)


def test_the_density_must_be_a_fraction():
    with pytest.raises(ValueError, match=r"expected a density in \[0, 1\]"):
        hn.KthValue(1.5)
