"""A sweep file's points: their order, their configs, what is refused before anything starts."""

from __future__ import annotations

import pytest

from hiddennet import config
from hiddennet.config import ConfigError
from hiddennet.sweep import grid

GRID = {"method.density": [0.1, 0.5], "seed": [0, 1, 2]}


def test_the_last_key_runs_fastest(write):
    sweep = grid.load(write({"config": "small", "grid": GRID}))
    assert [tuple(p.values.values()) for p in sweep.points] == [(d, s) for d in (0.1, 0.5) for s in (0, 1, 2)]
    assert [(p.config.method.density, p.config.seed) for p in sweep.points] == [
        (d, s) for d in (0.1, 0.5) for s in (0, 1, 2)
    ]
    assert (sweep.name, sweep.columns) == ("sweep", ["method.density", "seed"])


def test_listed_points_times_the_grid(write):
    listed = [{"method": {"name": "random", "density": 0.3}}, {"method.name": "dense", "optimizer.lr": 0.02}]
    sweep = grid.load(write({"config": "small", "runs": listed, "grid": {"seed": [4, 5]}, "name": "both"}))
    assert [(p.config.method.name, p.config.seed) for p in sweep.points] == [
        ("random", 4),
        ("random", 5),
        ("dense", 4),
        ("dense", 5),
    ]
    assert sweep.points[2].config.optimizer.lr == 0.02
    assert (sweep.name, sweep.columns) == ("both", ["method", "method.name", "optimizer.lr", "seed"])


def test_a_point_is_what_its_command_line_runs(write):
    values = {"model.batch_norm": ["none"], "optimizer": [{"name": "adam", "betas": [0.8, 1e-5]}], "name": ["1e3"]}
    (point,) = grid.load(write({"config": "small", "grid": values, "set": {"seed": 7}})).points
    assert config.load(point.arguments[0], point.arguments[1:]) == point.config
    assert (point.config.name, point.config.optimizer.betas, point.config.seed) == ("1e3", [0.8, 1e-5], 7)


def test_configs_may_be_an_axis_and_are_sought_beside_the_file_first(write, tmp_path):
    path = write({"grid": {"config": ["small", "digits-dense"]}, "set": {"runs": str(tmp_path)}})
    sweep = grid.load(path)
    assert [p.config.model.name for p in sweep.points] == ["digits_mlp", "digits_conv"]
    assert [p.config.name for p in sweep.points] == ["small", "digits-dense"]


def test_a_sweep_extends_another(write, tmp_path):
    write({"config": "small", "grid": GRID, "set": {"train.epochs": 3}}, "base.yml")
    path = tmp_path / "further" / "more.yml"
    path.parent.mkdir()
    path.write_text("extends: ../base.yml\ngrid: {seed: [5]}\n")
    sweep = grid.load(path)
    assert sweep.name == "more"
    assert [(p.config.method.density, p.config.seed) for p in sweep.points] == [(0.1, 5), (0.5, 5)]
    assert sweep.points[0].config.train.epochs == 3


def test_overrides_of_all_points_and_of_the_grid(write):
    path = write({"config": "small", "grid": GRID, "set": {"train.epochs": 3}})
    sweep = grid.load(path, ["train.epochs=0", "seed=9", "method.density=[0.2, 0.4]"], name="mine")
    assert [(p.config.method.density, p.config.seed) for p in sweep.points] == [(0.2, 9), (0.4, 9)]
    assert {p.config.train.epochs for p in sweep.points} == {0}
    assert sweep.name == "mine"


BAD = {
    "a key no config has": (
        {"grid": {"method.densty": [0.1]}},
        [],
        r"point 1 \(method.densty=0.1\): method.densty: expected a key of method 'edge_popup' .*did you mean 'density'",
    ),
    "a value out of range": ({"grid": {"seed": [0, -1]}}, [], r"point 2 \(seed=-1\): seed: expected a whole number"),
    "an empty list": ({"grid": {"seed": []}}, [], r"grid.seed: expected a list of at least one value, got \[\]"),
    "no list": ({"grid": {"seed": 3}}, [], "grid.seed: expected a list of at least one value, got 3"),
    "no grid": ({"set": {"seed": 3}}, [], "expected grid, .*, or runs, .*, got neither"),
    "runs that are no maps": ({"runs": [3]}, [], r"runs: expected a list of at least one map of keys, got \[3\]"),
    "no key of a sweep": ({"gird": {"seed": [1]}}, [], "gird: expected a key of a sweep .* did you mean 'grid'"),
    "a config": ({"model": {"name": "fc"}, "grid": {"seed": [1]}}, [], "a config is run by `hiddennet run`"),
    "a key in both": ({"grid": {"seed": [1]}, "runs": [{"seed": 2}]}, [], "seed: expected it in grid or in runs"),
    "a key that is none": ({"grid": {3: [1]}}, [], "expected text as a key in line 3, got 3"),
    "one run twice": (
        {"grid": {"seed": [0, 1, 0]}},
        [],
        r"got points 1 \(seed=0\) and 3 \(seed=0\), which are one and the same run small/\w{12}",
    ),
    "points that differ in nothing that counts": (
        {"grid": {"train.log_every": [1, 2]}},
        [],
        r"got points 1 \(train.log_every=1\) and 2 \(train.log_every=2\), which are one and the same run",
    ),
    "a name that is a path": ({"name": "a/b", "grid": {"seed": [1]}}, [], "name: expected the name of a folder"),
    "an override that a point would undo": (
        {"runs": [{"method.density": 0.1}]},
        ["method.density=0.2"],
        "method.density: expected a key that the points leave alone",
    ),
    "an override below a point's map": (
        {"grid": {"method": [{"name": "random", "density": 0.1}]}},
        ["method.density=0.2"],
        "method.density: expected a key that the points leave alone, got method.density, where they set method",
    ),
    "no such config": ({"config": "digts", "grid": {"seed": [1]}}, [], "expected a config file or a name .*digits"),
    "no config": ({"config": None, "grid": {"seed": [1]}}, [], "config: expected the name or the path of a config"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_sentence(write, tmp_path, case):
    document, overrides, sentence = BAD[case]
    with pytest.raises(ConfigError, match=sentence) as refusal:
        grid.load(write({"config": "small", **document}), overrides)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()
