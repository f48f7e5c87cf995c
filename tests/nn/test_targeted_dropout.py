"""Targeted dropout's rule: the largest weights always, in training the others by a draw."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from tests.golden import Golden
from tests.reference import random as reference


def linear(weight: torch.Tensor, rule, layer: int = 0) -> hn.HiddenLinear:
    out, into = weight.shape
    return hn.HiddenLinear(into, out, source=hn.Stored(weight, trainable=True, layer=layer), rule=rule)


def largest(weight: torch.Tensor, k: int) -> torch.Tensor:
    order = weight.abs().flatten().sort(stable=True).indices
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[weight.numel() - k :]] = True
    return mask.view(weight.shape)


def drawn(n: int, drop: float, *, seed: int, layer: int, step: int) -> torch.Tensor:
    """What the draw of a step lets take part, candidate or not."""
    return torch.tensor(1 - drop, dtype=torch.float32) > reference.bernoulli_units(n, seed=seed, layer=layer, step=step)


def test_training_is_the_largest_and_a_draw_of_the_others(device):
    torch.manual_seed(0)
    weight, x, up = (torch.randn(shape).to(device) for shape in ((7, 30), (5, 30), (5, 7)))
    layer = linear(weight.cpu(), hn.TargetedDropout(0.3, 0.6, 11), layer=4).to(device)
    for step in (1, 2, 3):
        want = largest(weight.cpu(), 63) | drawn(210, 0.6, seed=11, layer=4, step=step).view(7, 30)
        want = want.to(device)
        layer.stored.grad = None
        inputs = x.clone().requires_grad_()
        out = layer(inputs)
        out.backward(up)
        effective = torch.where(want, weight, 0.0)
        torch.testing.assert_close(out, x @ effective.T)
        torch.testing.assert_close(inputs.grad, up @ effective)
        torch.testing.assert_close(layer.stored.grad, torch.where(want, up.T @ x, 0.0))
        assert 63 < int(want.sum()) < 210
        assert torch.equal(layer.stored, weight)
    assert layer.draw.item() == 4


def test_evaluation_is_the_largest_alone():
    torch.manual_seed(0)
    weight = torch.randn(7, 30)
    layer = linear(weight, hn.TargetedDropout(0.3, 0.6, 11)).eval()
    want = largest(weight, 63)
    assert torch.equal(layer.effective_weight(), torch.where(want, weight, 0.0))
    assert (layer.kept(), layer.density, layer.draw.item()) == (63, 0.3, 1)
    layer(torch.randn(2, 30))
    assert layer.draw.item() == 1
    assert torch.equal(layer.train().mask(), want)  # the mask is evaluation's in training, too


def test_compiled_steps_draw_as_others():
    plain, compiled = network(), network()
    turned = torch.compile(compiled, backend="eager")
    images = torch.randn(2, 3, 6, 6)
    for _ in range(3):
        assert torch.equal(plain(images), turned(images))
    assert not torch.equal(turned(images), turned(images))


@pytest.mark.parametrize("drop, running", [(0.0, 210), (1.0, 63)])
def test_nothing_and_everything_is_dropped(drop, running):
    torch.manual_seed(0)
    layer = linear(torch.randn(7, 30), hn.TargetedDropout(0.3, drop, 2))
    for _ in range(5):
        assert int(layer.weight_in_pass().count_nonzero()) == running


@pytest.mark.parametrize("drop", [0.1, 0.9])
def test_as_many_are_dropped_as_asked_and_others_each_time(drop):
    torch.manual_seed(1)
    layer = linear(torch.randn(200, 300), hn.TargetedDropout(0.1, drop, 5))
    passes = [layer.weight_in_pass() != 0 for _ in range(4)]
    for running in passes:
        took_part = (int(running.sum()) - 6000) / 54000
        assert took_part == pytest.approx(1 - drop, abs=5 * (drop * (1 - drop) / 54000) ** 0.5)
    together = (passes[0] & passes[1]).sum() - 6000
    assert float(together) / 54000 == pytest.approx((1 - drop) ** 2, abs=0.01)


def test_the_original_but_for_the_sign_that_it_loses():
    """The original computes with |w|: its values are ours without their sign, its gradients ours times the sign."""
    values = Golden("dnw")
    weight = torch.from_numpy(values["F/weight"]).float()
    layer = linear(weight, hn.TargetedDropout(0.5, 0.5)).eval()
    effective = layer.effective_weight()
    (effective * torch.from_numpy(values["F/cot"]).float()).sum().backward()
    torch.testing.assert_close(effective.abs().detach(), torch.from_numpy(values["F/td_eval_out"]).float())
    want = torch.from_numpy(values["F/td_eval_grad"]).float()
    torch.testing.assert_close(layer.stored.grad * weight.sign(), want)
    assert (effective < 0).any()


def network(scope: str = "layer", channels_last: bool = False) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5, bias=False))
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return hn.hide(model, hn.Stored(trainable=True), hn.TargetedDropout(0.25, 0.5, 9, scope=scope))


def test_memory_format_and_state_dict_change_no_draw():
    """The draws are those of the step, whatever the layout; a state dict takes the step along."""
    images = torch.randn(2, 3, 6, 6)
    plain, turned, resumed = network(), network(channels_last=True), network()
    for _ in range(2):
        first = plain(images)
        torch.testing.assert_close(first, turned(images.to(memory_format=torch.channels_last)))
    assert not torch.equal(first, plain(images))
    resumed.load_state_dict(plain.state_dict())
    assert torch.equal(plain(images), resumed(images))


def test_one_ranking_over_all_layers():
    model = network("global")
    layers = hn.hidden_layers(model)
    assert hn.density(model) == pytest.approx(0.25, abs=1e-3)
    together = torch.cat([layer.stored.flatten() for layer in layers.values()])
    want = largest(together, 214)
    found = torch.cat([mask.flatten() for mask in hn.masks(model).values()])
    assert torch.equal(found, want)
    running = 0
    model(torch.randn(2, 3, 6, 6))
    for layer in layers.values():
        running += int(layer.weight_in_pass().count_nonzero())
    assert 214 < running < together.numel()


def test_a_state_dict_of_another_rule_is_refused():
    model = network()
    other = hn.hide(
        nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5, bias=False)),
        hn.Stored(trainable=True),
        hn.TargetedDropout(0.25, 0.75, 9),
    )
    with pytest.raises(ValueError, match=r"expected a state dict with rule drop=0.75, got 0.5"):
        other.load_state_dict(model.state_dict())


def test_counts_take_the_density_as_it_is_written():
    """1 - 0.8 is 0.19999999999999996: of 10 weights 2 are pruned all the same."""
    assert hn.TargetedDropout(0.8).count(10) == 8
    assert hn.TopK(0.8, of="weights", rounding="decimal").count(10) == 8
    assert hn.TopK(0.8, of="weights").count(10) == 9


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match=r"TargetedDropout: expected drop in \[0, 1\] \(a probability\), got 1.5"):
        hn.TargetedDropout(0.5, 1.5)
    with pytest.raises(ValueError, match=r"expected a density in \[0, 1\]"):
        hn.TargetedDropout(-0.5)
    with pytest.raises(ValueError, match="expected a source that stores its weights"):
        hn.HiddenLinear(4, 4, rule=hn.TargetedDropout(0.5))
