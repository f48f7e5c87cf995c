"""What a run shows: the bar on a terminal, few lines elsewhere, TensorBoard's numbers."""

from __future__ import annotations

import time

import pytest

from hiddennet.loggers import TensorBoard
from hiddennet.tables import named
from hiddennet.train import console
from hiddennet.train.console import Console, clock
from hiddennet.train.scores import Scores

SCORES = Scores(loss=1.2345, top1=0.5, top5=0.9, images=64)


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01"), (36000, "10:00:00")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_the_bar_shows_loss_accuracy_density_speed_and_time_left(capfd, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_DRAWINGS", 0.0)
    shown = Console(bar=True)
    shown.epoch_start(0, 3, 10, 0)
    shown.progress(0, 4, 10, SCORES, 0.3, 1234.0, 61)
    shown.close()
    text = capfd.readouterr().err
    assert "epoch 1/3" in text
    assert "loss 1.234, acc 50.00%, density 0.300, 1,234 images/s, 1:01 left" in text
    assert "4/10" in text


def test_elsewhere_a_line_every_half_minute(capfd, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    shown = Console(bar=False)
    shown.epoch_start(1, 3, 10, 0)
    for batch in range(1, 9):
        now[0] += 10.0
        shown.progress(1, batch, 10, SCORES, 0.3, 1234.0, 61)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 2, batch 4/10", "epoch 2, batch 8/10"]


def test_other_ranks_are_silent(capfd):
    quiet = Console(speaks=False)
    quiet.epoch_start(0, 1, 10, 0)
    quiet.progress(0, 4, 10, SCORES, 0.3, 1234.0, 61)
    quiet.say("hello")
    assert capfd.readouterr() == ("", "")


def test_curves_are_written_and_a_resumed_epoch_is_not_there_twice(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, values in ((0, {1: 0.1, 2: 0.2, 3: 0.3}), (1, {2: 0.25, 3: 0.35})):
        curves = TensorBoard(tmp_path, [{}] * first)
        for epoch, value in values.items():
            curves.add({"train_loss": value, "lr": 1.0, "density/conv1": 0.5}, epoch)
        curves.close()
        time.sleep(1.0)  # files of one second are read in the order of their numbers as text: 10 before 9
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "run/lr", "density/conv1"}
    found = [(event.step, round(event.value, 4)) for event in events.Scalars("train/loss")]
    assert found == [(1, 0.1), (2, 0.25), (3, 0.35)]


def test_named():
    assert named("net", {"a": "1", "long": "2"}) == "net\n  a     1\n  long  2"
