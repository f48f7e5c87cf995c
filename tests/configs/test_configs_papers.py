"""The configs and sweeps of papers/: all resolve, have the runs that the README counts, and train."""

from __future__ import annotations

import math
import re

import pytest

from hiddennet import config
from hiddennet.data import TEXT
from hiddennet.sweep import grid
from hiddennet.train import experiment
from tests.configs.shipped import CONFIGS, ENTRIES, PAPERS, configs, points_of, run_name, sweeps

FOLDERS = ("iterand", "rare_gems", "peek_a_boo", "dnw", "dnw/sparse_resnet")
SWEEPS, SINGLES = sweeps("papers/"), configs("papers/")


def listed(paper: str) -> dict[str, int]:
    """How many runs each config and sweep of a paper has, by its name, as the table of docs/papers.md says."""
    section = re.search(rf"^## papers/{paper}/.*?(?=^## |\Z)", PAPERS, re.M | re.S)[0]
    found: dict[str, int] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        names = re.findall(r"`([^`]+)`", cells[1]) if line.startswith("|") and len(cells) >= 3 else []
        if not names:
            continue
        runs = cells[2].removesuffix(" |").strip()
        counts = [int(runs.split()[0])] * len(names) if runs.endswith("each") else [int(n) for n in runs.split(", ")]
        found |= dict(zip(names, counts, strict=True))
    return found


@pytest.mark.parametrize("paper", FOLDERS)
def test_the_tables_count_the_runs_of_all_configs_and_sweeps(paper):
    counts = listed(paper)
    there = {one.name.rpartition("/")[2]: one for one in ENTRIES if one.name.rpartition("/")[0] == f"papers/{paper}"}
    assert there.keys() >= counts.keys()
    for name, one in there.items():
        if one.runs is None:
            assert counts.get(name, 1) == 1
        else:
            assert len(points_of(run_name(one))) == one.runs == counts[name], name


def test_sweeps_are_of_the_papers_and_are_found_by_their_names():
    found = [one for one in ENTRIES if one.runs is not None and one.name.startswith("papers/")]
    assert {one.name.removeprefix("papers/").rpartition("/")[0] for one in found} == set(FOLDERS)
    for one in found:
        assert config.find(run_name(one)) == config.find(one.name) == one.place


def test_all_points_have_names_of_configs_and_run_in_the_folders_of_their_configs():
    for stem in SWEEPS:
        for point in points_of(stem):
            assert point.config.name in SINGLES
            assert point.place.startswith(f"{point.config.name}/")


def test_what_the_names_say_of_data_and_density():
    data = {"cifar10": "cifar10", "cifar100": "cifar100", "tiny-imagenet": "tiny_imagenet", "mnist": "mnist"}
    data |= {"imagenet": "imagenet", "wikitext2": "text_folder", "caltech101": "image_folder"}
    for stem in SINGLES:
        resolved = config.load(stem)
        named = [word for word in data if re.search(rf"(^|-){word}(-|$)", stem)]
        if named:
            assert resolved.data.name == data[max(named, key=len)], stem
        density = re.search(r"density-([0-9.]+)", stem)
        if density:
            assert resolved.method.density == float(density[1]), stem


def test_density_is_above_0_and_at_most_1_and_nothing_is_called_sparsity():
    for path in (CONFIGS / "papers").rglob("*.yml"):
        text = path.read_text()
        assert "sparsity" not in text and "prune_rate" not in text
        for value in re.findall(r"density: ([0-9.e-]+)", text):
            assert 0 < float(value) <= 1


def test_selection_and_validation_agree_with_what_a_run_is_for():
    for stem in SINGLES:
        resolved = config.load(stem)
        assert (resolved.train.selection == "test") == (resolved.data.validation == 0.0)
        if resolved.data.name in TEXT:
            assert resolved.schedule.name == "plateau" and resolved.data.validation > 0
    for stem in SWEEPS:
        if "tuning-density" in stem and not stem.startswith("resnet18"):
            for point in points_of(stem):
                assert (point.config.data.validation, point.config.train.selection) == (0.1, "validation"), stem


TINY = ["data.name=synthetic", "data.limit=40", "data.batch_size=20", "train.device=cpu", "train.log_every=1"]


def test_a_point_of_iterand_trains_and_redraws(tmp_path):
    overrides = [*TINY, "train.epochs=2", "method.period=1", f"runs={tmp_path}"]
    sweep = grid.load("figure2-conv6-sc-iterand", overrides)
    point = sweep.points[0]
    assert point.config.model.width == 0.25
    record = experiment.run(point.config)
    assert [stage["name"] for stage in record["stages"]] == ["search"]
    assert math.isfinite(record["stages"][0]["test_top1"])
    assert record["stages"][0]["density"] == pytest.approx(0.5, abs=1e-3)
    assert (tmp_path / point.place / "run.json").is_file()


def test_a_sparse_resnet_trains_by_targeted_dropout(tmp_path):
    overrides = [*TINY, "model.name=resnet18", "model.width=0.125", "data.image_size=32", "train.epochs=2"]
    name = "resnet50-imagenet-targeted-dropout-density-0.1"
    resolved = config.load(name, [*overrides, "schedule.warmup_epochs=1", f"runs={tmp_path}"])
    record = experiment.run(resolved)
    assert record["density"] == pytest.approx(0.1, abs=1e-3)
    assert math.isfinite(record["test_top1"]) and record["selection"] == "test"


def test_a_point_of_rare_gems_searches_and_fine_tunes(tmp_path):
    small = ["model.width=0.25", "method.period=1", "train.epochs=3"]
    sweep = grid.load("resnet20-cifar10-gem-miner-densities", [*TINY, *small, f"runs={tmp_path}"])
    point = next(point for point in sweep.points if point.config.method.density == 0.5)
    record = experiment.run(point.config)
    assert [stage["name"] for stage in record["stages"]] == ["search", "fine_tune"]
    assert record["stages"][1]["density"] == pytest.approx(0.5, abs=0.01)
    assert (record["stages"][1]["first_epoch"], record["stages"][1]["last_epoch"]) == (4, 6)


def test_sanity_checks_take_the_found_sub_network(tmp_path):
    small = ["model.width=0.25", "method.period=1", "train.epochs=2", "method.fine_tune.epochs=1"]
    found = experiment.run(config.load("resnet20-cifar10-gem-miner-density-0.5", [*TINY, *small, f"runs={tmp_path}"]))
    again = [*TINY, "model.width=0.25", "train.epochs=1", f"method.subnet={found['run']}@search", f"runs={tmp_path}"]
    sweep = grid.load("resnet20-cifar10-sanity-checks", again)
    assert [point.config.method.sanity for point in sweep.points] == [None, "reinitialize", "shuffle_mask"]
    densities = {experiment.run(point.config)["stages"][0]["density"] for point in sweep.points}
    assert len(densities) == 1 and 0 < densities.pop() < 0.6
