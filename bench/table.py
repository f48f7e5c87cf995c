"""A benchmark as a table: cases that say which works are equal, what must move, and what is held against what.

A case is measured, printed and kept here, once for all benchmarks; harness.py has the arithmetic.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.harness import Check, Effort, Timing, Work, copy_bandwidth, device_of, measure, parser, ratio
from bench.report import Report

_NONE: Mapping[str, Mapping[str, Any]] = {}


@dataclass(frozen=True)
class Claim:
    """How many times faster `below` is than `above`, and the bar for it."""

    above: str
    below: str
    at_least: float | None = None
    at_most: float | None = None
    shown: str | None = None  # default: "above / below"
    note: str | None = None


@dataclass(frozen=True)
class Value:
    """A number beside the times."""

    variant: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Case:
    """Works that do the same on one input, and what is to be said of their times.

    check: raises Unequal unless they do the same. bytes: that must move, for each variant or for all. values: from the
    times. calls: inputs that a call goes through (a graph over several). effort: in place of the benchmark's. host:
    timed by the host's clock on a GPU too.
    """

    what: str
    works: Mapping[str, Work] = field(default_factory=dict)
    check: Check | None = None
    claims: Iterable[Claim] = ()
    bytes: Mapping[str, int] | int | None = None
    values: Callable[[Mapping[str, Timing]], Iterable[Value]] = lambda times: ()
    calls: int = 1
    effort: Effort | None = None
    host: bool = False


@dataclass(frozen=True)
class Setting:
    """Where and how a benchmark runs. bandwidth: bytes a second of a copy, where floors are asked for."""

    device: torch.device
    quick: bool
    bandwidth: float | None
    args: argparse.Namespace

    @property
    def on_cpu(self) -> bool:
        return self.device.type == "cpu"

    def effort_of_steps(self, **slow: float) -> Effort:
        """How long to measure training steps; `slow`: of a CPU, in place of 9 rounds in 45 seconds."""
        if not self.on_cpu:
            return Effort(warmup=10, budget_s=6.0)
        return Effort(**{"rounds": 9, "min_rounds": 5, "warmup": 1, "budget_s": 45.0, "sample_s": 0.0, **slow})

    def on_cpu_only(self, bar: float | None) -> float | None:
        """A bar that is for CPUs."""
        return bar if self.on_cpu else None


@dataclass(frozen=True)
class Benchmark:
    """A table of cases. floor: bytes are held against those of a copy. grad: autograd is on."""

    cases: Callable[[Setting], Iterator[Case]]
    effort: Effort = field(default_factory=Effort)
    floor: bool = False
    grad: bool = False


def run(name: str, benchmark: Benchmark, args: argparse.Namespace) -> None:
    """Measure all cases; print the table, and write it where `args.json` says."""
    device = device_of(args)
    torch.backends.cudnn.benchmark = True
    report = Report(name, args, device)
    bandwidth = None
    if benchmark.floor:
        bandwidth = copy_bandwidth(device, quick=args.quick)
        report.value("copy bandwidth", str(device), bandwidth / 1e9, "GB/s")
    with torch.set_grad_enabled(benchmark.grad):
        for case in benchmark.cases(Setting(device, args.quick, bandwidth, args)):
            effort = Effort.quick() if args.quick else case.effort or benchmark.effort
            _add(report, case, device, effort, bandwidth)
    report.close()


def main(
    name: str, benchmark: Benchmark, description: str, flags: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """The command line of one benchmark; flags: further ones, by name, with what argparse takes of them."""
    known = parser(description)
    for flag, how in (flags or {}).items():
        known.add_argument(flag, **how)
    run(name, benchmark, known.parse_args())


def _add(report: Report, case: Case, device: torch.device, effort: Effort, bandwidth: float | None) -> None:
    times: dict[str, Timing] = {}
    if case.works:
        where = torch.device("cpu") if case.host else device
        found = measure(case.works, check=case.check, device=where, effort=effort)
        times = {name: timing.scaled(1 / case.calls) for name, timing in found.items()}
        report.timings(case.what, times, bytes=case.bytes, bandwidth=bandwidth)
    for claim in case.claims:
        above, below = times[claim.above], times[claim.below]
        cpu = ratio(above, below, clock="cpu") if device.type == "cpu" else None
        shown = claim.shown or f"{claim.above} / {claim.below}"
        report.ratio(case.what, shown, ratio(above, below), cpu=cpu, note=claim.note, **_bar(claim))
    for one in case.values(times):
        report.value(case.what, one.variant, one.value, one.unit, note=one.note, **_bar(one))


def _bar(held: Claim | Value) -> dict[str, float | None]:
    return {"at_least": held.at_least, "at_most": held.at_most}
