"""Gem-Miner's original step gives what the original gave, and the sides that are timed compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from bench import nets, originals, originals_gem_miner, step_search
from bench.harness import Unequal
from bench.originals_gem_miner import GemMinerConv2d, OriginalTrainee
from tests.golden import Golden

CPU = torch.device("cpu")
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def values():
    file = Golden("rare_gems")
    return {name: torch.from_numpy(file[name]) for name in file if name[:2] in ("A_", "G_", "L_", "T_")}


def sine(shape, frequency: float, phase: float, amplitude: float = 1.0) -> torch.Tensor:
    """The golden values' fill: amplitude sin(frequency i + phase), computed in float64."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (amplitude * torch.sin(frequency * i + phase)).float().view(shape)


def test_layer(values):
    layer = GemMinerConv2d(3, 4, 3)
    layer.weight.data, layer.scores.data = values["A_conv_w"], values["A_conv_s01"]
    layer.flag.data = values["A_conv_flag"].int()
    x = values["A_conv_x"].requires_grad_()
    y = layer(x)
    y.backward(values["A_conv_G"])
    for got, want in ((y, "out"), (x.grad, "gx"), (layer.scores.grad, "gs")):
        torch.testing.assert_close(got, values[f"A_conv_hcq50_{want}"], **TOLERANCE)
    assert layer.bias_scores.grad is None and layer.weight.grad is None


def test_rounding_is_strict(values):
    scores = values["A_tie_scores"].float()
    mask = originals_gem_miner.rounded(scores, torch.ones(scores.shape, dtype=torch.int32))
    assert torch.equal(mask, values["A_tie_mask"])


def test_network(values):
    model = originals.build("resnet20", GemMinerConv2d)
    for i, layer in enumerate(nets.weighted(model)):
        shape = layer.weight.shape
        fan_in = shape[1:].numel()
        layer.weight.data = sine(shape, 1.3 + 0.011 * i, 0.3 * i, 2 / fan_in**0.5)
        layer.scores.data = 0.5 + 0.5 * sine(shape, 0.9 + 0.017 * i, 0.2 * i)
        layer.flag.data = (sine(shape, 2.1 + 0.019 * i, 0.1 * i) > -0.8).int()
    x = sine((4, 3, 32, 32), 0.0137, 0.2) * sine((4, 1, 1, 1), 1.0, 0.5)
    logits = model(x)
    loss = nn.functional.cross_entropy(logits, torch.tensor([1, 3, 5, 7]))
    loss.backward()
    torch.testing.assert_close(logits, values["L_resnet20_train_logits"], rtol=1e-4, atol=1e-4)
    assert loss.item() == pytest.approx(values["L_resnet20_loss"].item(), rel=1e-4)
    norms = torch.stack([layer.scores.grad.norm() for layer in nets.weighted(model)]).double()
    torch.testing.assert_close(norms, values["L_resnet20_score_gradnorm"], rtol=1e-3, atol=1e-5)


def test_penalty(values):
    model = nn.Sequential(*(GemMinerConv2d(1, n, 1) for n in values["T_layer_sizes"].tolist()))
    for layer, scores in zip(model, values["T_scores0"].split(values["T_layer_sizes"].tolist()), strict=True):
        layer.scores.data = scores.view(layer.scores.shape).clone()
    found = originals_gem_miner.penalty(model, 1e-3)
    found.backward()
    assert found.item() == pytest.approx(values["G_L2_value"].item(), rel=1e-4)
    torch.testing.assert_close(model[0].scores.grad.flatten(), values["G_L2_grad0"].flatten(), **TOLERANCE)
    assert all(layer.bias_scores.grad is None for layer in model)


def test_accuracies():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0], [3.0, 1.0, 2.0]])
    labels = torch.tensor([0, 2, 1, 1])
    shares = originals_gem_miner.accuracies(logits, labels, ranks=(1, 2, 3))
    assert [share.item() for share in shares] == [25.0, 50.0, 100.0]


def test_original_step_clamps_counts_and_moves_all_scores():
    model = nn.Sequential(GemMinerConv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layer = model[0]
    with torch.no_grad():
        layer.scores[0] = 2.0
        layer.flag[1] = 0
        layer.bias_scores.fill_(-1.0)
    sgd = originals_gem_miner.sgd(model, 0.1)
    trainee = OriginalTrainee(model, sgd, torch.randn(4, 3, 8, 8), torch.arange(4), l2=0.01)
    before = layer.scores.detach().clamp(0, 1)
    trainee.step()
    assert layer.bias_scores.item() == 0.0  # clamped, then left alone: it has no gradient
    torch.testing.assert_close(layer.scores[1], before[1] * (1 - 0.1 * 2 * 0.01))  # pruned: the regulariser alone
    assert layer.scores.max() < 1.1
    assert len(trainee.seen) == 4 and trainee.seen[3] == 100.0


@pytest.fixture(scope="module")
def gem_miner():
    """A tiny batch on both sides; weights, scores and flags are equal."""

    def build(channels_last: bool = False):
        model = step_search.build_gem_miner("resnet20", CPU)
        mine, dense = nets.trainees(
            "resnet20", 2, CPU, channels_last=channels_last, model=model, optimizer=step_search.score_sgd
        )
        return mine, dense, step_search.original_gem_miner(mine, originals.build("resnet20", GemMinerConv2d))

    return build


@pytest.mark.parametrize("channels_last", [False, True])
def test_gem_miner_sides_are_equal(gem_miner, channels_last):
    mine, dense, original = gem_miner(channels_last)
    assert hn.density(mine.model) == pytest.approx(0.1, abs=0.01)  # a fifth is left, half of it rounded to 1
    nets.check_dense(mine, dense, 1e-4)
    nets.check_original(mine, original, 1e-2 if channels_last else 1e-4)
    step_search.check_step(mine, original, 1e-2)
    assert all(group["lr"] == nets.RATE for group in mine.optimizer.param_groups)


def test_gem_miner_is_not_timed_when_a_step_differs(gem_miner):
    mine, _, original = gem_miner()
    original.l2 = 0.1
    with pytest.raises(Unequal, match="what a step adds to the scores"):
        step_search.check_step(mine, original, 1e-2)
    mine, _, original = gem_miner()
    mine.optimizer.set_flags(dict.fromkeys((layer.scores for layer in nets.hidden_list(mine.model)), None))
    with pytest.raises(Unequal, match="struck out to stay"):
        step_search.check_step(mine, original, 1e-2)
    with torch.no_grad():
        nets.weighted(original.model)[3].flag.zero_()
    with pytest.raises(Unequal, match="mask of layer 3"):
        nets.check_original(mine, original, 1e-4)


@pytest.mark.parametrize("init", step_search.INITS)
def test_iterand_sides_are_equal(init):
    mine, dense = nets.trainees(
        "conv2", 2, CPU, channels_last=False, model=step_search.build_iterand("conv2", init, CPU)
    )
    original = step_search.original_iterand(mine, "conv2")
    nets.check_dense(mine, dense, 1e-4)
    nets.check_original(mine, original, 1e-4)
    original.step()
    original.step()
    assert all(layer.weight.grad.count_nonzero() for layer in nets.weighted(original.model))
    before = [layer.source.redrawn_in_place(layer).clone() for layer in nets.hidden_list(mine.model)]
    step_search.redraws(mine.model)()
    after = [layer.source.redrawn_in_place(layer) for layer in nets.hidden_list(mine.model)]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_metered_step_is_a_step_that_counts():
    mine, _ = nets.trainees("conv2", 2, CPU, channels_last=False)
    twin, _ = nets.trainees("conv2", 2, CPU, channels_last=False)
    mine.step()
    step_search.metered(twin)()
    for a, b in zip(nets.hidden_list(mine.model), nets.hidden_list(twin.model), strict=True):
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-5, atol=1e-8)
