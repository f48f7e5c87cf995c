"""The arithmetic of the measurements, on samples that are known."""

from __future__ import annotations

import argparse
import itertools
import json

import pytest
import torch

from bench import environment, harness, report
from bench.__main__ import Results, run, stem_of
from bench.harness import Effort, Timing, Unequal, measure, ratio, same
from bench.report import Report, Row

CPU = torch.device("cpu")


def timing(*seconds: float) -> Timing:
    return Timing(seconds, tuple(2 * s for s in seconds), calls=1)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when the work says so; CPU time runs at twice its speed."""
    now = [0.0]
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(harness.time, "process_time", lambda: 2 * now[0])

    def work(name: str, seconds: float, calls: list[str]):
        def run() -> None:
            calls.append(name)
            now[0] += seconds

        return run

    return work


def test_median_and_spread():
    t = timing(5.0, 1.0, 3.0, 2.0, 4.0)
    assert t.median == 3.0
    assert t.spread == pytest.approx((4.0 - 2.0) / 3.0)
    assert timing(7.0).spread == 0.0
    assert t.scaled(0.5).seconds == (2.5, 0.5, 1.5, 1.0, 2.0)
    assert t.scaled(0.5).cpu == (5.0, 1.0, 3.0, 2.0, 4.0)


def test_ratio_of_equal_rounds_has_no_spread():
    found = ratio(timing(4.0, 4.0, 4.0), timing(2.0, 2.0, 2.0))
    assert (found.value, found.low, found.high, found.pair_min, found.pair_max) == (2.0,) * 5


def test_ratio_pairs_the_rounds():
    """A slow round slows both sides: the pairs do not see it."""
    found = ratio(timing(2.0, 20.0, 2.0, 2.0), timing(1.0, 10.0, 1.0, 1.0))
    assert found.value == 2.0
    assert found.pair_min == found.pair_max == 2.0


def test_ratio_interval_covers_what_the_samples_leave_open():
    found = ratio(timing(2.0, 3.0, 4.0, 5.0, 6.0), timing(1.0, 1.0, 1.0, 1.0, 1.0))
    assert found.value == 4.0
    assert 2.0 <= found.low < 4.0 < found.high <= 6.0
    again = ratio(timing(2.0, 3.0, 4.0, 5.0, 6.0), timing(1.0, 1.0, 1.0, 1.0, 1.0))
    assert found == again  # the drawn rounds have a seed


def test_ratio_by_cpu_time():
    above, below = Timing((1.0, 1.0), (6.0, 6.0), 1), Timing((1.0, 1.0), (2.0, 2.0), 1)
    assert ratio(above, below, clock="cpu").value == pytest.approx(3.0)


def test_ratio_refuses_other_rounds():
    with pytest.raises(ValueError, match="same rounds, got 2 and 3"):
        ratio(timing(1.0, 1.0), timing(1.0, 1.0, 1.0))


def test_bars():
    found = ratio(timing(2.0, 3.0, 4.0, 5.0, 6.0), timing(1.0, 1.0, 1.0, 1.0, 1.0))
    assert found.holds(at_least=4.0)
    assert not found.clearly(at_least=4.0)
    assert found.clearly(at_least=2.0)
    assert not found.holds(at_most=3.9)
    assert found.clearly(at_most=6.0)


def test_measure_interleaves_and_turns_round(clock):
    calls: list[str] = []
    works = {"a": clock("a", 1.0, calls), "b": clock("b", 3.0, calls)}
    effort = Effort(rounds=3, min_rounds=1, warmup=1, budget_s=100.0, sample_s=0.0)
    times = measure(works, check=None, device=CPU, effort=effort)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # warm-up, then three rounds
    assert times["a"].seconds == (1.0, 1.0, 1.0)
    assert times["b"].cpu == (6.0, 6.0, 6.0)


def test_measure_repeats_short_work_within_a_sample(clock):
    calls: list[str] = []
    effort = Effort(rounds=2, min_rounds=2, warmup=0, budget_s=1.0, sample_s=0.01, max_calls=8)
    works = {"short": clock("s", 0.002, calls), "tiny": clock("t", 1e-6, calls)}
    times = measure(works, check=None, device=CPU, effort=effort)
    assert (times["short"].calls, times["tiny"].calls) == (5, 8)
    assert times["short"].median == pytest.approx(0.002)
    assert len(times["short"].seconds) == 2


def test_measure_ends_with_its_budget_but_takes_the_least_rounds(clock):
    effort = Effort(rounds=50, min_rounds=3, warmup=0, budget_s=2.0, sample_s=0.0)
    slow = measure({"slow": clock("x", 5.0, [])}, check=None, device=CPU, effort=effort)
    assert len(slow["slow"].seconds) == 3
    fast = measure({"fast": clock("x", 0.25, [])}, check=None, device=CPU, effort=effort)
    assert len(fast["fast"].seconds) == 9  # stops in the round after the budget is spent


def test_nothing_is_timed_when_the_check_fails():
    calls: list[int] = []

    def check() -> None:
        raise Unequal("not the same")

    with pytest.raises(Unequal):
        measure({"a": lambda: calls.append(1)}, check=check, device=CPU, effort=Effort.quick())
    assert calls == []


def test_measure_refuses_nothing():
    with pytest.raises(ValueError, match="at least one variant"):
        measure({}, check=None, device=CPU, effort=Effort.quick())


def test_same():
    one = torch.tensor([1.0, 2.0, 3.0])
    same("x", one, one.clone())
    same("x", one * (1 + 1e-4), one, rtol=2e-4)
    with pytest.raises(Unequal, match=r"x: expected equal bits, got 2\.5 for 2\.0 at 1"):
        same("x", torch.tensor([1.0, 2.5, 3.0]), one)
    with pytest.raises(Unequal, match="difference of at most"):
        same("x", one * (1 + 1e-3), one, rtol=2e-4)
    with pytest.raises(Unequal, match="difference of at most"):
        same("x", torch.full((3,), float("nan")), one, rtol=1.0)
    with pytest.raises(Unequal, match="shape"):
        same("x", one[:2], one)


def test_copy_bandwidth_counts_both_ways(clock, monkeypatch):
    """2^22 bytes read and 2^22 written in a quarter of a second."""
    copy = clock("copy", 0.25, [])
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *_: copy())
    assert harness.copy_bandwidth(CPU, quick=True) == pytest.approx(2 * 2**22 / 0.25)


def _report(capsys, quick: bool = False, path=None) -> Report:
    found = Report("name", argparse.Namespace(json=path, quick=quick), CPU)
    capsys.readouterr()
    return found


def test_report_floor_and_bars(capsys, tmp_path):
    found = _report(capsys, path=tmp_path / "deep" / "x.json")
    found.timings("op", {"ours": timing(2e-6, 4e-6, 6e-6)}, bytes=2000, bandwidth=1e9)
    found.ratio("op", "a / b", ratio(timing(4.0, 4.0), timing(2.0, 2.0)), at_least=3)
    found.value("size", "file", 3.4, "MB", at_most=3.5)
    found.close()
    said = capsys.readouterr().out
    assert "4 us" in said and "50%" in said and "2x (2 .. 2)" in said
    assert ">= 3 MISSED" in said and "<= 3.5 holds" in said
    lines = [json.loads(line) for line in (tmp_path / "deep" / "x.json").read_text().splitlines()]
    assert {"device", "threads", "torch", "commit"} <= set(lines[0]["environment"])
    assert lines[1]["percent_of_floor"] == pytest.approx(50.0)
    assert lines[1]["floor_s"] == pytest.approx(2e-6)
    assert (lines[2]["bar"], lines[2]["holds"], lines[3]["holds"]) == (">= 3", False, True)


def test_quick_reports_hold_no_bar(capsys):
    found = _report(capsys, quick=True)
    found.value("size", "file", 9.9, "MB", at_most=3.5)
    found.ratio("op", "a / b", ratio(timing(4.0), timing(2.0)), at_least=3)
    assert [row.holds for row in found.rows] == [None, None]
    assert all("(quick)" in report.cells(row)[-1] for row in found.rows)


def test_seconds_in_words():
    given = (None, 2.5, 0.0031, 4.25e-5, 7e-8)
    assert [report.seconds(s) for s in given] == ["", "2.5 s", "3.1 ms", "42.5 us", "70 ns"]


def test_table_lines_up():
    rows = [Row("b", "one", "x", value=1.0, unit="MB"), Row("b", "longer", "y", note="why")]
    lines = report.table(rows).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[-1] == "- longer, y: why"


STAGE = {"stage": "build", "status": "ok", "seconds": 3, "said": "7 passed"}


def test_results_of_several_benchmarks(capsys, tmp_path):
    path = tmp_path / "part.jsonl"
    part = _report(capsys, path=path)
    part.value("size", "file", 9.9, "MB", at_most=3.5)
    part.close()
    results = Results("python -m bench", stages=[STAGE])
    results.read(path)
    results.failures.append("step: exit status 1")
    written = results.write(tmp_path / "out", "device")
    document = json.loads(written.with_suffix(".json").read_text())
    assert document["environment"]["device_type"] == "cpu"
    assert document["failures"] == ["step: exit status 1"]
    assert document["stages"][0]["stage"] == "build"
    assert document["rows"][0]["value"] == 9.9
    text = written.with_suffix(".md").read_text()
    assert "0 of 1 bars hold" in text and "missed: size: file, <= 3.5" in text
    assert "| build | ok | 3 | 7 passed |" in text and "FAILED step" in text


def test_files_are_named_after_the_device_and_what_ran():
    args = argparse.Namespace(only=None, quick=False)
    assert stem_of(args, {"device": "NVIDIA H200"}, "cuda") == "nvidia-h200"
    args = argparse.Namespace(only=["step", "memory"], quick=True)
    assert stem_of(args, {}, "cpu") == "cpu-step-memory-quick"


def test_a_benchmark_that_runs_out_of_time_is_named(tmp_path):
    args = argparse.Namespace(timeout=0.01, deadline=9.0, quick=True, threads=None, root=tmp_path, sets=["digits"])
    assert "not done after" in run("memory", args, "cpu", tmp_path / "x.json", left=5.0)
    assert "no time left of 9 s" in run("memory", args, "cpu", tmp_path / "x.json", left=0.0)


def test_commit_can_be_told(monkeypatch):
    monkeypatch.setenv("HIDDENNET_COMMIT", "abc")
    assert environment.commit() == "abc"
    monkeypatch.delenv("HIDDENNET_COMMIT")
    monkeypatch.setattr(environment, "ROOT", environment.ROOT.parent / "no such folder")
    assert environment.commit() == "unknown"


def test_swinging_takes_small_steps_only():
    from bench.ops.inputs import swinging

    seen: list[int] = []
    work = swinging(seen.append, 4)
    for _ in range(9):
        work()
    assert seen == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert all(abs(a - b) == 1 for a, b in itertools.pairwise(seen))


def test_scores_move_as_in_training():
    from bench.ops.inputs import kept, sorted_mask, walk

    states = walk((64, 64, 3, 3), 4, CPU)
    k = kept(states[0].numel())
    for before, after in itertools.pairwise(states):
        flipped = (sorted_mask(before, k) != sorted_mask(after, k)).float().mean().item()
        assert 0.0015 < flipped < 0.006
        low, high = (s.abs().flatten().sort().values[-k].item() for s in (after, before))
        assert abs(low - high) < 4e-3 * high
