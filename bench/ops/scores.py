"""An optimiser's step on all scores, or on all signs, of a network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from bench.harness import Unequal, same
from bench.ops.inputs import network, size
from bench.originals_peek_a_boo import OriginalBop
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet import ops, optim

NETWORKS = ("cifar_resnet18", "conv4")


def networks(at: Setting) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of the networks to measure, by name."""
    return {name: network(name) for name in (("fc",) if at.quick else NETWORKS)}


# -- score_step: regulariser and clamp included, against torch's fused SGD and what goes around it -----------------

LR, MOMENTUM, L2 = 0.1, 0.9, 1e-4
HALF = 0b01010101  # every other flag
ALONE, AROUND = "torch, fused step alone", "torch, regulariser, step, clamp"


class Scores:
    """Scores in [0, 1] with a gradient, and an optimiser; each step takes the same gradient."""

    def __init__(self, shapes: list[tuple[int, ...]], device: torch.device, *, ours: bool, flagged: bool = False):
        generator = torch.Generator().manual_seed(0)
        self.params = []
        for shape in shapes:
            p = nn.Parameter(torch.rand(shape, generator=generator).to(device))
            p.grad = (torch.randn(shape, generator=generator) * 1e-3).to(device)
            self.params.append(p)
        if ours:
            self.optimizer = optim.ScoreSGD(self.params, LR, momentum=MOMENTUM, l2=L2)
        else:
            self.optimizer = torch.optim.SGD(self.params, LR, momentum=MOMENTUM, fused=True)
        if flagged:
            self.optimizer.set_flags({p: self.flags(p) for p in self.params})

    @staticmethod
    def flags(p: Tensor) -> Tensor:
        return torch.full(((p.numel() + 7) // 8,), HALF, dtype=torch.uint8, device=p.device)

    def step(self) -> None:
        self.optimizer.step()

    def around(self) -> None:
        """Torch's step with the regulariser's gradient before it and the clamp after it."""
        grads: list[Tensor] = [p.grad for p in self.params]
        added = torch._foreach_add(grads, self.params, alpha=2 * L2)
        for p, g in zip(self.params, added, strict=True):
            p.grad = g
        self.optimizer.step()
        torch._foreach_clamp_min_(self.params, 0.0)
        torch._foreach_clamp_max_(self.params, 1.0)
        for p, g in zip(self.params, grads, strict=True):
            p.grad = g


def check_scores(ours: Scores, around: Scores, flagged: Scores) -> None:
    """Three steps: ours are torch's; with flags half of the scores are ours and half have not moved."""
    before = [p.detach().clone() for p in flagged.params]
    for _ in range(3):
        ours.step()
        around.around()
        flagged.step()
    for p, q, r, b in zip(ours.params, around.params, flagged.params, before, strict=True):
        same("scores", p.detach(), q.detach(), rtol=1e-6)
        same("scores with flags", r.detach(), torch.where(ops.unpack_mask(Scores.flags(p), p.shape), p.detach(), b))


def score_step(at: Setting) -> Iterator[Case]:
    for name, shapes in networks(at).items():
        make = partial(Scores, shapes, at.device)
        ours, flagged, alone, around = (
            make(ours=True),
            make(ours=True, flagged=True),
            make(ours=False),
            make(ours=False),
        )
        yield Case(
            f"score step {name} ({size(shapes):,})",
            {"hiddennet": ours.step, "hiddennet, half flagged": flagged.step, ALONE: alone.step, AROUND: around.around},
            partial(check_scores, ours, around, flagged),
            [Claim(ALONE, "hiddennet", at_least=1.0), Claim(AROUND, "hiddennet")],
            bytes={"hiddennet": 20 * size(shapes)},
        )


# -- bop_step: flips counted, against Peek-a-Boo's sequence of operations ------------------------------------------

RATE, THRESHOLD = 1e-3, 1e-6
GRADIENTS = 4  # taken in turn, so that flips go on: few a step, as in training
THEIRS = "Peek-a-Boo's operations"


class Signs:
    """Weights of a network, gradients for them, and Bop: ours or the original's."""

    def __init__(self, shapes: list[tuple[int, ...]], device: torch.device, bop: type):
        generator = torch.Generator().manual_seed(0)
        self.params = [nn.Parameter(torch.randn(s, generator=generator).to(device)) for s in shapes]
        drawn = [[torch.randn(s, generator=generator) for s in shapes] for _ in range(GRADIENTS)]
        self.grads = [[(g * 1e-3).to(device) for g in grads] for grads in drawn]
        self.at, self.optimizer = 0, bop(self.params, RATE, THRESHOLD)

    def step(self) -> None:
        self.at = (self.at + 1) % GRADIENTS
        for p, g in zip(self.params, self.grads[self.at], strict=True):
            p.grad = g
        self.optimizer.step()


def check_signs(ours: Signs, theirs: Signs) -> None:
    """Three steps: the same flips in each, the same weights and averages after them."""
    for step in range(3):
        ours.step()
        theirs.step()
        flips = [count.item() for count in ours.optimizer.flips().values()]
        if flips != theirs.optimizer.flips:
            raise Unequal(f"flips of step {step}: {flips} and {theirs.optimizer.flips}")
        if step == 0 and not all(flips):
            raise Unequal(f"the first step flips in every layer, got {flips}")
    for p, q, m in zip(ours.params, theirs.params, theirs.optimizer.averages, strict=True):
        same("weights", p.detach(), q.detach())
        same("averages", ours.optimizer.state[p]["moving_average"], m)


def bop_step(at: Setting) -> Iterator[Case]:
    for name, shapes in networks(at).items():
        ours, theirs = Signs(shapes, at.device, optim.Bop), Signs(shapes, at.device, OriginalBop)
        bar = 20.0 if name == "cifar_resnet18" else None
        yield Case(
            f"Bop step {name} ({size(shapes):,})",
            {"hiddennet": ours.step, THEIRS: theirs.step},
            partial(check_signs, ours, theirs),
            [Claim(THEIRS, "hiddennet", at_least=bar)],
            bytes={"hiddennet": 16 * size(shapes)},
        )


BENCHMARKS = {"score_step": Benchmark(score_step, floor=True), "bop_step": Benchmark(bop_step, floor=True)}
