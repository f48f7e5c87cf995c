"""Sweeps at work: every job once, whoever starts them, whatever is killed; one failure stops nothing."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest

from hiddennet import cli
from hiddennet.sweep import command, grid, jobs, local
from hiddennet.sweep.folder import SweepFolder
from hiddennet.train import checkpoint
from tests.sweep.conftest import Forked, fork_job

pytestmark = pytest.mark.forks
SEEDS = {"config": "small", "grid": {"seed": [0, 1]}}


def results(folder: Path) -> list[dict[str, str]]:
    with open(folder / "runs" / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def wait_for(metrics: Path) -> None:
    """Return when a run has two rows of metrics, and so a checkpoint after its first epoch."""
    end = time.monotonic() + 60
    while not metrics.is_file() or metrics.read_text().count("\n") < 3:
        assert time.monotonic() < end, f"{metrics} was not written"
        time.sleep(0.005)


def test_processes_of_their_own_and_a_table_at_the_end(write, tmp_path, capfd, monkeypatch):
    path = str(write({"config": "small", "set": {"train.epochs": 0}, "grid": {"seed": [0, 1]}}))
    assert cli.main(["sweep", path, "--dry-run"]) == 0
    assert not (tmp_path / "runs").exists()
    assert "new" in capfd.readouterr().out
    assert cli.main(["sweep", path, "--workers", "2"]) == 0
    text = capfd.readouterr().out
    accuracies = [float(row["test_top1"]) for row in results(tmp_path)]
    assert len(accuracies) == 2
    mean = 100 * sum(accuracies) / 2
    spread = 100 * abs(accuracies[0] - accuracies[1]) / 2**0.5
    assert f"2 of 2  0.5001   {mean:.2f}% ± {spread:.2f}" in text
    rows = list(csv.DictReader((tmp_path / "runs" / "sweeps" / "sweep" / "sweep.csv").open()))
    assert [(row["seed"], row["state"]) for row in rows] == [("0", "finished"), ("1", "finished")]

    monkeypatch.setattr(jobs, "begin", None)  # nothing is run again
    assert cli.main(["sweep", path]) == 0
    assert "2 of 2 runs were finished before" in capfd.readouterr().out


def test_a_killed_job_is_taken_over_and_goes_on(write, tmp_path, forked, capfd):
    path = write({"config": "small", "set": {"train.epochs": 60}, "grid": {"seed": [0]}})
    folder = SweepFolder(grid.load(path))
    (point,) = folder.sweep.points
    job = fork_job(folder, point, {})
    wait_for(folder.run_folder(point).metrics)
    job.kill()
    assert job.wait() == -signal.SIGKILL
    begun = checkpoint.load(folder.run_folder(point).last)["progress"]
    assert 0 < begun["epoch"] < 60 and not folder.record(point)

    assert command.main([str(path), "--workers", "1"]) == 0
    assert "seed=0: goes on from its checkpoint" in capfd.readouterr().out
    assert f"goes on with epoch {begun['epoch'] + 1} of 60" in folder.log(point).read_text()
    (row,) = results(tmp_path)
    assert row["id"] == begun["id"]
    with open(folder.run_folder(point).metrics, newline="") as file:
        assert [int(line["epoch"]) for line in csv.DictReader(file)] == list(range(1, 61))


def test_a_job_killed_under_a_sweep_is_tried_again_and_not_for_ever(write, tmp_path, forked, monkeypatch, capfd):
    begun = []

    def begin(folder, point, environment, here=None):
        begun.append(point.config.seed)
        if point.config.seed == 1 or len(begun) == 1:
            return Forked(lambda: os.kill(os.getpid(), signal.SIGKILL), folder.log(point))
        return fork_job(folder, point, environment)

    monkeypatch.setattr(jobs, "begin", begin)
    assert command.main([str(write(SEEDS)), "--workers", "1"]) == 1
    assert begun == [0, 0, 1, 1, 1]
    assert "seed=1: failed: it printed nothing" in capfd.readouterr().out
    assert [row["seed"] for row in results(tmp_path)] == ["0"]


def test_two_sweeps_at_once_run_every_job_once(write, tmp_path, forked):
    path = write({"config": "small", "set": {"train.epochs": 2}, "grid": {"seed": [0, 1, 2, 3]}})
    local_look, local.LOOK_AGAIN = local.LOOK_AGAIN, 0.1
    try:
        both = [
            Forked(lambda: command.main([str(path), "--workers", "2"]), tmp_path / f"{number}.txt")
            for number in range(2)
        ]
        assert [sweep.wait() for sweep in both] == [0, 0]
    finally:
        local.LOOK_AGAIN = local_look
    rows = results(tmp_path)
    assert sorted(row["seed"] for row in rows) == ["0", "1", "2", "3"]
    assert len({row["id"] for row in rows}) == 4
    for number in range(2):
        assert "4 of 4" in (tmp_path / f"{number}.txt").read_text()


def test_a_job_that_another_process_holds_is_waited_for(write, tmp_path, forked, capfd, monkeypatch):
    monkeypatch.setattr(local, "LOOK_AGAIN", 0.1)
    path = write({"config": "small", "set": {"train.epochs": 30}, "grid": {"seed": [0]}})
    folder = SweepFolder(grid.load(path))
    (point,) = folder.sweep.points
    other = fork_job(folder, point, {})
    wait_for(folder.run_folder(point).metrics)
    assert command.main([str(path)]) == 0
    assert other.wait() == 0
    text = capfd.readouterr().out
    assert "seed=0: another process is at work on it" in text
    assert "seed=0: finished by another process" in text


def test_a_failed_job_is_noted_and_the_others_run(write, tmp_path, forked, capfd):
    path = write({"config": "small", "grid": {"method.exclude": [["nothing*"], []]}})
    for _ in range(2):  # one try each time the sweep is started
        assert command.main([str(path), "--workers", "1"]) == 1
        found = capfd.readouterr()
        assert found.out.count("starts") + found.out.count("goes on") == (2 if _ == 0 else 1)
        assert "failed: hiddennet run: method.exclude: expected names or patterns of layers" in found.out
        assert 'method.exclude=["nothing*"] failed; see' in found.err
    (noted,) = (tmp_path / "runs" / "sweeps" / "sweep" / "failed").iterdir()
    noted = json.loads(noted.read_text())
    assert noted["status"] == 1 and "got 'nothing*'" in noted["lines"][-1]
    states = [row["state"] for row in csv.DictReader((tmp_path / "runs/sweeps/sweep/sweep.csv").open())]
    assert states == ["failed", "finished"]


def test_ctrl_c_stops_the_jobs_which_save(write, tmp_path, forked):
    path = write({"config": "small", "set": {"train.epochs": 5000}, "grid": {"seed": [0, 1]}})
    sweep = Forked(lambda: command.main([str(path), "--workers", "2"]), tmp_path / "said.txt")
    folder = SweepFolder(grid.load(path))
    runs = [folder.run_folder(point) for point in folder.sweep.points]
    for run in runs:
        wait_for(run.metrics)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait() == 130
    assert "the same command goes on" in (tmp_path / "said.txt").read_text()
    for run in runs:
        assert not run.is_held()
        assert checkpoint.load(run.last)["progress"]["epoch"] > 0


def test_another_grid_under_the_same_name_is_refused_and_nothing_is_lost(write, tmp_path, forked, capfd):
    assert command.main([str(write(SEEDS))]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "sweep.yml"}
    capfd.readouterr()
    other = str(write({"config": "small", "grid": {"seed": [1, 2, 3]}}))
    for more in ([], ["--dry-run"]):
        assert command.main([other, *more]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert "expected the grid of 2 points that" in line and "got one of 3 points, 1 of them the same" in line
    assert before == {path: path.read_bytes() for path in before}
    assert not any(path.name not in {p.name for p in before} for path in (tmp_path / "runs").rglob("run.json"))


def test_workers_share_the_cores_and_have_a_gpu_each(write, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    on_cpu = grid.load(write(SEEDS)).points
    assert local.slots(on_cpu, None, gpus=4) == 2 * [{"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "PASSIVE"}]
    anywhere = grid.load(write(SEEDS), ["train.device=auto"]).points
    found = local.slots(anywhere, None, gpus=4)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "1", "2", "3"]
    assert found[0]["OMP_NUM_THREADS"] == "2"
    assert [s["CUDA_VISIBLE_DEVICES"] for s in local.slots(anywhere, 3, gpus=2)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [s["CUDA_VISIBLE_DEVICES"] for s in local.slots(anywhere, None, gpus=2)] == ["5", "7"]
    chosen = grid.load(write(SEEDS), ["train.device=cuda:1"]).points
    assert "CUDA_VISIBLE_DEVICES" not in local.slots(chosen, 1, gpus=2)[0]


def test_a_sweep_is_no_config(write, capfd):
    path = str(write(SEEDS))
    assert cli.main(["run", path]) == 1
    assert "expected a config, got a sweep of several; start it with `hiddennet sweep`" in capfd.readouterr().err


def test_the_example_of_the_help_is_a_sweep(tmp_path):
    path = tmp_path / "example.yml"
    path.write_text("\n".join(line for line in command.EXAMPLE.splitlines() if line.startswith("  ")))
    sweep = grid.load(path)
    assert len(sweep.points) == 18 and sweep.points[0].config.train.epochs == 30


def test_no_workers_is_refused(write, capfd):
    assert command.main([str(write(SEEDS)), "--workers", "0"]) == 1
    assert "--workers: expected at least 1, got 0" in capfd.readouterr().err
