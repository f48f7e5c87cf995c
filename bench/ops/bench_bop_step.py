"""Bop's step on all weights of a network, flips counted, against Peek-a-Boo's sequence of operations.

python -m bench.ops.bench_bop_step [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import torch

from bench.harness import Effort, Unequal, Work, copy_bandwidth, device_of, measure, parser, ratio, same
from bench.ops.cases import network
from bench.originals_peek_a_boo import OriginalBop
from bench.report import Report
from hiddennet import optim

NETWORKS = ("cifar_resnet18", "conv4")
RATE, THRESHOLD = 1e-3, 1e-6
GRADIENTS = 4  # taken in turn, so that flips go on: few a step, as in training


class Run:
    """Weights of a network, gradients for them, and Bop: ours or the original's."""

    def __init__(self, shapes: list[tuple[int, ...]], device: torch.device, *, original: bool):
        generator = torch.Generator().manual_seed(0)
        self.params = [torch.nn.Parameter(torch.randn(s, generator=generator).to(device)) for s in shapes]
        self.grads = [
            [(torch.randn(s, generator=generator) * 1e-3).to(device) for s in shapes] for _ in range(GRADIENTS)
        ]
        self.at = 0
        self.optimizer = (OriginalBop if original else optim.Bop)(self.params, RATE, THRESHOLD)

    def step(self) -> None:
        self.at = (self.at + 1) % GRADIENTS
        for p, g in zip(self.params, self.grads[self.at], strict=True):
            p.grad = g
        self.optimizer.step()


def check(ours: Run, theirs: Run) -> None:
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


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort()
    report = Report("bop_step", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    for name in ("fc",) if args.quick else NETWORKS:
        shapes = network(name)
        n = sum(torch.Size(shape).numel() for shape in shapes)
        ours, theirs = Run(shapes, device, original=False), Run(shapes, device, original=True)
        works: dict[str, Work] = {"hiddennet": ours.step, "Peek-a-Boo's operations": theirs.step}
        times = measure(works, check=lambda a=ours, b=theirs: check(a, b), device=device, effort=effort)
        what = f"Bop step {name} ({n:,})"
        report.timings(what, times, bytes={"hiddennet": 16 * n}, bandwidth=bandwidth)
        peer = "Peek-a-Boo's operations"
        bar = 20.0 if name == "cifar_resnet18" else None
        report.ratio(what, f"{peer} / hiddennet", ratio(times[peer], times["hiddennet"]), at_least=bar)
    report.close()


if __name__ == "__main__":
    main()
