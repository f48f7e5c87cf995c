"""Who is told of a run: TensorBoard's files, the services' loggers with a package that only listens, one's own."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from hiddennet import config
from hiddennet.loggers import TensorBoard, flips
from hiddennet.registry import REGISTRIES
from hiddennet.train import experiment
from hiddennet.train.signals import Stopped

SMALL = ["model.width=0.1", "data.limit=320", "train.epochs=3", "train.device=cpu", "train.amp=float32"]


def ran(folder: Path, loggers: str, *more: str, name: str = "digits"):
    settings = config.load(name, [*SMALL, f"runs={folder}", f"train.loggers=[{loggers}]", *more])
    return experiment.run(settings, bar=False)


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("name", ["digits", "digits-iterand"])
def test_telling_changes_nothing_of_the_run(tmp_path, name):
    records = [ran(tmp_path / f"with {loggers}", loggers, name=name) for loggers in ("", "tensorboard")]
    files = [Path(record["artifact"]).read_bytes() for record in records]
    assert files[0] == files[1] and records[0]["test_loss"] == records[1]["test_loss"]


def test_tensorboard_has_steps_scores_masks_flips_and_results(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = ran(tmp_path, "tensorboard", "train.log_every=3")
    events = Path(record["run"]) / "events"
    by_epoch, by_step = scalars(events), scalars(events / "steps")
    assert list(by_step["step/loss"]) == [3, 6, 8, 11, 14, 16, 19, 22, 24]  # 8 steps an epoch
    for epoch in range(3):  # three, three and two batches of 32
        parts = [by_step["step/loss"][8 * epoch + at] * n for at, n in ((3, 3), (6, 3), (8, 2))]
        assert sum(parts) / 8 == pytest.approx(by_epoch["train/loss"][epoch + 1], rel=1e-4)
    assert by_epoch["best/test_top1"] == {record["best_epoch"]: pytest.approx(record["test_top1"])}
    layers = [tag.removeprefix("flips/") for tag in by_epoch if tag.startswith("flips/")]
    assert len(layers) == 4 and all(0 < share < 1 for share in by_epoch["run/flips"].values())
    histograms = EventAccumulator(str(events), size_guidance={"histograms": 0}).Reload()
    assert set(histograms.Tags()["histograms"]) == {f"{kind}/{name}" for kind in ("mask", "scores") for name in layers}
    kept = histograms.Histograms(f"mask/{layers[0]}")[-1].histogram_value
    assert kept.sum / kept.num == pytest.approx(record["density"], abs=0.02)
    assert "_hparams_/experiment" in histograms.summary_metadata


def test_flips_are_fractions():
    import torch

    def layers(*masks):
        return {str(i): {"mask": torch.tensor(mask, dtype=torch.bool)} for i, mask in enumerate(masks)}

    before, now = layers([1, 1, 0, 0], [1, 0]), layers([1, 0, 1, 0], [1, 0])
    assert flips(before, now) == {"0": 0.5, "1": 0.0, "": 2 / 6}
    assert flips(None, now) == {} and flips(layers([1, 0]), now) == {} and flips({}, {}) == {}


class Service:
    """What both packages have of functions, written down."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **named):
            self.calls.append((name, arguments, named))
            return self

        return call

    info = types.SimpleNamespace(run_id="theirs")

    @property
    def summary(self):
        return self

    def of(self, name):
        return [(arguments, named) for called, arguments, named in self.calls if called == name]


@pytest.fixture
def service(monkeypatch):
    made = Service()
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, made)
    return made


def test_wandb_is_told_and_goes_on(tmp_path, service):
    record = ran(tmp_path, "wandb")
    ((_, begun),) = service.of("init")
    assert begun["config"]["method.density"] == 0.5  # what is as by default, too
    rows = [arguments[0] for arguments, _ in service.of("log")]
    assert [row["epoch"] for row in rows if "train_loss" in row] == [1, 2, 3]
    assert [row["epoch"] for row in rows if "flips" in row] == [1, 2, 3]
    assert [row["step"] for row in rows if "step/loss" in row] == [8, 16, 24]
    (((summary,), _),) = service.of("update")
    assert summary["best/test_top1"] == record["test_top1"] and len(service.of("finish")) == 1
    _forget_the_last_epoch(Path(record["run"]))
    ran(tmp_path, "wandb")
    again = service.of("init")[1][1]
    assert (again["id"], again["resume"]) == (begun["id"], "allow")


def test_mlflow_is_told_and_goes_on(tmp_path, service):
    record = ran(tmp_path, "mlflow")
    (((params,), _),) = service.of("log_params")
    assert params["method.name"] == "edge_popup"
    told = [(arguments[0], named["step"]) for arguments, named in service.of("log_metrics")]
    assert [step for row, step in told if "train_loss" in row] == [1, 2, 3]
    assert [row["best/test_top1"] for row, _ in told if "best/test_top1" in row] == [record["test_top1"]]
    _forget_the_last_epoch(Path(record["run"]))
    ran(tmp_path, "mlflow")
    assert [named for _, named in service.of("start_run")][1] == {"run_id": "theirs"}
    assert len(service.of("log_params")) == 1 and len(service.of("end_run")) == 2


def _forget_the_last_epoch(run: Path) -> None:
    """As if the process had been killed before its record was written."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "finished": None}))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ValueError, match=rf"^train.loggers: expected {name} to be installed.*pip install {name}, or lea"
    ):
        ran(tmp_path, name)


def test_a_run_that_goes_on_within_an_epoch_tells_the_rest(tmp_path, monkeypatch):
    """The losses by step are those of an undisturbed run; the flips of the broken epoch are not known."""
    told = {}

    class Mine:
        stop_at = None

        def __init__(self, folder, history):
            self.rows = told.setdefault(folder.parts[-3], {})

        def start(self, settings, step):
            self.rows[f"start {step}"] = settings["method.name"]

        def step(self, row, step):
            self.rows[step] = row["loss"]
            if step == self.stop_at:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGTERM)

        def add(self, row, epoch):
            self.rows[f"epoch {epoch}"] = row["train_loss"]

        def close(self):
            self.rows["closed"] = True

    registry = REGISTRIES["logger"]
    monkeypatch.setattr(registry, "_things", {**registry._things, "mine": Mine})
    ran(tmp_path / "whole", "mine", "train.log_every=2")
    Mine.stop_at = 12
    with pytest.raises(Stopped):
        ran(tmp_path / "broken", "mine", "train.log_every=2")
    assert told["broken"]["closed"] and "epoch 2" not in told["broken"]
    Mine.stop_at = None
    ran(tmp_path / "broken", "mine", "train.log_every=2")
    assert "start 12" in told["broken"]
    del told["broken"]["start 12"]
    assert told["broken"] == pytest.approx(told["whole"])


def test_a_logger_of_three_methods_is_enough(tmp_path):
    assert {"wandb", "mlflow", "tensorboard"} <= set(REGISTRIES["logger"])
    curves = TensorBoard(tmp_path, [])
    curves.add({"train_loss": 1.0}, 1)  # without start, as before
    curves.close()
    assert scalars(tmp_path / "events") == {"train/loss": {1: 1.0}}
