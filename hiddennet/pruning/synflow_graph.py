"""SynFlow's whole schedule as one CUDA graph: captured once, replayed once, without a visit to the host inside.

Not run on a GPU yet. What it relies on is: Flow.scores and strike() neither wait for the device nor branch on its
values, all counts are known ahead, and the kernels take them by value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hiddennet.pruning.flow import TINY
from hiddennet.pruning.selection import strike
from hiddennet.pruning.synflow import Synflow, log

if TYPE_CHECKING:
    from hiddennet.pruning.loop import Loop

WARMUP = 3  # runs before the capture: libraries choose their algorithms and allocate


def whole_schedule(loop: Loop) -> bool:
    """Run all iterations of SynFlow on the loop's GPU; return whether its planes now hold the result.

    They do not, and are as before, where another method was asked for, where scores cannot be scaled into float32's
    range, or where the end shows some that leave it: the loop then runs the iterations one by one.
    """
    scorer = loop.scorer
    if not isinstance(scorer, Synflow) or scorer.flow.reason or loop.settings.invert:
        return False
    start = [plane.clone() for plane in loop.planes]
    planes = [plane.clone() for plane in loop.planes]
    lowest = torch.full((len(loop.counts),), torch.inf, device=loop.device)
    largest = torch.zeros(len(loop.counts), device=loop.device)

    scope = loop.settings.scope

    def iterate(iteration: int) -> None:
        scores = scorer.flow.scores(planes)
        largest[iteration] = torch.stack([s.abs().amax() for s in scores]).amax().float()
        low = strike(scores, planes, loop.full, loop.counts[iteration], scope=scope, by="magnitude", captured=True)
        if low is not None:
            lowest[iteration] = low.amin()

    def rewind() -> None:
        for plane, first in zip(planes, start, strict=True):
            plane.copy_(first)

    def everything() -> None:
        rewind()
        for iteration in range(len(loop.counts)):
            iterate(iteration)

    with torch.cuda.device(loop.device), torch.no_grad():
        replay(everything, lambda: (rewind(), iterate(0)))
    if not _held(lowest, largest):
        log.info("synflow: the captured schedule is run again step by step: float32 does not hold its scores")
        return False
    for plane, found in zip(loop.planes, planes, strict=True):
        plane.copy_(found)
    return True


def replay(everything, warmup) -> None:
    """Capture and run once, after a few runs of a part on another stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            warmup()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        everything()
    graph.replay()


def _held(lowest: Tensor, largest: Tensor) -> bool:
    """Whether no score was infinite or NaN, and no threshold so low that what underflowed would tie with it."""
    return bool(largest.isfinite().all()) and not bool((lowest < TINY).any())
