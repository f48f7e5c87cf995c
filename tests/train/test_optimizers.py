"""Optimiser groups, fused steps against plain ones, and what a hidden layer is told of a step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.optim import optimizers


class Net(nn.Module):
    """A convolution and norms under names that do not give them away."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.shortcut = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2))
        self.bn_like = nn.Linear(2, 3, bias=False)
        self.layer_norm = nn.LayerNorm(3)


def names(model: nn.Module, group: dict) -> set[str]:
    ids = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def test_one_group_when_everything_decays(make):
    model = Net()
    (group,) = optimizers.groups(model, make("optimizer.weight_decay=0.01").optimizer)
    assert group["weight_decay"] == 0.01
    assert len(group["params"]) == len(list(model.parameters()))


def test_batch_norm_and_biases_are_spared_by_type(make):
    model = Net()
    section = make("optimizer.batch_norm_decay=false", "optimizer.weight_decay=0.01").optimizer
    decayed, free = optimizers.groups(model, section)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert names(model, decayed) == {"first.weight", "shortcut.0.weight", "bn_like.weight"}
    assert "shortcut.1.weight" in names(model, free)
    assert names(model, decayed) | names(model, free) == dict(model.named_parameters()).keys()


def test_only_what_learns_is_given(make):
    model = Net()
    model.requires_grad_(False)
    assert optimizers.build(model, make().optimizer) is None
    model.first.weight.requires_grad_(True)
    (group,) = optimizers.build(model, make().optimizer).param_groups
    assert group["params"] == [model.first.weight]


@pytest.mark.parametrize(
    "overrides, plain",
    [
        (
            ("optimizer.nesterov=true", "optimizer.weight_decay=0.1"),
            lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1, nesterov=True, foreach=False),
        ),
        (
            ("optimizer.name=adam", "optimizer.weight_decay=0.1"),
            lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1, foreach=False),
        ),
        (
            ("optimizer.name=adamw", "optimizer.betas=[0.8, 0.9]"),
            lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.9), weight_decay=0.01, foreach=False),
        ),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_equal_torchs_plain_ones(make, overrides, plain, layout, device):
    ours = nn.Conv2d(3, 8, 3, bias=False).to(device=device, memory_format=layout)
    twin = nn.Conv2d(3, 8, 3, bias=False).to(device)
    twin.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 6, 6, device=device)
    optimizer = optimizers.build(ours, make(*overrides).optimizer)
    other = plain(twin.parameters())
    for _ in range(3):
        for model in (ours, twin):
            model.zero_grad()
            model(images.to(memory_format=layout)).square().mean().backward()
        optimizers.step(optimizer)
        other.step()
    torch.testing.assert_close(ours.weight, twin.weight, rtol=1e-5, atol=1e-6)


def test_a_step_outdates_the_selection(make):
    model = hn.hide(nn.Sequential(nn.Linear(6, 4, bias=False)))
    optimizer = optimizers.build(model, make("optimizer.lr=10.0").optimizer)
    model(torch.randn(2, 6)).square().sum().backward()
    optimizers.step(optimizer)
    model.eval()
    model(torch.randn(2, 6))
    layer = model[0]
    want = hn.ops.topk_mask(layer.scores.detach(), layer.k, by="magnitude")
    assert torch.equal(layer.mask(), want)
    layer_weight = layer.effective_weight().detach()
    assert torch.equal(layer_weight != 0, want)


@pytest.mark.parametrize(("clip", "factor"), [("null", 1.0), (1000.0, 1.0), (0.5, 0.5)])
def test_long_gradients_are_shortened_together(make, clip, factor):
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    before = [p.detach().clone() for p in model.parameters()]
    section = make("optimizer.lr=1.0", "optimizer.momentum=0.0", "optimizer.weight_decay=0.0",
                   f"optimizer.clip_norm={clip}").optimizer  # fmt: skip
    optimizer = optimizers.build(model, section)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) / (12 + 8) ** 0.5  # of norm 1 together
    optimizers.step(optimizer, section.clip_norm)
    for parameter, old in zip(model.parameters(), before, strict=True):
        step = torch.full_like(old, factor / 20**0.5)
        torch.testing.assert_close(old - parameter.detach(), step, rtol=1e-5, atol=1e-6)
