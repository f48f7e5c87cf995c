"""A run that was stopped, killed or finished goes on to the bit, as if nothing had been."""

from __future__ import annotations

import csv
import math
import multiprocessing
import os
import signal

import pytest
import torch

from hiddennet import config as configs
from hiddennet.config.load import merge, overrides_document
from hiddennet.methods import METHODS
from hiddennet.settings import yaml
from hiddennet.train import checkpoint, experiment
from hiddennet.train.engine import Engine
from hiddennet.train.folder import RunError, RunFolder
from hiddennet.train.session import Session
from hiddennet.train.signals import Stopped

KINDS = {
    "edge_popup": (),
    "edge_popup with batch norm": ("model.name=cifar_resnet18", "model.width=0.05"),
    "sampled": ("method={name: sampled}",),
    "dense": ("method={name: dense}", "optimizer.name=adam", "optimizer.lr=0.001"),
    "trained weights": ("method.dense_epochs=1",),
    "iterand with signs": ("method={name: iterand, init: signed_constant, period: 2, rate: 0.5}",),
    "iterand with uniforms": ("method={name: iterand, period: 2, rate: 0.5, share: 0.7}",),
    "iterand decayed": ("method={name: iterand, init: signed_constant, period: 2, decay: 0.5, mix: 0.1}",),
    "gem_miner": (
        "method={name: gem_miner, density: 0.3, period: 1, regularizer: l2, regularizer_weight: 1.0e-3, noise: 0.1,"
        " fine_tune: {epochs: 1, optimizer: {lr: 0.01}}}",
    ),
    "gem_miner at its end": ("method={name: gem_miner, density: 0.2, period: 1}",),
    "hc drawn": ("method={name: hc, rounding: probabilistic, regularizer: var_red_1, regularizer_weight: 1.0e-4}",),
    "global_edge_popup": ("method={name: global_edge_popup, density: 0.3, period: 1}",),
    "imp": ("method={name: imp, rounds: 2, rewind_step: 2}", "train.epochs=1"),
    "imp of the learning rate": ("method={name: imp, rounds: 2, rewind: learning_rate}", "train.epochs=1"),
    "prune_at_init": ("method={name: prune_at_init, pruner: snip, density: 0.4, shots: 1, prune_epoch: 1}",),
    "peek_a_boo": ("method={name: peek_a_boo, density: 0.4, iterations: 3, adaptivity_rate: 0.1, psg: {}}",),
    "peek_a_boo ternary": ("method={name: peek_a_boo, density: 0.4, pruner: grasp, learn: ternary}",),
    "targeted dropout": ("method={name: magnitude_topk, density: 0.3, drop: 0.6}", "train.accumulate=2"),
    "mixup by iteration": ("train.mixup=0.4", "schedule={name: cosine, by: iteration, warmup_epochs: 1}"),
    "wirings": (
        "method={name: dnw, density: 0.2}",
        "model={name: dnw_static, batch_norm: affine, graph: {blocks: [8, 16, 20], outputs: 10}}",
        "data.image_size=16",
        "model.width=1",
    ),
    "wirings dropped, then fixed": (
        "method={name: dnw, density: 0.2, kind: targeted_dropout, drop: 0.5, rewind: true, fine_tune: {epochs: 1}}",
        "model={name: dnw_discrete, graph: {nodes: 30, inputs: 8, outputs: 10, steps: 2}}",
        "data.image_size=16",
        "model.width=1",
        "train.epochs=1",
    ),
    "sampled draw": ("method={name: sampled, evaluation: draw}", "train.accumulate=2"),
}
TIMES = ("images_per_second", "seconds", "peak_memory_bytes")


def small(make, kind: str, *more: str):
    document = yaml.parse(configs.dump(make(*more)))
    for override in KINDS[kind]:
        if override.startswith("method={"):
            document["method"] = yaml.parse(override.removeprefix("method="))
        else:
            document = merge(document, overrides_document([override]))
    return configs.parse(document)


def outcome(folder: RunFolder) -> tuple:
    """All that a run leaves, without times."""
    last, best = checkpoint.load(folder.last), checkpoint.load(folder.best)
    with open(folder.metrics, newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    record = {k: v for k, v in folder.read_record().items() if "top" in k or "best" in k}
    return last, best, rows, record, folder.artifact.read_bytes()


def assert_same(left, right, path: str = "") -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left.keys() - {*TIMES, "id"}:
            assert_same(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{path}.{i}")
    else:
        assert left == right, path


def stop_at_step(monkeypatch, method: str, step: int, signum: int = signal.SIGTERM) -> None:
    own = METHODS[method].after_update

    def after_update(self, model, at: int) -> None:
        own(self, model, at)
        if at == step:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(METHODS[method], "after_update", after_update)


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_equals_uninterrupted(make, monkeypatch, tmp_path, kind):
    """200 images less the validation split, in batches of 32: 6 steps an epoch."""
    config = small(make, kind)
    experiment.run(config)
    want = outcome(RunFolder.of(config))

    again = small(make, kind, f"runs={tmp_path / 'again'}")
    for step, saved in ((3, 3), (6, 6), (8, 2)):
        with monkeypatch.context() as patch:
            stop_at_step(patch, again.method.name, step)
            with pytest.raises(Stopped) as stop:
                experiment.run(again)
        assert stop.value.code == 143
        progress = checkpoint.load(RunFolder.of(again).last)["progress"]
        assert (progress["step"], progress["batch"]) == (step, saved)
    experiment.run(again)
    assert_same(want, outcome(RunFolder.of(again)))


def test_stopped_in_an_evaluation(make, monkeypatch, tmp_path):
    config = make()
    experiment.run(config)
    again = make(f"runs={tmp_path / 'again'}")
    evaluate = Engine.evaluate

    def interrupted(self, loader, stop=lambda: False):
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, loader, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "evaluate", interrupted)
        with pytest.raises(Stopped) as stop:
            experiment.run(again)
    assert stop.value.code == 130
    experiment.run(again)
    assert_same(outcome(RunFolder.of(config)), outcome(RunFolder.of(again)))


@pytest.mark.parametrize("kind", ["gem_miner", "gem_miner at its end", "global_edge_popup", "sampled draw"])
def test_stopped_in_every_evaluation(make, monkeypatch, tmp_path, kind):
    """What a method does at the end of an epoch it does once, whichever split's evaluation the signal comes in."""
    config = small(make, kind, "train.selection=test", "data.validation=0.1")
    experiment.run(config)
    again = small(make, kind, "train.selection=test", "data.validation=0.1", f"runs={tmp_path / 'again'}")
    evaluate, end, at, stopped = Engine.evaluate, Session._evaluate_epoch, [], []

    def noted(self, wish, lr):
        at[:] = [self.progress.epoch]
        return end(self, wish, lr)

    def interrupted(self, loader, stop=lambda: False):
        place = (*at, loader is self.method.data.test)
        if at and place not in stopped:
            stopped.append(place)
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, loader, stop)

    monkeypatch.setattr(Session, "_evaluate_epoch", noted)
    monkeypatch.setattr(Engine, "evaluate", interrupted)
    stops = 0
    while not RunFolder.of(again).read_record().get("finished"):
        at.clear()
        try:
            experiment.run(again)
        except Stopped:
            stops += 1
    epochs = RunFolder.of(again).read_record()["epochs"]
    assert stops == 2 * epochs and len(set(stopped)) == stops
    assert_same(outcome(RunFolder.of(config)), outcome(RunFolder.of(again)))


def _run_and_die_at_save(config, number: int) -> None:
    """Die in the middle of the given save: the data are written, the name is not yet theirs."""
    replace, saves = os.replace, []

    def die(source, target) -> None:
        saves.append(target)
        if len(saves) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = die
    experiment.run(config)


@pytest.mark.forks
@pytest.mark.parametrize("number", [3, 6, 9])
def test_killed_in_the_middle_of_a_save(make, tmp_path, number):
    config = make()
    experiment.run(config)
    again = make(f"runs={tmp_path / 'again'}")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_run_and_die_at_save, args=(again, number))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    experiment.run(again)
    assert_same(outcome(RunFolder.of(config)), outcome(RunFolder.of(again)))
    assert not [p for p in RunFolder.of(again).path.rglob(".*") if p.name != ".lock"]


def test_a_finished_run_is_shown_not_repeated(make, capfd, monkeypatch):
    config = make()
    first = experiment.run(config)
    capfd.readouterr()
    monkeypatch.setattr(experiment, "_run", None)
    assert experiment.run(config) == first
    text = capfd.readouterr().out
    assert "was finished on" in text
    assert f"{first['test_top1']:.2%} top-1" in text


def test_fresh_starts_again(make):
    config = make()
    first = experiment.run(config)
    stray = RunFolder.of(config).checkpoints / "epoch_0099.pt"
    stray.write_bytes(b"")
    second = experiment.run(config, fresh=True)
    assert second["id"] != first["id"]
    assert second["test_top1"] == first["test_top1"]
    assert not stray.exists()
    results = RunFolder.of(config).path.parents[1] / "results.csv"
    with open(results, newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [first["id"], second["id"]]


def test_a_damaged_checkpoint_stops_the_run_with_a_way_out(make, monkeypatch):
    config = make()
    stop_at_step(monkeypatch, "edge_popup", 2)
    with pytest.raises(Stopped):
        experiment.run(config)
    last = RunFolder.of(config).last
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(checkpoint.CheckpointError, match=r"damaged .*start again with --fresh"):
        experiment.run(config)


def test_two_runs_of_one_config_do_not_meet(make):
    config = make()
    with RunFolder.of(config).held(), pytest.raises(RunError, match="another process at work"):
        experiment.run(config)


def test_what_a_run_leaves(make):
    config = make("train.save_every=1", "train.selection=test", "train.epochs=3")
    record = experiment.run(config)
    folder = RunFolder.of(config)
    assert folder.read_config() == config
    names = {path.name for path in folder.checkpoints.iterdir()}
    wanted = {"first.pt", "best.pt", "last.pt"} | {f"epoch_000{i}.pt" for i in (1, 2, 3)}
    assert names == wanted
    assert list(folder.events.glob("events.out.tfevents.*"))
    with open(folder.metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["test_top1"]))
    assert int(best["epoch"]) == record["best_epoch"]
    assert float(best["test_top1"]) == record["test_top1"]
    assert record["selection"] == "test"
    assert record["density"] == pytest.approx(0.5, abs=1e-3)
    assert folder.read_record() == record
    first = checkpoint.load(folder.first)
    assert (first["progress"]["step"], first["progress"]["epoch"]) == (0, 0)


def test_no_epochs_evaluates_the_network_as_drawn(make):
    record = experiment.run(make("train.epochs=0"))
    assert record["best_epoch"] == 0
    assert 0 <= record["test_top1"] < 0.5


def test_parameters_are_counted_as_the_run_starts(make, monkeypatch):
    """Not as the layers stand in the stage where it was left."""
    config = make("method.dense_epochs=1", "train.epochs=3")
    want = experiment.run(config)["parameters"]
    stop_at_step(monkeypatch, "edge_popup", 8)
    with pytest.raises(Stopped):
        experiment.run(config, fresh=True)
    assert experiment.run(config)["parameters"] == want


@pytest.mark.parametrize("deterministic", [False, True])
def test_another_number_of_threads_is_said_or_put_back(make, monkeypatch, capfd, deterministic):
    config = make(f"train.deterministic={str(deterministic).lower()}")
    with monkeypatch.context() as patch:
        stop_at_step(patch, "edge_popup", 2)
        with pytest.raises(Stopped):
            experiment.run(config)
    torch.set_num_threads(2)
    capfd.readouterr()
    try:
        experiment.run(config)
        assert torch.get_num_threads() == (1 if deterministic else 2)
    finally:
        torch.use_deterministic_algorithms(False)
    said = "note: the run was on threads=1 and goes on with 2; the results are no longer those of one machine"
    assert (said in capfd.readouterr().out) != deterministic


@pytest.mark.parametrize("kind", ["edge_popup", "dense", "iterand with signs", "prune_at_init", "peek_a_boo"])
def test_a_finished_run_is_extended(make, tmp_path, capfd, kind):
    """With a schedule that does not know the end, it is the run that would have been so long from its beginning."""
    one, long = small(make, kind), small(make, kind, "train.epochs=4", f"runs={tmp_path / 'long'}")
    run = experiment.run(one)["run"]
    experiment.run(long)
    more = small(make, kind, "train.epochs=4")
    capfd.readouterr()
    record = experiment.run(more, extend=run)
    said = capfd.readouterr().out
    assert f"goes on with epoch 3 of 4, from {run}, at the learning rates of a run of 4 epochs" in said
    assert_same(outcome(RunFolder.of(long)), outcome(RunFolder.of(more)))
    assert record["extends"] == run and record["epochs"] == 4 and record["run"] != run
    assert experiment.run(more, extend=run) == record  # finished, as any
    assert experiment.run(one)["epochs"] == 2


def test_an_extension_that_is_stopped_goes_on(make, monkeypatch):
    config, more = make(), make("train.epochs=4", "schedule.name=cosine")
    run = experiment.run(config)["run"]
    with monkeypatch.context() as patch:
        stop_at_step(patch, "edge_popup", 15)
        with pytest.raises(Stopped):
            experiment.run(more, extend=run)
    record = experiment.run(more)
    assert record["extends"] == run
    with open(RunFolder.of(more).metrics, newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.1 * (1 + math.cos(0.75 * math.pi)) / 2])


@pytest.mark.parametrize(
    "more, words",
    [
        (("train.epochs=4", "seed=1"), r"expected seed as .* has it \(the default\), got 1; train.epochs and schedule"),
        (("train.epochs=4", "optimizer.lr=0.2"), r"expected optimizer.lr as .* has it \(the default\), got 0.2"),
        (("train.epochs=1",), "expected more epochs than the 2 of"),
        (("train.epochs=4", "method={name: gem_miner, density: 0.5, period: 1}"), "expected method.density as"),
    ],
)
def test_what_cannot_be_extended_is_refused(make, more, words):
    run = experiment.run(make())["run"]
    with pytest.raises(ValueError, match=f"--extend: {words}"):
        experiment.run(make(*more), extend=run)
    assert not RunFolder.of(make(*more)).last.exists()


@pytest.mark.parametrize("kind", ["gem_miner at its end", "imp", "trained weights"])
def test_a_method_that_counts_back_from_its_end_is_not_extended(make, kind):
    document = yaml.parse(configs.dump(small(make, kind)))
    run = experiment.run(configs.parse(document))["run"]
    document["train"]["epochs"] = 4
    with pytest.raises(ValueError, match="--extend: expected a run whose epochs do not depend on how many follow"):
        experiment.run(configs.parse(document), extend=run)
