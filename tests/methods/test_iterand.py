"""IteRand's method: when is redrawn, what then changes, how scores start, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet.config import ConfigError
from hiddennet.methods import iterand

SMALL = {"name": "digits_conv", "width": 0.25}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.source_weight().clone() for name, layer in hn.hidden_layers(model).items()}


def redraws_of(run, monkeypatch, steps: int) -> list[tuple[int, int]]:
    """(step, number of the redraw) of all redraws before `steps` steps."""
    seen = []
    monkeypatch.setattr(iterand, "redraw", lambda model, number, **_: seen.append((at, number)))
    for at in range(steps):
        run.method.before_forward(run.model, at)
    return seen


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"period": 4}, [(3, 1), (7, 2), (11, 3)]),
        ({"period": 1}, [(i, i + 1) for i in range(12)]),
        ({"period": 2, "period_unit": "per_epoch"}, [(2, 1), (5, 2), (8, 3), (11, 4)]),
        ({"period": 4, "period_unit": "per_epoch"}, [(i, i + 1) for i in range(12)]),
        ({"period": None}, []),
        ({"period": 4, "rate": 0}, []),
        ({"period": 4, "rate": 0, "decay": 0.9, "mix": 0.1}, [(3, 1), (7, 2), (11, 3)]),
    ],
)
def test_the_calendar(trained, monkeypatch, options, expected):
    run = trained("iterand", model=SMALL, **options)
    run.method.steps_per_epoch = 6
    assert redraws_of(run, monkeypatch, 12) == expected


def test_more_redraws_than_steps_are_refused(trained):
    run = trained("iterand", model=SMALL, period=7, period_unit="per_epoch")
    run.method.steps_per_epoch = 6
    with pytest.raises(ValueError, match=r"expected at most as many redraws as an epoch has steps \(6\), got 7"):
        run.method.before_forward(run.model, 0)


@pytest.mark.parametrize("init", ["signed_constant", "kaiming_uniform"])
def test_scores_learn_between_redraws_that_leave_what_is_revealed(trained, init):
    run = trained("iterand", model=SMALL, init=init, period=5, rate=0.5)
    run.method.steps_per_epoch = 20
    start, losses, changed = weights(run.model), [], 0
    for step in range(20):
        before = weights(run.model)
        masks = {name: m.clone() for name, m in hn.masks(run.model).items()}
        run.method.before_forward(run.model, step)
        for name, after in weights(run.model).items():
            assert torch.equal(after[masks[name]], before[name][masks[name]])
            moved = int((after != before[name]).sum())
            assert (moved > 0) == ((step + 1) % 5 == 0 and not masks[name].all()), (step, name)
            changed += moved
        losses += run.steps(1)
    assert losses[-1] < losses[0] and changed > 0
    assert not any(torch.equal(start[name], weight) for name, weight in weights(run.model).items())
    learning = [name for name, p in run.model.named_parameters() if p.requires_grad]
    assert learning == [f"{name}.scores" for name in hn.hidden_layers(run.model)]


def test_rate_0_is_edge_popup_by_value_from_the_same_start(trained):
    mine = trained("iterand", model=SMALL, rate=0, init="signed_constant", density=0.5)
    other = trained("edge_popup", model=SMALL, by="value", density=0.5)
    with torch.no_grad():
        for a, b in zip(hn.hidden_layers(mine.model).values(), hn.hidden_layers(other.model).values(), strict=True):
            b.scores.copy_(a.scores)
            n = a.weight_shape.numel()  # half to even of p (n - 1) beside n / 2 rounded down
            b.rule = hn.TopK(1 - round(0.5 * (n - 1)) / n, by="value")
    assert all(torch.equal(a, b) for a, b in zip(*(hn.masks(r.model).values() for r in (mine, other)), strict=True))
    assert mine.steps(5) == other.steps(5)


@pytest.mark.parametrize("init", ["kaiming_uniform", "kaiming_normal", "signed_constant", "uniform"])
def test_scores_start_as_the_weights_of_the_paper_do(init):
    scores = torch.empty(64, 32, 3, 3)
    torch.manual_seed(0)
    iterand.score_filler(init, 0.5)(scores)
    deviation = {"uniform": 1 / math.sqrt(3)}.get(init, math.sqrt(2 / 288))
    assert float(scores.std()) == pytest.approx(0.5 * deviation, rel=0.02)
    if init == "kaiming_uniform":
        assert 0.99 * 0.5 * math.sqrt(6 / 288) < float(scores.max()) <= 0.5 * math.sqrt(6 / 288)
    if init == "signed_constant":
        assert scores.abs().unique().numel() == 1


def test_linear_layers_and_the_last_one_may_differ(trained):
    run = trained("iterand", model=SMALL, init="kaiming_uniform", linear_init="signed_constant", last_density=0.9)
    layers = list(hn.hidden_layers(run.model).values())
    kinds = [(layer.scaled.kind, layer.rule.density) for layer in layers]
    assert kinds == [("uniform", 0.5), ("uniform", 0.5), ("signs", 0.5), ("signs", 0.9)]


def test_biases_rest_at_zero(trained):
    run = trained("iterand", model={**SMALL, "bias": True})
    run.steps(3)
    biases = [p for name, p in run.model.named_parameters() if name.endswith("bias")]
    assert biases and not any(p.requires_grad or p.any() for p in biases)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rate": 1.5}, "method.rate: expected a number, at least 0 and at most 1, got 1.5"),
        ({"density": 0}, "method.density: expected a number, above 0 and at most 1, got 0"),
        ({"decay": 0.5}, "method.decay: expected both or neither of decay and mix, got 0.5 and None"),
        ({"period": 0}, "method.period: expected a number, at least 1, got 0"),
        ({"rerand_lambda": 0.1}, "method.rerand_lambda: expected a key of method 'iterand'"),
    ],
)
def test_bad_configs_are_refused(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make("iterand", **options)
