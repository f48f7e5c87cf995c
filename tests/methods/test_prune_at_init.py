"""prune_at_init: pruners in the driver: masks, shots, stages by command, what is refused."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet.config import ConfigError
from hiddennet.methods.prune_at_init import sample
from hiddennet.train import experiment
from hiddennet.train.build import build_data
from hiddennet.train.folder import RunFolder
from hiddennet.train.ranks import Ranks

CPU = torch.device("cpu")
SMALL = {"name": "digits_conv", "width": 0.25}


@pytest.mark.parametrize("pruner", ["synflow", "snip", "grasp", "magnitude", "random"])
def test_every_pruner_meets_the_density_and_changes_no_weight(begun, trained, pruner):
    run = begun(pruner=pruner, density=0.3, iterations=1 if pruner == "grasp" else 3)  # GraSP's zeros tie, and go
    size = sum(mask.numel() for mask in hn.masks(run.model).values())
    kept = sum(int(mask.sum()) for mask in hn.masks(run.model).values())
    assert kept == size - int(0.7 * size)
    assert f"{pruner} keeps {kept} of {size} weights" in run.notes[0]
    before = trained("prune_at_init", model=SMALL, pruner=pruner).state()
    for name, value in run.state().items():
        assert torch.equal(value, before[name]), name
    first = run.state()
    losses = run.steps(15)
    assert losses[-1] < losses[0]
    for name, mask in hn.masks(run.model).items():
        weight, start = run.model.get_submodule(name).stored, first[f"{name}.weight"]
        decay = (1 - 0.1 * 1e-4) ** 20
        assert ((weight - start)[~mask].abs() <= start[~mask].abs() * (1 - decay) * 20).all()


def test_without_a_pruner_nothing_is_pruned(begun):
    assert hn.density(begun(pruner=None).model) == 1.0


def test_layers_left_out(begun):
    run = begun(pruner="magnitude", density=0.2, unpruned=["*0"])
    names = list(hn.hidden_layers(run.model))
    left = [name for name in names if name.endswith("0")]
    assert left and all(hn.masks(run.model)[name].all() for name in left)
    rest = [hn.masks(run.model)[name] for name in names if name not in left]
    assert sum(int(m.sum()) for m in rest) == pytest.approx(0.2 * sum(m.numel() for m in rest), abs=1)


def test_shots_fall_where_they_should(begun):
    run = begun(pruner="synflow", density=0.2, iterations=2, shots=2, prune_epoch=4, train={"epochs": 6})
    assert run.notes == []
    densities, before = [], hn.masks(run.model)
    for epoch in range(6):
        run.method.on_epoch_start(run.model, epoch)
        densities.append(round(hn.density(run.model), 2))
        now = hn.masks(run.model)
        assert all(bool((before[name] | ~now[name]).all()) for name in now)
        before = now
    assert densities == [1.0, 1.0, 0.6, 0.6, 0.2, 0.2]
    assert [run.method.is_result(epoch) for epoch in range(6)] == [False] * 4 + [True] * 2


def test_the_images_that_pruners_see(make):
    data = build_data(make("prune_at_init", model=SMALL), CPU, Ranks())
    batches = sample(data, 100, 64)
    assert [len(labels) for _, labels in batches] == [64, 36]
    again = sample(data, 100, 256)
    assert torch.equal(torch.cat([images for images, _ in batches]), again[0][0])


def test_pruning_and_training_as_two_runs(make, tmp_path):
    def settings(**method):
        return make("prune_at_init", model=SMALL, pruner="snip", density=0.4, **method)

    record = experiment.run(settings(stage="prune"), bar=False)
    assert record["density"] == pytest.approx(0.4, abs=1e-3)
    folder = RunFolder.of(settings(stage="prune")).path
    two = experiment.run(settings(stage="train", subnet=str(folder)), bar=False)
    one = experiment.run(settings(), bar=False)
    for key in ("density", "test_top1", "test_loss", "best_epoch"):
        assert two[key] == one[key]
    assert one["stages"][0]["weights_learn"]


@pytest.mark.parametrize(
    "method, said",
    [
        ({"density": 0.0}, "method.density"),
        ({"density": 1.5}, "method.density"),
        ({"pruner": "synflo"}, "synflow"),
        ({"stage": "train"}, "method.subnet: expected it exactly where stage is train"),
        ({"subnet": "x"}, "method.subnet: expected it exactly where stage is train"),
        ({"shots": 2}, "method.shots: expected at most prune_epoch"),
        ({"prune_epoch": 2}, "method.prune_epoch: expected 0, or an epoch of the training"),
        ({"classifier_density": 0.5}, "method.classifier_density: expected scope layer"),
        ({"iterations": 0}, "method.iterations"),
    ],
)
def test_what_is_refused(make, method, said):
    with pytest.raises(ConfigError, match=said):
        make("prune_at_init", **method)


def test_patterns_that_meet_no_layer_or_all(trained):
    with pytest.raises(ValueError, match=r"method.unpruned: expected names or patterns of layers, got 'convx'"):
        trained("prune_at_init", model=SMALL, unpruned=["convx"])
    with pytest.raises(ValueError, match=r"method: expected a layer to prune"):
        trained("prune_at_init", model=SMALL, unpruned=["*"])
