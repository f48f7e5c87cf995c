"""Gem-Miner beyond the golden values: the calendar, options, warnings, and what is refused."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet import ops
from hiddennet.config import ConfigError
from hiddennet.methods.gem_miner import prune_rate, strike_out
from hiddennet.settings.recipe import AdamSection, SgdSection

SMALL = {"name": "digits_mlp", "width": 0.1}


def gem(trained, epochs: int, **options):
    return trained("gem_miner", model=SMALL, train={"epochs": epochs}, **options)


def flagged(model) -> int:
    return sum(int(ops.count_flags([layer.flags])) for layer in hn.hidden_layers(model).values())


def walk(run) -> list[int]:
    """Flags left at the evaluation of each epoch of the search."""
    left = []
    for epoch in range(run.config.train.epochs):
        run.method.on_epoch_start(run.model, epoch)
        run.method.before_evaluation(run.model, epoch)
        left.append(flagged(run.model))
    return left


@pytest.mark.parametrize(
    "strike_at, epochs, falls", [("end", 8, [3 + 1, 6 + 1]), ("start", 8, [3, 6]), ("end", 7, [4, 6]), ("end", 3, [2])]
)
def test_the_calendar(trained, strike_at, epochs, falls):
    period = 3 if epochs > 3 else 2
    run = gem(trained, epochs, density=0.2, period=period, strike_at=strike_at)
    left = walk(run)
    changes = [i for i in range(1, epochs) if left[i] < left[i - 1]]
    assert changes == falls
    total = sum(layer.weight_shape.numel() for layer in hn.hidden_layers(run.model).values())
    assert left[0] == total and left[-1] == pytest.approx(0.2 * total, abs=3)
    assert [run.method.is_result(e) for e in range(epochs)] == [e >= falls[-1] for e in range(epochs)]


def test_inverted_strikes_take_the_highest_scores(trained):
    run = gem(trained, 3, density=0.3, period=2, invert=True)
    walk(run)
    for layer in hn.hidden_layers(run.model).values():
        flags = ops.unpack_mask(layer.flags, layer.weight_shape)
        assert float(layer.scores[flags].max()) < float(layer.scores[~flags].min())


def test_each_layer_by_itself_and_by_the_threshold(trained):
    run = gem(trained, 3, density=0.3, period=2, strike="layer")
    walk(run)
    for layer in hn.hidden_layers(run.model).values():
        n = layer.weight_shape.numel()
        assert abs(int(ops.count_flags([layer.flags])) - 0.3 * n) <= 1
    run = gem(trained, 3, density=0.3, period=2, strike="threshold", threshold=0.6)
    walk(run)
    for layer in hn.hidden_layers(run.model).values():
        assert torch.equal(ops.unpack_mask(layer.flags, layer.weight_shape), layer.scores > 0.6)


def test_ties_all_go_or_only_as_many_as_are_due(trained):
    for exact in (False, True):
        run = gem(trained, 3, density=0.5, period=2, exact=exact, score_init="half")
        left = walk(run)
        assert left[-1] == (left[0] - -(-left[0] // 2) if exact else 0)


def test_an_emptied_layer_is_named(trained):
    run = gem(trained, 3, density=0.1, period=2)
    layers = hn.hidden_layers(run.model)
    with torch.no_grad():
        for name, layer in layers.items():
            layer.scores.fill_(0.01) if name == "linear.0" else layer.scores.uniform_(0.5, 1)
    run.method.on_epoch_start(run.model, 0)
    notes = run.method.before_evaluation(run.model, 2)
    assert notes == ["warning: no weight is left in layer linear.0; its output is constant"]


@pytest.mark.parametrize("section", [SgdSection(), AdamSection(name="adam", lr=0.01)])
def test_scores_stay_within_bounds_and_the_loss_falls(trained, section):
    run = gem(trained, 10, regularizer="l1_l2", regularizer_weight=1e-5)
    run.engine.begin_stage(section)
    losses = run.steps(30)
    assert losses[-1] < losses[0]
    scores = torch.cat([layer.scores.detach().flatten() for layer in hn.hidden_layers(run.model).values()])
    assert float(scores.min()) >= 0.0 and float(scores.max()) <= 1.0


def test_learned_thresholds_move_and_bound_the_scores(trained):
    run = gem(trained, 10, period=5, learn_threshold=True)
    layers = hn.hidden_layers(run.model).values()
    for step in range(1, 21):
        run.steps(1)
        run.method.after_update(run.model, step)
    assert any(float(layer.threshold) != 0.5 for layer in layers)
    for layer in layers:
        assert 0.0 <= float(layer.threshold) <= 1.0
        assert float(layer.scores.max()) <= 2 * float(layer.threshold) + 1e-6


@pytest.mark.parametrize("rounding", ["naive", "probabilistic"])
def test_unquantised_search_computes_with_scores_and_evaluates_rounded(trained, rounding):
    run = trained(
        "hc", model=SMALL, quantized=False, rounding=rounding, regularizer="var_red_2", regularizer_weight=1e-3
    )
    losses = run.steps(20)
    assert losses[-1] < losses[0]
    numbers = run.method.on_epoch_end(run.model, 0)
    assert numbers["flag_density"] == 1.0 and numbers["regularizer"] > 0
    assert 0.2 < run.method.density(run.model) < 0.8


@pytest.mark.parametrize(
    "options, message",
    [
        ({"density": 0}, "method.density: expected a number, above 0 and at most 1, got 0"),
        ({"density": 1.2}, "method.density: expected a number, above 0 and at most 1, got 1.2"),
        ({"period": 2}, r"method.period: expected fewer epochs than train.epochs \(2\), got 2"),
        ({"period": 1, "regularizer": "l3"}, "method.regularizer: expected one of l1, l2"),
        ({"period": 1, "regularizer": "l2"}, "method.regularizer: expected a regularizer with a weight above 0"),
        ({"period": 1, "prune_rate": 0.2}, "method.prune_rate: expected a key of method 'gem_miner'"),
        ({"period": 1, "fine_tune": {"lr": 0.1}}, "method.fine_tune.lr: expected a key of method.fine_tune"),
        (
            {"period": 1, "fine_tune": {"schedule": {"name": "multistep"}}},
            "method.fine_tune.schedule: expected either milestones or interval",
        ),
        (
            {"period": 1, "fine_tune": {"optimizer": {"name": "sgdd"}}},
            "method.fine_tune.optimizer.name: expected one of sgd, adam, adamw, got 'sgdd'",
        ),
    ],
)
def test_bad_configs_are_refused(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make("gem_miner", **options)


def test_public_functions_are_where_they_are_promised():
    assert prune_rate(0.0144, 5, 150) == (29, pytest.approx(0.13604, abs=5e-6))
    flags = [torch.ones(4, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)]
    scores = [torch.tensor([0.1, 0.2, 0.9, 0.8]), torch.tensor([[0.3, 0.7], [0.6, 0.5]])]
    assert strike_out(scores, flags, 0.25) == pytest.approx(0.2)
    assert [f.sum().item() for f in flags] == [2, 4]
