"""A step on all scores of a network, regulariser and clamp included, against torch's fused SGD and what goes around it.

python -m bench.ops.bench_score_step [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.harness import Effort, Work, copy_bandwidth, device_of, measure, parser, ratio, same
from bench.ops.cases import network
from bench.report import Report
from hiddennet import ops, optim

NETWORKS = ("cifar_resnet18", "conv4")
LR, MOMENTUM, L2 = 0.1, 0.9, 1e-4


class Run:
    """Scores in [0, 1] with a gradient, and an optimiser; each step takes the same gradient."""

    def __init__(self, shapes: list[tuple[int, ...]], device: torch.device, kind: str):
        generator = torch.Generator().manual_seed(0)
        self.params = []
        for shape in shapes:
            p = torch.nn.Parameter(torch.rand(shape, generator=generator).to(device))
            p.grad = (torch.randn(shape, generator=generator) * 1e-3).to(device)
            self.params.append(p)
        if kind == "torch":
            self.optimizer = torch.optim.SGD(self.params, LR, momentum=MOMENTUM, fused=True)
        else:
            self.optimizer = optim.ScoreSGD(self.params, LR, momentum=MOMENTUM, l2=L2)
            if kind == "flags":
                bits = [
                    torch.full(((p.numel() + 7) // 8,), 0b01010101, dtype=torch.uint8, device=device)
                    for p in self.params
                ]
                self.optimizer.set_flags(dict(zip(self.params, bits, strict=True)))

    def fused(self) -> None:
        """Torch's step alone: no regulariser, no clamp."""
        self.optimizer.step()

    def around(self) -> None:
        """Torch's step with the regulariser's gradient before it and the clamp after it."""
        with torch.no_grad():
            grads: list[Tensor] = [p.grad for p in self.params]
            added = torch._foreach_add(grads, self.params, alpha=2 * L2)
            for p, g in zip(self.params, added, strict=True):
                p.grad = g
            self.optimizer.step()
            torch._foreach_clamp_min_(self.params, 0.0)
            torch._foreach_clamp_max_(self.params, 1.0)
            for p, g in zip(self.params, grads, strict=True):
                p.grad = g


def check(ours: Run, around: Run, flagged: Run) -> None:
    """Three steps: ours are torch's; with flags half of the scores are ours and half have not moved."""
    before = [p.detach().clone() for p in flagged.params]
    for _ in range(3):
        ours.fused()
        around.around()
        flagged.fused()
    for p, q, r, b in zip(ours.params, around.params, flagged.params, before, strict=True):
        same("scores", p.detach(), q.detach(), rtol=1e-6)
        bits = torch.full(((p.numel() + 7) // 8,), 0b01010101, dtype=torch.uint8, device=p.device)
        on = ops.unpack_mask(bits, p.shape)
        same("scores with flags", r.detach(), torch.where(on, p.detach(), b))


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort()
    report = Report("score_step", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    for name in ("fc",) if args.quick else NETWORKS:
        shapes = network(name)
        n = sum(torch.Size(shape).numel() for shape in shapes)
        ours, flagged = Run(shapes, device, "ours"), Run(shapes, device, "flags")
        fused, around = Run(shapes, device, "torch"), Run(shapes, device, "torch")
        works: dict[str, Work] = {
            "hiddennet": ours.fused,
            "hiddennet, half flagged": flagged.fused,
            "torch, fused step alone": fused.fused,
            "torch, regulariser, step, clamp": around.around,
        }
        times = measure(works, check=lambda a=ours, b=around, c=flagged: check(a, b, c), device=device, effort=effort)
        what = f"score step {name} ({n:,})"
        report.timings(what, times, bytes={"hiddennet": 20 * n}, bandwidth=bandwidth)
        for peer, bar in (("torch, fused step alone", 1.0), ("torch, regulariser, step, clamp", None)):
            report.ratio(what, f"{peer} / hiddennet", ratio(times[peer], times["hiddennet"]), at_least=bar)
    report.close()


if __name__ == "__main__":
    main()
