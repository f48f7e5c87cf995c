"""edge_popup with another rule or source, by its name in a config: registered ones, a user's own among them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import config
from hiddennet.config.load import merge, overrides_document
from hiddennet.registry import REGISTRIES, register
from hiddennet.train import experiment
from hiddennet.train.build import build_model


@pytest.fixture
def settings(tmp_path):
    def make(**method):
        return config.parse(
            {
                "name": "named",
                "runs": str(tmp_path / "runs"),
                "model": {"name": "digits_mlp"},
                "data": {"name": "digits", "limit": 400},
                "method": {"name": "edge_popup", **method},
                "train": {"epochs": 1, "device": "cpu"},
            }
        )

    return make


@pytest.fixture
def own():
    """A rule and a source of a user's own, registered as a plugin does, and forgotten afterwards."""

    @register("rule", "above_mean")
    @dataclass(frozen=True)
    class AboveMean(hn.nn.Selecting):
        """Scores above the mean of their layer, times a factor."""

        factor: float = 1.0

        def keep(self, layer, scores):
            return scores.abs() > self.factor * scores.abs().mean()

    @register("source", "doubled")
    @dataclass(frozen=True)
    class Doubled(hn.nn.Source):
        """Random weights times one learned number."""

        seed: int = 0
        layer: int | None = None

        def attach(self, layer, fresh):
            drawn = torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(self.seed + self.layer))
            hn.nn.without_weight(layer)
            layer.register_buffer("base", drawn * 0.1)
            layer.factor = nn.Parameter(torch.ones(()))
            return self

        def state(self, layer):
            return hn.ops.WeightSource.store(layer.base * layer.factor)

    yield
    for kind, name in (("rule", "above_mean"), ("source", "doubled")):
        REGISTRIES[kind]._things.pop(name)


def test_two_of_four_from_a_config(settings):
    record = experiment.run(settings(rule={"name": "grouped", "n": 2, "m": 4}))
    assert record["density"] == 0.5
    model = hn.load(f"{record['run']}/artifact.safetensors")
    assert all(bool((mask.view(-1, 4).sum(1) == 2).all()) for mask in hn.masks(model).values())


def test_densities_by_layer(settings):
    model, _ = build_model(settings(densities="erk", density=0.2), 10, 1, 8)
    layers = hn.hidden_layers(model).values()
    assert hn.density(model) == pytest.approx(0.2, abs=1e-3)
    assert len({layer.rule.density for layer in layers}) == 3


def test_a_rule_and_a_source_of_ones_own_run_export_and_resume(settings, own):
    chosen = settings(rule={"name": "above_mean", "factor": 1}, source={"name": "doubled"})
    assert config.parse(chosen.model_dump(mode="json")) == chosen
    record = experiment.run(chosen)
    model = hn.load(f"{record['run']}/artifact.safetensors")
    assert hn.density(model) == pytest.approx(record["density"])
    trained, _ = build_model(chosen, 10, 1, 8)
    layers = list(hn.hidden_layers(trained).values())
    assert [layer.source for layer in layers] == [
        REGISTRIES["source"]["doubled"](seed=0, layer=i) for i in range(len(layers))
    ]
    assert experiment.run(chosen)["test_top1"] == record["test_top1"]


def test_keys_lists_them(own):
    from hiddennet.config.reference import reference

    said = reference()
    assert "rule 'above_mean': Scores above the mean of their layer, times a factor." in said
    assert "  method.rule.factor (number; default 1.0)" in said and "source 'doubled':" in said


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"rule": {"name": "group"}}, r"method\.rule\.name: expected one of .*; did you mean 'grouped'"),
        ({"rule": {"name": "grouped", "n": 2, "m": 4, "k": 1}}, r"method\.rule\.k: expected a key of rule 'grouped'"),
        ({"rule": {"name": "grouped", "n": 2.5, "m": 4}}, r"method\.rule\.n: expected a whole number, got 2\.5"),
        ({"rule": {"name": "grouped", "n": 5, "m": 4}}, r"method\.rule.*expected 0 <= n <= m.*got n=5, m=4"),
        (
            {"rule": {"name": "grouped", "n": 2, "m": 4}, "density": 0.3},
            r"method\.density: expected none.*default, 0\.5",
        ),
        ({"rule": {"name": "all"}}, r"method\.rule\.name: expected a rule with learned scores, got 'all'"),
        ({"rule": {"name": "fixed"}}, r"method\.rule\.name: expected one of"),
        ({"source": {"name": "generated", "init": "kaming"}}, r"method\.source.*expected init to be"),
        ({"densities": "erk", "scope": "global"}, r"method\.densities: expected uniform where scope is global"),
    ],
)
def test_what_cannot_be_is_refused(settings, method, message):
    with pytest.raises(ValueError, match=message):
        settings(**method)


def test_another_rule_leaves_the_keys_of_the_old_one_behind():
    family = {"method": {"name": "edge_popup", "rule": {"name": "per_channel", "density": 0.25}}}
    over = overrides_document(["method.rule={name: grouped, n: 2, m: 4}"])
    assert merge(family, over)["method"]["rule"] == {"name": "grouped", "n": 2, "m": 4}
    same = merge(family, {"method": {"rule": {"name": "topk"}}})
    assert same["method"]["rule"] == {"name": "topk", "density": 0.25}  # which it has as well


@pytest.mark.parametrize("kind", ["rule", "source"])
@pytest.mark.parametrize("thing", [type("Odd", (), {}), lambda layer: layer, 3], ids=["class", "function", "number"])
def test_a_rule_or_source_that_is_none_is_refused_when_it_is_registered(kind, thing):
    with pytest.raises(ValueError, match=f"register: expected the {kind} 'odd' to be a subclass of hiddennet.nn"):
        register(kind, "odd")(thing)
    assert "odd" not in REGISTRIES[kind]
