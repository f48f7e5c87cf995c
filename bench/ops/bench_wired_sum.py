"""The edge sums of the MobileNet-like graph as sparse products, against dense 1x1 convolutions and the original's way.

python -m bench.ops.bench_wired_sum [--device cpu|cuda] [--json PATH] [--quick]

All 13 products of the five stages at 224 px, with the kept edges on usable places; the nodes' own work is left out. The
dense weights are made once ("cached"), but the original sorts its weights at every forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness import Effort, Work, device_of, measure, parser, ratio, same
from bench.originals_dnw import stage_sums
from bench.report import Report
from hiddennet import ops

OURS, DENSE, LAST, ORIGINAL = "hiddennet", "dense, cached", "dense, cached, channels_last", "original: sort, dense"
OURS_STEP, DENSE_STEP = "hiddennet, forward and backward", "dense, forward and backward"


class Stage(NamedTuple):
    """A stage: inputs, outputs, blocks, side of its maps."""

    inp: int
    out: int
    blocks: int
    side: int


STAGES = (
    Stage(32, 64, 1, 112),
    Stage(64, 128, 2, 56),
    Stage(128, 256, 2, 28),
    Stage(256, 512, 6, 14),
    Stage(512, 1024, 2, 7),
)
QUICK = (Stage(8, 16, 3, 7), Stage(16, 16, 1, 9))


class Wired:
    """A stage with its weight, edges and the nodes' outputs in one buffer."""

    def __init__(self, stage: Stage, width: float, batch: int, device: torch.device):
        self.stage = stage
        inp, out, blocks, side = stage
        generator = torch.Generator().manual_seed(0)
        shape = (out * blocks, inp + out * (blocks - 1))
        rows = torch.arange(shape[0])[:, None] // out
        usable = torch.arange(shape[1])[None] < inp + out * rows  # a block sees the inputs and the blocks before it
        kept = int((inp * out + (blocks - 1) * out**2) * width**2)
        draw = torch.rand(shape, generator=generator).masked_fill(~usable, -1.0).flatten()
        mask = torch.zeros(draw.numel(), dtype=torch.bool)
        mask[draw.topk(kept).indices] = True
        signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
        magnitudes = torch.rand(shape, generator=generator) + mask.view(shape)  # a sort chooses the mask
        self.weight = (magnitudes * signs).to(device)[:, :, None, None]
        self.effective = self.weight.masked_fill(~mask.view(shape).to(device)[:, :, None, None], 0.0)
        self.pruned = draw.numel() - kept
        self.density = kept / int(usable.sum())
        self.buffer = torch.randn(batch, shape[1], side, side, generator=generator).to(device)
        self.last = self.buffer.contiguous(memory_format=torch.channels_last)
        ends = [inp + out * j for j in range(blocks)]
        self.seen = [self.buffer[:, :end] for end in ends]
        self.nodes = [self.buffer[:, begin:end].contiguous() for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        dense = [self.effective[j * out : (j + 1) * out, :end] for j, end in enumerate(ends)]
        self.dense = [(x.contiguous(), w.contiguous()) for x, w in zip(self.seen, dense, strict=True)]
        layout = torch.channels_last
        self.dense_last = [
            (x.contiguous(memory_format=layout), w.contiguous(memory_format=layout)) for x, w in self.dense
        ]
        self.edges = [ops.pack_edges(w) for w in dense]

    @property
    def name(self) -> str:
        inp, out, blocks, side = self.stage
        return f"{inp}->{out}, {blocks} blocks @{side}, density {self.density:.3f}"

    def ours(self) -> list[Tensor]:
        """Pull form: a block reads what it sees of the buffer, by list."""
        return [ops.wired_sum(x, e, plan="sparse") for x, e in zip(self.seen, self.edges, strict=True)]

    def cached(self) -> list[Tensor]:
        """Pull form by dense convolution; its inputs are dense in memory already."""
        return [F.conv2d(x, w) for x, w in self.dense]

    def cached_last(self) -> list[Tensor]:
        """The same in channels_last."""
        return [F.conv2d(x, w) for x, w in self.dense_last]

    def original(self) -> list[Tensor]:
        """Push form after a sort."""
        return stage_sums(self.weight, self.pruned, self.nodes)

    def step(self, plan: str) -> list[Tensor]:
        """Forward and both gradients; as in training the lists are packed once, here among it."""
        found = []
        for x, w in self.dense:
            x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
            y = ops.wired_sum(x, ops.pack_edges(w), w, plan=plan) if plan == "sparse" else F.conv2d(x, w)
            found += torch.autograd.grad(y, (x, w), y.detach())
        return found

    def check(self) -> None:
        """All sums and gradients agree."""
        with torch.no_grad():
            sums = self.ours(), self.cached(), self.cached_last(), self.original()
        for ours, *others in zip(*sums, strict=True):
            for other in others:
                same(f"sums of {self.name}", ours, other, rtol=1e-5)
        for ours, dense in zip(self.step("sparse"), self.step("dense"), strict=True):
            same(f"gradients of {self.name}", ours, dense, rtol=1e-5)


def over(wired: list[Wired], work: Callable[[Wired], object]) -> Work:
    """One work for all stages."""

    def run() -> None:
        for w in wired:
            work(w)

    return run


def works_of(wired: list[Wired], *, whole: bool) -> dict[str, Work]:
    """All variants; the original's, and the training step, of the whole net alone."""
    works = {OURS: over(wired, Wired.ours), DENSE: over(wired, Wired.cached), LAST: over(wired, Wired.cached_last)}
    return works | ({ORIGINAL: over(wired, Wired.original)} if whole else {})


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort(rounds=15, min_rounds=3, budget_s=2.0)
    report = Report("wired_sum", args, device)
    for width in (0.225, 0.49):
        for batch in (1, 8):
            wired = [Wired(stage, width, batch, device) for stage in (QUICK if args.quick else STAGES)]
            for w in wired:
                w.check()
            groups = {f"x{width}, b{batch}: {w.name}": [w] for w in wired}
            groups[f"x{width}, b{batch}: all stages"] = wired
            for what, group in groups.items():
                whole = group is wired
                with torch.no_grad():
                    times = measure(works_of(group, whole=whole), check=None, device=device, effort=effort)
                report.timings(what, times)
                for name in list(times)[1:]:
                    bar = {ORIGINAL: 60.0 if batch == 1 else 8.0, DENSE: 2.0, LAST: 1.8}[name]
                    held = whole and width == 0.225 and device.type == "cpu"
                    found = ratio(times[name], times[OURS])
                    cpu = ratio(times[name], times[OURS], clock="cpu")
                    report.ratio(what, f"{name} / {OURS}", found, cpu=cpu, at_least=bar if held else None)
            if batch > 1:
                what = f"x{width}, b{batch}: all stages, training"
                steps = {
                    OURS_STEP: over(wired, lambda w: w.step("sparse")),
                    DENSE_STEP: over(wired, lambda w: w.step("dense")),
                }
                times = measure(steps, check=None, device=device, effort=effort)
                report.timings(what, times)
                found = ratio(times[DENSE_STEP], times[OURS_STEP])
                cpu = ratio(times[DENSE_STEP], times[OURS_STEP], clock="cpu")
                report.ratio(what, f"{DENSE_STEP} / {OURS_STEP}", found, cpu=cpu)
    report.close()


if __name__ == "__main__":
    main()
