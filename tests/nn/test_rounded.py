"""Gem-Miner's rule: scores rounded among the weights that are not struck out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import ops
from tests.golden import Golden

pytestmark = pytest.mark.isa


@pytest.fixture(scope="module")
def golden():
    return Golden("rare_gems")


def layer_of(golden, rule) -> nn.Module:
    layer = hn.HiddenConv2d(3, 4, 3, padding=1, source=hn.Stored(torch.from_numpy(golden["A_conv_w"])), rule=rule)
    with torch.no_grad():
        layer.scores.copy_(torch.from_numpy(golden["A_conv_s01"]))
        layer.flags.copy_(ops.pack_mask(torch.from_numpy(golden["A_conv_flag"]).bool()))
    return layer


CASES = [("hc", {"quantized": False}), ("hcq50", {}), ("hcq75", {"threshold": 0.75})]


@pytest.mark.parametrize("mode, options", CASES)
def test_forward_and_gradients_are_the_originals(golden, mode, options):
    layer = layer_of(golden, hn.Rounded(**options))
    x = torch.from_numpy(golden["A_conv_x"]).requires_grad_()
    out = layer(x)
    (out * torch.from_numpy(golden["A_conv_G"])).sum().backward()
    for name, got in (("out", out), ("gx", x.grad), ("gs", layer.scores.grad)):
        key = f"A_conv_{mode}_{name}"
        np.testing.assert_allclose(got.detach().numpy(), golden[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_rounding_is_strict(golden):
    scores = torch.from_numpy(golden["A_tie_scores"])
    layer = hn.HiddenLinear(scores.numel(), 1, rule=hn.Rounded())
    with torch.no_grad():
        layer.scores.copy_(scores.view(1, -1))
    assert torch.equal(layer.mask().flatten(), torch.from_numpy(golden["A_tie_mask"]).flatten().bool())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_gradient_of_a_learned_threshold_is_that_of_all_scores_with_its_sign(sign):
    torch.manual_seed(2)
    layer = hn.HiddenLinear(6, 5, rule=hn.Rounded(learn_threshold=True, threshold_gradient=sign))
    with torch.no_grad():
        layer.scores.uniform_()
    layer(torch.randn(3, 6)).square().sum().backward()
    assert float(layer.threshold.grad) == pytest.approx(sign * float(layer.scores.grad.sum()), rel=1e-5)
    with torch.no_grad():
        layer.threshold.fill_(0.8)
    assert torch.equal(layer.mask(), layer.scores > 0.8)


def small(rule) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(20, 7))
    return hn.hide(model, rule=rule, score_init=lambda scores: scores.uniform_())


@pytest.mark.parametrize("rounding", ["naive", "probabilistic", "all_ones"])
def test_evaluation_rounds_and_training_computes_with_scores(rounding):
    model = small(hn.Rounded(quantized=False, rounding=rounding))
    layer = hn.hidden_layers(model)["2"]
    flags = torch.rand(7, 20) > 0.3
    layer.flags.copy_(ops.pack_mask(flags))
    weight = layer.source_weight()
    torch.testing.assert_close(layer.train().effective_weight(), weight * layer.scores * flags)
    revealed = layer.eval().mask()
    assert torch.equal(layer.effective_weight(), torch.where(revealed, weight, 0.0))
    if rounding == "probabilistic":
        assert torch.equal(revealed, layer.mask()) and not (revealed & ~flags).any()
        assert 0.2 < revealed[flags].float().mean() < 0.8
    else:
        assert torch.equal(revealed, flags if rounding == "all_ones" else flags & (layer.scores > 0.5))


def test_random_rounding_draws_anew_in_training_and_once_for_evaluation():
    layer = hn.hidden_layers(small(hn.Rounded(rounding="probabilistic", seed=4)))["2"]
    x = torch.randn(2, 20)
    outputs = [layer.train()(x) for _ in range(2)]
    assert not torch.equal(*outputs)
    assert torch.equal(layer.eval()(x), layer(x))


def test_noise_moves_scores_near_the_threshold_only():
    model = small(hn.Rounded(noise=0.01, seed=2)).eval()
    layer = hn.hidden_layers(model)["2"]
    changed = layer.mask() != (layer.scores > 0.5)
    assert (layer.scores[changed] - 0.5).abs().max() < 0.06 if changed.any() else True
    near = hn.hidden_layers(small(hn.Rounded(noise=1.0, seed=2)))["2"].eval()
    assert (near.mask() != (near.scores > 0.5)).float().mean() > 0.2


def test_flags_are_saved_and_loaded():
    model, other = small(hn.Rounded()), small(hn.Rounded())
    hn.hidden_layers(model)["0"].flags.zero_()
    other.load_state_dict(model.state_dict())
    assert hn.hidden_layers(other)["0"].kept() == 0
    with pytest.raises(ValueError, match="expected a state dict with rule threshold"):
        small(hn.Rounded(threshold=0.7)).load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    "options", [{"rounding": "up"}, {"noise": -1.0}, {"learn_threshold": True, "quantized": False}]
)
def test_impossible_rules_are_refused(options):
    with pytest.raises(ValueError, match="Rounded: expected"):
        hn.Rounded(**options)
