"""Fair timing: interleaved samples, medians with spread, ratios with intervals; no printing.

A comparison is a dict of named callables that do the same work. They are proven equal first, warmed
up, and then sampled A B A B ... in one process, the order turning round every round, so that a busy
neighbour or a drifting clock hits all of them alike. On a CPU a sample holds the wall time and the
process's CPU time; on a GPU it holds the time between two CUDA events, and the host's CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Work = Callable[[], object]
Check = Callable[[], object]


class Unequal(AssertionError):
    """The things to be compared do not compute the same: nothing is timed."""


@dataclass(frozen=True)
class Timing:
    """Samples of one variant, in seconds for one call. `cpu` is the process's CPU time."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...]
    calls: int  # calls that make up one sample

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance between the quartiles, as a fraction of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median if self.median > 0 else 0.0

    def scaled(self, factor: float) -> Timing:
        """The same samples with every time multiplied by `factor` (say, 1 / inputs in a graph)."""
        return Timing(tuple(s * factor for s in self.seconds), tuple(c * factor for c in self.cpu), self.calls)


@dataclass(frozen=True)
class Ratio:
    """Median of one timing over the median of another, with what the samples leave open."""

    value: float
    low: float  # 95 % interval of the ratio of medians: rounds drawn again, with replacement
    high: float
    pair_min: float  # smallest and largest ratio inside one round
    pair_max: float

    def holds(self, *, at_least: float | None = None, at_most: float | None = None) -> bool:
        """Whether the ratio itself meets the bar."""
        return inside(self.value, self.value, at_least, at_most)

    def clearly(self, *, at_least: float | None = None, at_most: float | None = None) -> bool:
        """Whether the whole interval meets the bar."""
        return inside(self.low, self.high, at_least, at_most)


def inside(low: float, high: float, at_least: float | None = None, at_most: float | None = None) -> bool:
    """Whether low .. high meets the bar."""
    return (at_least is None or low >= at_least) and (at_most is None or high <= at_most)


def ratio(above: Timing, below: Timing, *, clock: str = "seconds", draws: int = 1000) -> Ratio:
    """above / below: how many times faster `below` is. `clock` is "seconds" or "cpu".

    Both timings must come from the same `measure` call: sample i of one ran next to sample i of the
    other, and the interval draws whole rounds.
    """
    a = torch.tensor(getattr(above, clock), dtype=torch.float64)
    b = torch.tensor(getattr(below, clock), dtype=torch.float64)
    if a.numel() != b.numel():
        raise ValueError(
            f"ratio: expected samples of the same rounds, got {a.numel()} and {b.numel()}; "
            "take both from one measure() call"
        )
    tick = 1e-9  # a CPU clock that did not advance must not divide by zero
    b = b.clamp_min(tick)
    pairs = a / b
    rounds = torch.randint(a.numel(), (draws, a.numel()), generator=torch.Generator().manual_seed(0))
    drawn = a[rounds].quantile(0.5, dim=1) / b[rounds].quantile(0.5, dim=1)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    value = (a.quantile(0.5) / b.quantile(0.5)).item()
    return Ratio(value, low, high, pairs.min().item(), pairs.max().item())


@dataclass(frozen=True)
class Effort:
    """How long to measure. `quick` proves that a benchmark runs; its numbers mean nothing."""

    rounds: int = 30
    min_rounds: int = 5
    warmup: int = 3
    budget_s: float = 4.0  # for one comparison; at least min_rounds are taken whatever they cost
    sample_s: float = 1e-3  # a sample repeats its work to last about this long; 0: one call
    max_calls: int = 200  # in one sample

    @classmethod
    def quick(cls) -> Effort:
        return cls(rounds=2, min_rounds=2, warmup=0, budget_s=0.2, sample_s=0.0)


def measure(
    variants: Mapping[str, Work], *, check: Check | None, device: torch.device, effort: Effort
) -> dict[str, Timing]:
    """Time each variant, interleaved.

    Args:
        variants: name -> callable without arguments; the returned value is dropped.
        check: run once before anything is timed; it raises `Unequal` (or any error) when the
            variants do not compute the same. None is for variants already checked by the caller.
        device: where the work happens; "cuda" times with events.
        effort: rounds, warm-up and time budget.
    """
    if not variants:
        raise ValueError("measure: expected at least one variant, got none")
    if check is not None:
        check()
    sample = _sample_cuda if device.type == "cuda" else _sample_cpu
    calls: dict[str, int] = {}
    for name, work in variants.items():
        for _ in range(effort.warmup):
            work()
        calls[name] = 1
        if effort.sample_s > 0:
            once = max(sample(work, 1)[0], 1e-9)
            calls[name] = min(max(int(effort.sample_s / once), 1), effort.max_calls)
    order = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    cpu: dict[str, list[float]] = {name: [] for name in order}
    start = time.perf_counter()
    for taken in range(effort.rounds):
        spent = time.perf_counter() - start
        if taken >= effort.min_rounds and spent > effort.budget_s:
            break
        for name in order if taken % 2 == 0 else reversed(order):
            wall, used = sample(variants[name], calls[name])
            seconds[name].append(wall)
            cpu[name].append(used)
    return {n: Timing(tuple(seconds[n]), tuple(cpu[n]), calls[n]) for n in order}


def _sample_cpu(work: Work, calls: int) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / calls, cpu / calls


def _sample_cuda(work: Work, calls: int) -> tuple[float, float]:
    begin = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    cpu = time.process_time()
    begin.record()
    for _ in range(calls):
        work()
    end.record()
    cpu = time.process_time() - cpu
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / calls, cpu / calls


def captured(works: Sequence[Work], *, warmup: int = 3) -> Work:
    """One CUDA graph that runs `works` one after another; the callable replays it.

    Give one callable per input set, with sets that together exceed the L2 cache, and divide the
    time by `len(works)`: launch gaps and cache hits then stay out of the number.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmup):
            for work in works:
                work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for work in works:
            work()
    return graph.replay


def copy_bandwidth(device: torch.device, *, quick: bool = False) -> float:
    """Bytes a second of a large device-to-device copy, counting bytes read plus bytes written."""
    size = (1 << 30) if device.type == "cuda" else (1 << 27)
    if quick:
        size = 1 << 22
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    effort = Effort.quick() if quick else Effort(rounds=15, budget_s=2.0, sample_s=0.0)
    times = measure({"copy": lambda: target.copy_(source)}, check=None, device=device, effort=effort)
    return 2 * size / min(times["copy"].seconds)


def same(name: str, got: Tensor, want: Tensor, *, rtol: float = 0.0) -> None:
    """Raise Unequal unless shapes agree and |got - want| <= rtol |want| (norms; 0: bit equal)."""
    if got.shape != want.shape:
        raise Unequal(f"{name}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}")
    if rtol == 0.0:
        if not torch.equal(got, want):
            worst = (got != want).flatten().nonzero()[0].item()
            pair = got.flatten()[worst].item(), want.flatten()[worst].item()
            raise Unequal(f"{name}: expected equal bits, got {pair[0]} for {pair[1]} at {worst}")
        return
    gap = torch.linalg.vector_norm(got.double() - want.double()).item()
    allowed = rtol * torch.linalg.vector_norm(want.double()).item()
    if not gap <= allowed:  # NaN fails too
        raise Unequal(f"{name}: expected a difference of at most {allowed:.3g}, got {gap:.3g}")


def parser(description: str, *, json: bool = True) -> argparse.ArgumentParser:
    """The flags that every benchmark takes; without `json` those of all benchmarks together."""
    flags = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    flags.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    if json:
        flags.add_argument("--json", type=Path, metavar="PATH", help="write the results here")
    flags.add_argument("--quick", action="store_true", help="prove that it runs; times are void")
    flags.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    return flags


def device_of(args: argparse.Namespace) -> torch.device:
    """The device asked for; also sets the thread count when one was asked for."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device: expected a CUDA device, got a machine without; use cpu")
    return torch.device(args.device)
