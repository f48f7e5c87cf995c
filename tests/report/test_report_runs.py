"""Runs found in folders and put into lines: one a method and differing key, means and spreads over seeds."""

from __future__ import annotations

import json
import math

import pytest

from hiddennet.report import runs, sections
from hiddennet.report.runs import default_axis, folders_of, lines, read_all
from hiddennet.train.folder import RunError
from tests.report.conftest import stage


def found(tmp_path) -> list:
    return read_all([str(tmp_path / "runs")])[0]


def test_seeds_of_one_setting_are_one_point(fake, tmp_path):
    for seed, test in ((0, 0.5), (1, 0.6), (2, 0.9)):
        fake(test, density=0.501, seed=seed)
    fake(0.3, density=0.1, method={"density": 0.1})
    (line,) = lines(found(tmp_path), "density")
    (low, *_), (x, mean, spread) = line.points(lambda run: run.record["test_top1"])
    assert (low, x) == (0.1, 0.501)
    assert mean == pytest.approx(2 / 3) and spread == pytest.approx(math.sqrt(0.13 / 3))
    assert default_axis(found(tmp_path)) == "density"


def test_lines_are_told_apart_by_what_their_method_varies(fake, tmp_path):
    for density in (0.1, 0.5):
        for lr in (0.1, 0.05):
            fake(0.5, density=density, method={"density": density}, optimizer={"lr": lr})
        fake(0.4, density=density, method={"name": "random", "density": density}, optimizer={"lr": 0.02})
    fake(0.9, density=1.0, method={"name": "dense"}, optimizer={"lr": 0.02})
    labels = [(line.label, [setting.x for setting in line.settings]) for line in lines(found(tmp_path), "density")]
    assert labels == [
        ("dense", [1.0]),
        ("edge_popup, lr 0.05", [0.1, 0.5]),
        ("edge_popup, lr 0.1", [0.1, 0.5]),
        ("random", [0.1, 0.5]),
    ]
    by_rate = lines(found(tmp_path), "optimizer.lr")
    assert ("edge_popup, density 0.1", [0.05, 0.1]) in [(x.label, [s.x for s in x.settings]) for x in by_rate]


def test_widths_and_networks(fake, tmp_path):
    for width in (0.1, 0.2):
        fake(0.5, model={"width": width})
    assert default_axis(found(tmp_path)) == "width"
    (line,) = lines(found(tmp_path), "width")
    assert [setting.x for setting in line.settings] == [0.1, 0.2]
    fake(0.5, model={"name": "digits_conv"})
    assert {line.label for line in lines(found(tmp_path), "width")} == {
        "edge_popup, digits_mlp",
        "edge_popup, digits_conv",
    }


def test_before_fine_tuning_is_the_end_of_the_search(fake):
    staged = runs.read(fake(0.8, stages=[stage("search", 1, 1, 0.6), stage("fine_tune", 2, 2, 0.8)]).path)
    assert staged.before == 0.6 and not staged.rounds
    plain = runs.read(fake(0.8, seed=1, stages=[stage("train", 1, 2, 0.8)]).path)
    assert plain.before is None


def test_rounds_are_points_of_their_own(fake, tmp_path):
    for seed, ends in ((0, (0.9, 0.8)), (1, (0.7, 0.6))):
        rounds = [stage("round 0", 1, 1, ends[0], 1.0), stage("round 1", 2, 2, ends[1], 0.8)]
        fake(ends[1], density=0.8, seed=seed, stages=rounds)
    (line,) = lines(found(tmp_path), "density")
    (lower, upper) = line.rounds()
    assert lower == pytest.approx((0.8, 0.7, 0.1 * math.sqrt(2))) and upper[:2] == pytest.approx((1.0, 0.8))


def test_a_sweep_names_its_runs_and_a_folder_all_below(fake, tmp_path):
    here, there = fake(0.5), fake(0.6, seed=1)
    sweep = tmp_path / "runs" / "sweeps" / "one"
    sweep.mkdir(parents=True)
    points = [{"run": f"small/{here.path.name}"}, {"run": "small/not_begun"}]
    (sweep / "sweep.json").write_text(json.dumps({"points": points}))
    assert [path.resolve() for path in folders_of([str(sweep)])] == [here.path.resolve()]
    assert set(folders_of([str(tmp_path / "runs")])) == {here.path, there.path}
    assert len(folders_of([str(here.path), str(tmp_path / "runs"), str(here.path)])) == 2
    with pytest.raises(RunError, match="expected the folder of a run, of a sweep or of runs, got"):
        folders_of([str(tmp_path / "nothing")])


def test_a_run_that_cannot_be_read_is_named_and_left_out(fake, tmp_path):
    fake(0.5)
    broken = fake(0.6, seed=1)
    broken.config.write_text("model: {name: no_such_network}\n")
    known, left_out = read_all([str(tmp_path / "runs")])
    assert len(known) == 1 and len(left_out) == 1
    assert str(broken.config) in left_out[0]


def test_axes_that_there_are_not(fake, tmp_path):
    fake(0.5)
    with pytest.raises(ValueError, match="--x: expected density, width, epoch or a key .*did you mean 'optimizer.lr'"):
        lines(found(tmp_path), "optimizer.lrr")
    with pytest.raises(ValueError, match="--x: expected a key with numbers, got method.name: 'edge_popup'"):
        lines(found(tmp_path), "method.name")


def test_published_numbers_are_of_the_same_network_and_data(fake, tmp_path):
    known = sections.read_published()
    assert all(0 < row.density <= 1 and row.source for row in known)
    assert all(value is None or 0 < value < 1 for row in known for value in (row.before, row.after))
    assert all(row.before is not None or row.after is not None for row in known)
    fake(0.5)
    assert sections.published_beside(lines(found(tmp_path), "density")) == []
    fake(0.5, model={"name": "conv4", "width": 1.0}, data={"name": "cifar10"})
    beside = sections.published_beside(lines(found(tmp_path), "density"))
    assert {row.method for row in beside} == {"dense", "hc", "edge_popup"}
    assert all((row.model, row.data) == ("conv4", "cifar10") for row in beside)


def test_labels_hold_what_differs_between_the_runs(fake, tmp_path):
    """A section that one run has is named, not listed key by key; values are no Python."""
    fake(0.5)
    fake(0.6, method={"name": "edge_popup", "density": 0.5, "fine_tune": {"epochs": 2}})
    labels = sorted(line.label for line in lines(found(tmp_path), "density"))
    assert labels == ["edge_popup", "edge_popup, fine_tune"]
    fake(0.7, method={"name": "edge_popup", "density": 0.5, "fine_tune": {"epochs": 3}, "exclude": ["linear.0"]})
    labels = {frozenset(line.label.split(", ")) for line in lines(found(tmp_path), "density")}
    assert labels == {
        frozenset({"edge_popup", "exclude none"}),
        frozenset({"edge_popup", "fine_tune", "exclude linear.0", "epochs 3"}),
        frozenset({"edge_popup", "fine_tune", "exclude none", "epochs 2"}),
    }
