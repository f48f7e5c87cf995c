"""Iterative magnitude pruning: the original's counts, exact counts, and what is gone back to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.methods.strike import strike_layers
from tests.methods.rare_gems import golden, method_of


def two_layers(values) -> nn.Module:
    weights = torch.from_numpy(values["K_w"])
    model = nn.Sequential(nn.Linear(6, 10, bias=False), nn.Linear(5, 6, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(weights[:60].view(10, 6))
        model[1].weight.copy_(weights[60:].view(6, 5))
    ones = lambda _, module: hn.Fixed(torch.ones_like(module.weight, dtype=torch.bool))  # noqa: E731
    return hn.hide(model, source=hn.Stored(trainable=True), rule=ones)


@pytest.mark.parametrize("more", [0, 1])
def test_rounds_keep_what_the_original_keeps_or_one_more(more):
    values = golden()
    model, left = two_layers(values), []
    for round in range(4):
        strike_layers(hn.hidden_layers(model), 0.2, "global", more=more)
        mask = torch.cat([m.flatten() for m in hn.masks(model).values()])
        left.append(int(mask.sum()))
        if more:
            assert np.array_equal(mask.numpy(), values["K_mask_per_round"][round].astype(bool))
    assert left == (values["K_remaining"].tolist() if more else [72, 57, 45, 36])


def imp(tmp_path, **method):
    document = {
        "method": {"name": "imp", "rounds": 2, "rate": 0.25, **method},
        "optimizer": {"lr": 0.1},
        "train": {"epochs": 1, "device": "cpu"},
    }
    return method_of(tmp_path, document)


def moved(model: nn.Module) -> dict[str, torch.Tensor]:
    """Change all weights as training would; return copies."""
    with torch.no_grad():
        for name, layer in hn.hidden_layers(model).items():
            layer.stored.add_(
                0.01 * torch.randn(layer.stored.shape, generator=torch.Generator().manual_seed(len(name)))
            )
    return {name: layer.stored.detach().clone() for name, layer in hn.hidden_layers(model).items()}


@pytest.mark.parametrize("step", [0, 3])
def test_weights_go_back_to_the_start_or_to_an_early_step(tmp_path, step):
    model, method = imp(tmp_path, rewind_step=step)
    start = {name: layer.stored.detach().clone() for name, layer in hn.hidden_layers(model).items()}
    states = {0: start}
    for at in (1, 2, 3, 4):
        states[at] = moved(model)
        method.after_update(model, at)
    method.enter_stage(model, 1)
    total = 0
    for name, layer in hn.hidden_layers(model).items():
        mask = layer.mask()
        assert torch.equal(layer.stored, torch.where(mask, states[step][name], 0.0)), name
        total += int(mask.sum())
    assert total == 1344 - 336
    magnitudes = torch.cat([states[4][n].abs().flatten() for n in states[4]])
    kept = torch.cat([m.flatten() for m in hn.masks(model).values()])
    assert float(magnitudes[~kept].max()) < float(magnitudes[kept].min())


def test_renda_keeps_the_weights(tmp_path):
    model, method = imp(tmp_path, rewind="learning_rate")
    after = moved(model)
    method.enter_stage(model, 1)
    for name, layer in hn.hidden_layers(model).items():
        assert torch.equal(layer.stored, torch.where(layer.mask(), after[name], 0.0))


def test_pruned_weights_stay_at_zero_while_the_others_learn(tmp_path):
    model, method = imp(tmp_path)
    method.enter_stage(model, 1)
    optimizer = method.optimizer(model, method.stages[1].optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    for layer in hn.hidden_layers(model).values():
        assert not layer.stored[~layer.mask()].any()
        assert layer.stored[layer.mask()].all()


def test_a_step_that_never_came_is_named(tmp_path):
    model, method = imp(tmp_path, rewind_step=1000)
    method.steps_per_epoch = 6
    with pytest.raises(ValueError, match="expected a step of the first round, which had 6, got 1000"):
        method.enter_stage(model, 1)


def test_stages_are_rounds(tmp_path):
    _, method = imp(tmp_path, first_epochs=3)
    assert [(s.name, s.epochs) for s in method.stages] == [("round 0", 3), ("round 1", 1), ("round 2", 1)]
    assert method.epochs == 5
