"""Sanity checks of sub-networks: what each alters, and that it does so to any method's result."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

import hiddennet as hn
from hiddennet.methods.search import Check, alter
from hiddennet.train import experiment
from hiddennet.train.build import build_model

CHECKS = get_args(Check)


def subnet() -> tuple[dict, dict, dict]:
    generator = torch.Generator().manual_seed(3)
    shapes = {"a": (6, 5, 3, 3), "b": (7, 11)}
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    masks = {name: score > 0.7 for name, score in scores.items()}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return masks, weights, scores


@pytest.mark.parametrize("check", CHECKS)
def test_layers_keep_their_densities_and_draws_follow_the_seed(check):
    masks, weights, scores = subnet()
    first, second, other = (alter(check, masks, weights, scores, seed) for seed in (1, 1, 2))
    for name in masks:
        assert int(first[0][name].sum()) == int(masks[name].sum())
        assert torch.equal(first[0][name], second[0][name]) and torch.equal(first[1][name], second[1][name])
    if check != "invert":
        assert any(
            not torch.equal(a, b) for i in (0, 1) for a, b in zip(first[i].values(), other[i].values(), strict=True)
        )


def test_each_check_alters_one_thing():
    masks, weights, scores = subnet()
    changed = {check: alter(check, masks, weights, scores, 5) for check in CHECKS}
    for check, (new_masks, new_weights) in changed.items():
        same_masks = all(torch.equal(new_masks[name], masks[name]) for name in masks)
        same_weights = all(torch.equal(new_weights[name], weights[name]) for name in weights)
        assert (same_masks, same_weights) == ((False, True) if check in ("shuffle_mask", "invert") else (True, False))
    shuffled = changed["shuffle_weights"][1]
    for name in weights:
        assert torch.equal(shuffled[name].flatten().sort().values, weights[name].flatten().sort().values)
    fresh = changed["reinitialize"][1]["a"]
    assert float(fresh.std()) == pytest.approx((2 / 45) ** 0.5, rel=0.1)
    low = changed["invert"][0]
    for name in masks:
        assert float(scores[name][low[name]].max()) < float(scores[name][~low[name]].min())


def test_inverting_needs_scores():
    masks, weights, _ = subnet()
    with pytest.raises(ValueError, match="expected a sub-network found by scores for invert"):
        alter("invert", masks, weights, None, 0)


RECIPE = {"epochs": 1, "optimizer": {"lr": 0.01, "weight_decay": 0.0}}
FOUND_BY = {
    "edge_popup": {"density": 0.3},
    "iterand": {"density": 0.3, "period": 3},
    "gem_miner": {"density": 0.3, "period": 1},
    "global_edge_popup": {"density": 0.3, "period": 1},
}


@pytest.mark.parametrize("name", FOUND_BY)
@pytest.mark.parametrize("check", [None, *CHECKS])
def test_fine_tuning_after_a_search(trained, name, check):
    run = trained(name, fine_tune={**RECIPE, "sanity": check}, **FOUND_BY[name])
    run.steps(3)
    masks = {key: mask.clone() for key, mask in run.method.found(run.model).items()}
    weights = {key: layer.source_weight().clone() for key, layer in hn.hidden_layers(run.model).items()}
    run.method.enter_stage(run.model, 1)
    layers = hn.hidden_layers(run.model)
    assert layers.keys() == masks.keys()
    for key, layer in layers.items():
        assert int(layer.mask().sum()) == int(masks[key].sum()), key
        assert layer.stored.requires_grad and layer.scores is None
        if check in (None, "shuffle_mask", "invert"):
            assert torch.equal(layer.stored, weights[key])
        if check in (None, "reinitialize", "shuffle_weights"):
            assert torch.equal(layer.mask(), masks[key])
    run.engine.begin_stage(run.method.stages[1].optimizer)
    before = run.state()
    run.steps(2)
    for key, layer in layers.items():
        changed = layer.stored != before[f"{key}.weight"]
        assert changed.any() and not changed[~layer.mask()].any(), key


def test_a_run_s_stage_is_fine_tuned_and_checked_by_name(make, trained):
    settings = make("gem_miner", density=0.3, period=1, fine_tune=RECIPE, model={"name": "digits_mlp", "width": 0.1})
    folder = experiment.run(settings, bar=False)["run"]
    small = {"model": {"name": "digits_mlp", "width": 0.1}}
    found = trained("fine_tune", subnet=f"{folder}@search", **small)
    altered = trained("fine_tune", subnet=f"{folder}@search", sanity="invert", **small)
    tuned = trained("fine_tune", subnet=folder, **small)
    for name, layer in hn.hidden_layers(found.model).items():
        assert torch.equal(layer.mask(), hn.hidden_layers(tuned.model)[name].mask())  # unflagged, as its own stage
        other, after = (hn.hidden_layers(run.model)[name] for run in (altered, tuned))
        assert int(layer.mask().sum()) == int(other.mask().sum()) and not torch.equal(layer.mask(), other.mask())
        drawn = hn.ops.generate_weight(
            tuple(layer.weight_shape), "signed_constant", seed=0, layer=layer.source.layer, device="cpu"
        )
        assert torch.equal(layer.stored[layer.mask()].abs(), drawn[layer.mask()].abs())
        assert not torch.equal(after.weight[after.mask()].abs(), drawn[after.mask()].abs())
    with pytest.raises(ValueError, match=r"expected a stage of the run after '@' \(search, fine_tune\), got 'end'"):
        trained("fine_tune", subnet=f"{folder}@end", **small)
    model, _ = build_model(make("random", **small), 10, 1, 8)
    assert hn.density(model) == pytest.approx(0.5, abs=0.01)
