"""The engine of a cluster: what is asked of Ray Tune, by a stand-in for it; the real one where it is installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hiddennet.sweep import command, grid, jobs, ray_tune
from hiddennet.sweep.folder import SweepFolder
from tests.sweep.conftest import Forked, fork_job

pytestmark = pytest.mark.forks
SEEDS = {"config": "small", "set": {"train.epochs": 0}, "grid": {"seed": [0, 1]}}
INSTALLED = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(INSTALLED, reason="ray is installed")
def test_without_ray_it_is_said_how_to_get_it(write, tmp_path, capfd):
    assert command.main([str(write(SEEDS)), "--engine", "ray"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "expected Ray Tune, got none" in line and "pip install 'hiddennet[ray]'" in line
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def stand_in(monkeypatch) -> list:
    """A `ray` whose Tuner runs the trials one after the other; what it was asked for."""
    asked = []

    class Tuner:
        def __init__(self, trainable, *, param_space, tune_config, run_config):
            self.trainable, self.space = trainable, param_space
            asked.append((trainable.resources, param_space, tune_config, run_config))

        def fit(self):
            for value in self.space["run"]["grid_search"]:
                for attempt in range(3):
                    try:
                        self.trainable({"run": value})
                        break
                    except RuntimeError:
                        asked.append(attempt)

    def with_resources(trainable, resources):
        trainable.resources = resources
        return trainable

    ray, tune = ModuleType("ray"), ModuleType("ray.tune")
    tune.Tuner, tune.with_resources = Tuner, with_resources
    tune.grid_search = lambda values: {"grid_search": values}
    tune.TuneConfig = tune.RunConfig = tune.FailureConfig = SimpleNamespace
    ray.tune = tune
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.tune", tune)
    return asked


def test_every_point_is_a_trial_and_runs_once(write, tmp_path, stand_in, forked, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    path = str(write(SEEDS))
    assert command.main([path, "--engine", "ray", "--workers", "2"]) == 0
    ((resources, space, tune_config, run_config),) = stand_in
    assert resources == {"cpu": 1}
    assert len(space["run"]["grid_search"]) == 2
    assert tune_config.max_concurrent_trials == 2
    assert run_config.failure_config.max_failures == 2
    assert Path(run_config.storage_path) == tmp_path / "runs" / "sweeps" / "sweep"
    assert "2 of 2" in capfd.readouterr().out
    assert command.main([path, "--engine", "ray"]) == 0
    assert len(stand_in) == 1


def test_a_killed_trial_is_left_to_ray_to_try_again(write, tmp_path, stand_in, forked, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = []

    def begin(folder, point, environment, here=None):
        begun.append(point.config.seed)
        if begun == [0]:
            return Forked(lambda: os.kill(os.getpid(), 9), folder.log(point))
        return fork_job(folder, point, environment)

    monkeypatch.setattr(jobs, "begin", begin)
    assert command.main([str(write(SEEDS)), "--engine", "ray"]) == 0
    assert begun == [0, 0, 1]


@pytest.mark.skipif(not INSTALLED, reason="ray is not installed")
def test_the_real_one(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(SEEDS)
    ray_tune.check()
    assert command.main([str(path), "--engine", "ray", "--workers", "1"]) == 0
    folder = SweepFolder(grid.load(path))
    assert all(folder.record(point) for point in folder.sweep.points)
