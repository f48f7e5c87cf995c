"""From one network to another: the ends are the runs' own, between them masks or weights are mixed as they say."""

from __future__ import annotations

import copy
import csv
import json

import pytest
import torch

import hiddennet as hn
from hiddennet import cli
from hiddennet.nn.expose import expose
from hiddennet.report.connect import connect
from hiddennet.report.networks import open_network
from hiddennet.train.evaluate import score
from hiddennet.train.folder import RunError

CPU = torch.device("cpu")
DENSE = {"method": {"name": "dense"}, "optimizer": {"lr": 0.02}}


def by_kind(found) -> dict[str, list]:
    kinds: dict[str, list] = {}
    for sample in found.samples:
        kinds.setdefault(sample.kind, []).append(sample)
    return kinds


def test_the_ends_are_the_runs_own(real, tmp_path, capsys):
    a, b = real(), real(method={"density": 0.2})
    out = tmp_path / "out"
    arguments = ["--connect", str(a.path), b.read_record()["artifact"], "--points", "5", "--device", "cpu"]
    assert cli.main(["report", *arguments, "-o", str(out)]) == 0
    rows = list(csv.DictReader((out / "connection.csv").open()))
    masks = [hn.masks(open_network(str(run.path)).model) for run in (a, b)]
    different = sum(int((masks[0][n] != masks[1][n]).sum()) for n in masks[0]) / sum(
        m.numel() for m in masks[0].values()
    )
    for kind in ("prob", "score", "round"):
        first, *_, last = [row for row in rows if row["kind"] == kind]
        for end, run in ((first, a), (last, b)):
            record = run.read_record()
            assert float(end["test_top1"]) == record["test_top1"]
            assert float(end["test_loss"]) == pytest.approx(record["test_loss"], rel=1e-6)
        assert (float(first["distance"]), float(last["distance"])) == (0.0, pytest.approx(different))
    assert len(rows) == 15
    page = (out / "report.html").read_text()
    assert f"{different:.4f}" in page and (out / "connection.png").stat().st_size > 1000


def test_what_lies_between(real):
    """The same frozen weights, two masks: t = 1/4, evaluated by hand."""
    a, b = (open_network(str(real(method={"density": d}).path)) for d in (0.5, 0.2))
    kinds = by_kind(connect(a, b, points=5, batches=2))
    assert set(kinds) == {"prob", "score", "round"}
    plain, test = copy.deepcopy(a.model), a.build_data(CPU).test
    expose(plain)
    for name, layer in hn.hidden_layers(a.model).items():
        other = hn.hidden_layers(b.model)[name]
        weight = 0.75 * layer.effective_weight() + 0.25 * other.effective_weight()
        plain.get_submodule(name).weight.data.copy_(weight)
    wanted = score(plain, test, CPU)
    assert kinds["score"][1].test_loss == pytest.approx(wanted.loss, rel=1e-5)
    losses = [sample.test_loss for sample in kinds["round"]]
    assert losses[0] == losses[1] and losses[3] == losses[4]  # rounded, a quarter of the way is A itself
    distances = [sample.distance for sample in kinds["prob"]]
    assert distances == sorted(distances) and 0 < distances[1] < distances[3]
    assert distances[1] == pytest.approx(distances[4] / 4, rel=0.1)


def test_a_seed_gives_the_same_way_and_draws_other_ones(real):
    a, b = (open_network(str(real(method={"density": d}).path)) for d in (0.5, 0.2))
    found = connect(a, b, points=3, draws=2, batches=1)
    assert found.samples == connect(a, b, points=3, draws=2, batches=1).samples
    one, two = [s for s in found.samples if s.kind == "prob" and s.t == 0.5]
    assert (one.draw, two.draw) == (0, 1) and one.test_loss != two.test_loss


def test_trained_weights_are_interpolated_linearly(real):
    a, b = real(**DENSE), real(**DENSE, train={"epochs": 2})
    found = connect(open_network(str(a.path)), open_network(str(b.path)), points=3, batches=2)
    assert [(s.kind, s.t) for s in found.samples] == [("linear", 0.0), ("linear", 0.5), ("linear", 1.0)]
    assert found.samples[0].test_top1 == a.read_record()["test_top1"]
    assert found.samples[2].test_top1 == b.read_record()["test_top1"]
    hidden = open_network(str(real().path))
    mixed = connect(open_network(str(a.path)), hidden, points=2, batches=1)
    assert [s.kind for s in mixed.samples] == ["linear", "linear"]
    assert mixed.samples[1].test_loss == pytest.approx(score(hidden.model, hidden.build_data(CPU).test, CPU).loss)


def test_statistics_of_batch_norm_are_taken_anew_between_the_ends(real):
    network = {"model": {"name": "cifar_resnet18", "width": 0.05}, "data": {"limit": 100}}
    a, b = (open_network(str(real(**network, method={"density": d}).path)) for d in (0.5, 0.2))
    anew = by_kind(connect(a, b, points=3, batches=2))["score"]
    kept = by_kind(connect(a, b, points=3, batches=2, reestimate=False))["score"]
    assert anew[0] == kept[0] and anew[2] == kept[2]
    assert anew[1].test_loss != kept[1].test_loss
    assert any("taken anew" in note for note in connect(a, b, points=2, batches=1).notes)


def test_networks_with_other_frozen_weights(real):
    a, b = real(), real(seed=1, data={"limit": 200})
    found = connect(open_network(str(a.path)), open_network(str(b.path)), points=3, batches=1)
    assert any("other frozen weights" in note for note in found.notes)
    assert any("the images are those of A" in note for note in found.notes)
    assert found.samples[0].test_top1 == a.read_record()["test_top1"]


def test_the_end_of_a_stage_may_be_an_end(real, capsys):
    run = real(method={"fine_tune": {"epochs": 1}})
    found = open_network(f"{run.path}@search")
    assert torch.equal(hn.hidden_layers(found.model)["linear.0"].scores.isnan().any(), torch.tensor(False))
    assert hn.hidden_layers(open_network(f"{run.path}@fine_tune").model)["linear.0"].scores is None
    assert found.where == open_network(f"{run.path}@stage_0").where == f"{run.path}@search"
    assert cli.main(["report", "--connect", f"{run.path}@serch", str(run.path)]) == 1
    said = capsys.readouterr().err
    assert "a stage of the run after '@' (search, fine_tune), got 'serch'" in said and "did you mean 'search'?" in said
    (run.checkpoints / "stage_0.pt").unlink()
    with pytest.raises(RunError, match="expected a run that has come to the end of its stage search"):
        open_network(f"{run.path}@search")


def test_the_search_after_dense_epochs_is_no_dense_network(real):
    """Its stages are dense, search and fine_tune: the first one's checkpoint is not the search's."""
    run = real(method={"dense_epochs": 1, "fine_tune": {"epochs": 1}}, train={"epochs": 2})
    found = open_network(f"{run.path}@search")
    assert set(hn.hidden_layers(found.model)) == {"linear.0", "linear.2", "linear.4"}
    assert hn.density(found.model) == pytest.approx(0.5, abs=0.01)
    assert not hn.hidden_layers(open_network(f"{run.path}@dense").model)
    alone = real(method={"dense_epochs": 1}, train={"epochs": 2})  # the search is the last stage: the run's result
    masks = [hn.masks(open_network(str(where)).model) for where in (alone.path, f"{alone.path}@search")]
    assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())


def test_networks_that_do_not_fit_are_refused(real, tmp_path, capsys):
    a, b = real(), real(model={"width": 0.2})
    assert cli.main(["report", "--connect", str(a.path), str(b.path), "-o", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected two networks of one architecture, got linear.0.weight of shape (51, 64) in" in line
    other = open_network(str(b.path))
    object.__setattr__(other, "data_name", "mnist")
    with pytest.raises(ValueError, match="expected two networks for the same data, got digits and mnist"):
        connect(open_network(str(a.path)), other)
    assert cli.main(["report", "--connect", str(a.path), str(tmp_path / "nothing")]) == 1
    assert "expected a run, RUN@search or an artifact" in capsys.readouterr().err
    with pytest.raises(ValueError, match="at least 2 points, 1 draw and 1 batch, got 1, 1 and 10"):
        connect(open_network(str(a.path)), open_network(str(a.path)), points=1)


def test_a_network_whose_masks_are_fractions_is_interpolated_by_its_weights(real):
    """Sampled masks, evaluated by expectation: weight * sigmoid(score) is no weight times a mask."""
    run = real(method={"name": "sampled"})
    found = connect(open_network(str(run.path)), open_network(str(run.path)), points=2, batches=1)
    assert {sample.kind for sample in found.samples} == {"linear"}
    assert found.samples[0].test_top1 == json.loads(run.record.read_text())["test_top1"]
