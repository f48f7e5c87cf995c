"""Gem-Miner's pruning of a network's flags, against the original's gather, sort and integer flags.

The bar is for a 2-core CPU and 11 million scores of which at least half are active: 50 times faster.

python -m bench.ops.bench_strike_out [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bench.harness import (
    Effort,
    Unequal,
    copy_bandwidth,
    device_of,
    measure,
    parser,
    ratio,
    same,
)
from bench.ops.cases import network
from bench.originals import sorted_strike
from bench.report import Report
from hiddennet import ops

RATE = 0.1


class Case(NamedTuple):
    """A state of the search: how much is active, how many scores the regulariser has pushed to 0."""

    name: str
    density: float
    zeros: float
    scope: str = "global"
    bar: float | None = None


CASES = (
    Case("all active", 1.0, 0.0, bar=50),
    Case("half active", 0.5, 0.0, bar=50),
    Case("all active, 40 % at 0", 1.0, 0.4, bar=50),
    Case("5 % active", 0.05, 0.0),
    Case("all active, layer by layer", 1.0, 0.0, "layer", bar=50),
)


class Network:
    """Scores in [0, 1) and flags of a network: bits for ours, integers for the original."""

    def __init__(self, shapes: list[tuple[int, ...]], case: Case, device: torch.device):
        generator = torch.Generator().manual_seed(0)
        self.scope = case.scope
        self.scores, self.flags = [], []
        for shape in shapes:
            scores = torch.rand(shape, generator=generator)
            scores *= torch.rand(shape, generator=generator) >= case.zeros
            flags = torch.rand(shape, generator=generator) < case.density
            self.scores.append(scores.to(device))
            self.flags.append(flags.to(device, torch.int32))
        self.first = [ops.pack_mask(f.bool()) for f in self.flags]
        self.planes = [plane.clone() for plane in self.first]
        active = [int(f.sum()) for f in self.flags]
        self.counts = [math.ceil(RATE * n) for n in ([sum(active)] if case.scope == "global" else active)]

    def ours(self) -> Tensor:
        """Begins with the first flags again: a copy of the bits is part of the time."""
        for plane, first in zip(self.planes, self.first, strict=True):
            plane.copy_(first)
        return ops.strike_out_(self.scores, self.planes, self.counts, scope=self.scope)

    def original(self) -> tuple[list[Tensor], Tensor]:
        if self.scope == "global":
            return sorted_strike(self.scores, self.flags, RATE)
        each = [sorted_strike([s], [f], RATE) for s, f in zip(self.scores, self.flags, strict=True)]
        return [flags[0] for flags, _ in each], torch.stack([tau for _, tau in each])

    def check(self) -> None:
        """The same thresholds and flags, and some entries gone."""
        thresholds = self.ours()
        flags, want = self.original()
        same("thresholds", thresholds, want.view(-1))
        for i, (plane, flag) in enumerate(zip(self.planes, flags, strict=True)):
            same(f"flags of layer {i}", ops.unpack_mask(plane, flag.shape), flag.bool())
        gone = int(ops.count_flags(self.first).sum() - ops.count_flags(self.planes).sum())
        if gone < sum(self.counts):
            raise Unequal(f"strike_out_: expected at least {sum(self.counts)} entries gone, got {gone}")


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort(budget_s=5.0, warmup=1)
    report = Report("strike_out", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    shapes = network("fc" if args.quick else "cifar_resnet18")
    n = sum(torch.Size(shape).numel() for shape in shapes)
    with torch.no_grad():
        for case in CASES:
            net = Network(shapes, case, device)
            works = {"hiddennet": net.ours, "gather, sort, multiply": net.original}
            times = measure(works, check=net.check, device=device, effort=effort)
            what = f"strike out, {case.name} ({n:,})"
            # the least: scores read once, flags read and written
            report.timings(what, times, bytes={"hiddennet": n * 4 + n // 4}, bandwidth=bandwidth)
            theirs, ours = times["gather, sort, multiply"], times["hiddennet"]
            cpu = ratio(theirs, ours, clock="cpu") if device.type == "cpu" else None
            bar = case.bar if device.type == "cpu" else None
            report.ratio(what, "original / hiddennet", ratio(theirs, ours), cpu=cpu, at_least=bar)
    report.close()


if __name__ == "__main__":
    main()
