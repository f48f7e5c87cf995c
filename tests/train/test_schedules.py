"""Learning rates by epoch and by step, against the original's tables and by hand."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from hiddennet.settings.recipe import SCHEDULES, Clock, ScheduleSection
from hiddennet.train import experiment
from hiddennet.train.engine import Engine
from hiddennet.train.folder import RunFolder
from tests.golden import Golden


def section(name: str, warmup_epochs: int = 0, **more) -> ScheduleSection:
    return SCHEDULES[name](name=name, warmup_epochs=warmup_epochs, **more)


def learning_rate(schedule, lr, epoch, epochs, history=(), *, iteration=0, iterations=1) -> float:
    return lr * schedule.scale(Clock(epoch, epochs, lr, history, iteration, iterations))


@pytest.mark.parametrize(
    "array, schedule, lr",
    [
        ("lr_cosine_0p1_100", section("cosine"), 0.1),
        ("lr_cosine_0p256_100_w5", section("cosine", 5), 0.256),
        ("lr_const_warm3", section("constant", 3), None),
    ],
)
def test_the_originals_tables(array, schedule, lr):
    want = Golden("hidden_networks")[array]
    top = lr if lr is not None else float(want[-1])
    got = [learning_rate(schedule, top, epoch, len(want)) for epoch in range(len(want))]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("epochs, milestones", [(100, [50, 80]), (150, [80, 120]), (200, [100, 150]), (88, [44, 58])])
def test_the_rare_gems_tables(epochs, milestones):
    values = Golden("rare_gems")
    schedules = {
        "cosine": section("cosine"),
        "constant": section("constant"),
        "multistep": section("multistep", milestones=milestones, interval=None, gamma=0.1),
    }
    for name, schedule in schedules.items():
        got = [learning_rate(schedule, 0.1, epoch, epochs) for epoch in range(epochs)]
        np.testing.assert_allclose(got, values[f"J_{name}_lr_{epochs}"], rtol=1e-5, atol=1e-8)


def test_the_tables_of_neural_wirings():
    values = Golden("dnw")
    by_epoch = {
        "J/cosine_warm_lr_0.256_w5_e100": (section("cosine", 5), 0.256, range(100), 100),
        "I/multistep_80_120": (
            section("multistep", milestones=[80, 120], interval=None, gamma=0.1),
            0.1,
            (0, 79, 80, 119, 120, 159),
            160,
        ),
    }
    for name, (schedule, top, epochs, total) in by_epoch.items():
        got = [learning_rate(schedule, top, epoch, total) for epoch in epochs]
        np.testing.assert_allclose(got, values[name], rtol=1e-12, err_msg=name)
    by_step = section("cosine", by="iteration")
    got = [learning_rate(by_step, 0.1, e, 3, iteration=i, iterations=4) for e in range(3) for i in range(4)]
    np.testing.assert_allclose(got, values["I/cosine_epochs3_len4_lr_used"], rtol=1e-12, atol=1e-17)
    assert got[-1] == 0.0


def test_cosine_by_iteration_with_warm_up_and_tail():
    schedule = section("cosine", 1, by="iteration", final_epochs=1, final_lr=1e-5)
    got = [learning_rate(schedule, 1.0, e, 4, iteration=i, iterations=2) for e in range(4) for i in range(2)]
    falling = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in (1, 2, 3, 4)]
    assert got == pytest.approx([0.5, 1.0, *falling, 1e-5, 1e-5], abs=1e-15)


def test_warm_up_alone_by_iteration():
    schedule = section("cosine", 2, by="iteration")
    got = [learning_rate(schedule, 1.0, e, 2, iteration=i, iterations=2) for e in range(2) for i in range(2)]
    assert got == [0.25, 0.5, 0.75, 1.0]


def test_a_run_by_iteration_steps_with_the_tables_rates(make, monkeypatch):
    """Four steps an epoch, three epochs: the rate each step is taken with; the row of an epoch has its first."""
    used, step = [], Engine.step

    def record(self, *args) -> None:
        used.append(self.optimizer.param_groups[0]["lr"])
        step(self, *args)

    monkeypatch.setattr(Engine, "step", record)
    changes = ("schedule.name=cosine", "schedule.by=iteration", "train.epochs=3", "data.batch_size=45")
    config = make(*changes, "optimizer.lr=0.1")
    experiment.run(config)
    want = Golden("dnw")["I/cosine_epochs3_len4_lr_used"]
    np.testing.assert_allclose(used, want, rtol=1e-12, atol=1e-17)
    with open(RunFolder.of(config).metrics, newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rates, want[::4], rtol=1e-6)


def test_cosine_with_a_constant_tail():
    schedule = section("cosine", 1, final_epochs=2, final_lr=1e-5)
    got = [learning_rate(schedule, 1.0, epoch, 7) for epoch in range(7)]
    falling = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert got == pytest.approx([1.0, *falling, 1e-5, 1e-5])


def test_multistep_by_milestones():
    schedule = section("multistep", milestones=[2, 4], interval=None, gamma=0.5)
    got = [learning_rate(schedule, 1.0, epoch, 6) for epoch in range(6)]
    assert got == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_multistep_by_interval_after_warm_up():
    schedule = section("multistep", 2, milestones=[], interval=3, gamma=0.1)
    got = [learning_rate(schedule, 1.0, epoch, 7) for epoch in range(7)]
    assert got == pytest.approx([0.5, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01])


def test_warm_up_may_last_as_long_as_the_run():
    got = [learning_rate(section("cosine", 2), 1.0, epoch, 2) for epoch in range(2)]
    assert got == [0.5, 1.0]


def rows(*losses):
    return [{"validation_loss": loss} for loss in losses]


def test_plateau_divides_where_no_new_best_is_reached():
    schedule, losses = section("plateau", factor=4.0), (5.0, 4.0, 4.5, 4.2, 3.0, 3.0, 2.0)
    got = [learning_rate(schedule, 16.0, epoch, 8, rows(*losses[:epoch])) for epoch in range(8)]
    assert got == [16.0, 16.0, 16.0, 4.0, 1.0, 1.0, 0.25, 0.25]


def test_plateau_looks_at_the_epochs_after_warm_up_and_before_its_own():
    schedule = section("plateau", 2, factor=2.0)
    got = [learning_rate(schedule, 1.0, epoch, 5, rows(1.0, 2.0, 9.0, 8.0, 8.5, 0.0)) for epoch in range(6)]
    assert got == [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]


def test_plateau_without_its_history_is_refused():
    with pytest.raises(ValueError, match="plateau: expected the rows of the 2 epochs before, got 1"):
        learning_rate(section("plateau", factor=4.0), 1.0, 2, 5, rows(1.0))


def test_a_loss_that_is_no_number_is_no_new_best():
    assert learning_rate(section("plateau", factor=4.0), 1.0, 1, 5, rows(float("nan"))) == 0.25
