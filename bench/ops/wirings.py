"""The MobileNet-like wiring at 224 px: its edge sums as sparse products, and its nodes' operations in evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.harness import Effort, same
from bench.ops.inputs import over
from bench.originals_dnw import stage_sums
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet import ops

OURS = "hiddennet"

# -- wired_sum: all 13 products of the five stages; the nodes' own work is left out --------------------------------
# The dense weights are made once ("cached"), but the original sorts its weights at every forward.

DENSE, LAST, ORIGINAL = "dense, cached", "dense, cached, channels_last", "original: sort, dense"
OURS_STEP, DENSE_STEP = "hiddennet, forward and backward", "dense, forward and backward"
BARS = {1: {DENSE: 2.0, LAST: 1.8, ORIGINAL: 60.0}, 8: {DENSE: 2.0, LAST: 1.8, ORIGINAL: 8.0}}  # by batch, width 0.225
STAGES = ((32, 64, 1, 112), (64, 128, 2, 56), (128, 256, 2, 28), (256, 512, 6, 14), (512, 1024, 2, 7))
QUICK_STAGES = ((8, 16, 3, 7), (16, 16, 1, 9))  # inputs, outputs, blocks, side of its maps


class Stage:
    """A stage with its weight, edges on usable places, and the nodes' outputs in one buffer."""

    def __init__(self, stage: tuple[int, ...], width: float, batch: int, device: torch.device):
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
        effective = self.weight.masked_fill(~mask.view(shape).to(device)[:, :, None, None], 0.0)
        self.pruned = draw.numel() - kept
        self.name = f"{inp}->{out}, {blocks} blocks @{side}, density {kept / int(usable.sum()):.3f}"
        buffer = torch.randn(batch, shape[1], side, side, generator=generator).to(device)
        ends = [inp + out * j for j in range(blocks)]
        self.seen = [buffer[:, :end] for end in ends]
        self.nodes = [buffer[:, begin:end].contiguous() for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        dense = [effective[j * out : (j + 1) * out, :end] for j, end in enumerate(ends)]
        self.dense = [(x.contiguous(), w.contiguous()) for x, w in zip(self.seen, dense, strict=True)]
        last = {"memory_format": torch.channels_last}
        self.dense_last = [(x.contiguous(**last), w.contiguous(**last)) for x, w in self.dense]
        self.edges = [ops.pack_edges(w) for w in dense]

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

    @torch.enable_grad()
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
        for ours, *others in zip(self.ours(), self.cached(), self.cached_last(), self.original(), strict=True):
            for other in others:
                same(f"sums of {self.name}", ours, other, rtol=1e-5)
        for ours, dense in zip(self.step("sparse"), self.step("dense"), strict=True):
            same(f"gradients of {self.name}", ours, dense, rtol=1e-5)


def wired_sum(at: Setting) -> Iterator[Case]:
    for width in (0.225, 0.49):
        for batch, bars in BARS.items():
            stages = [Stage(stage, width, batch, at.device) for stage in (QUICK_STAGES if at.quick else STAGES)]
            where = f"x{width}, b{batch}"
            works = {OURS: Stage.ours, DENSE: Stage.cached, LAST: Stage.cached_last}
            for stage in stages:
                alone = {name: over([stage], work) for name, work in works.items()}
                yield Case(f"{where}: {stage.name}", alone, stage.check, [Claim(name, OURS) for name in (DENSE, LAST)])
            together = {name: over(stages, work) for name, work in {**works, ORIGINAL: Stage.original}.items()}
            held = width == 0.225 and at.on_cpu
            claims = [Claim(name, OURS, at_least=bar if held else None) for name, bar in bars.items()]
            yield Case(f"{where}: all stages", together, claims=claims)
            if batch > 1:
                steps = {OURS_STEP: "sparse", DENSE_STEP: "dense"}
                works = {name: over(stages, lambda s, plan=plan: s.step(plan)) for name, plan in steps.items()}
                yield Case(f"{where}: all stages, training", works, claims=[Claim(DENSE_STEP, OURS_STEP)])


# -- filter_nodes: what nodes do between receiving and sending -----------------------------------------------------

TORCHS, TORCHS_LAST = "torch: norm, ReLU, depthwise", "torch, channels_last"
NODES = (  # nodes, stride, side, how often: all 13 node operations
    (32, 1, 112, 1),
    (64, 2, 112, 1),
    (128, 1, 56, 1),
    (128, 2, 56, 1),
    (256, 1, 28, 1),
    (256, 2, 28, 1),
    (512, 1, 14, 5),
    (512, 2, 14, 1),
    (1024, 1, 7, 1),
)
QUICK_NODES = ((8, 1, 14, 1), (16, 2, 9, 2))


class Nodes:
    """A block of nodes with what it receives. torch's are given it in torch's order; ours writes where sums read."""

    def __init__(self, nodes: int, stride: int, side: int, batch: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(nodes + side)
        self.stride = stride
        self.x = torch.randn(batch, nodes, side, side, generator=generator).to(device)
        self.last = self.x.contiguous(memory_format=torch.channels_last)
        self.taps = torch.randn(nodes, 3, 3, generator=generator).to(device)
        self.norm = nn.BatchNorm2d(nodes).to(device).eval()
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 1.5)
        self.scale = (self.norm.running_var + self.norm.eps).rsqrt()
        self.shift = -self.norm.running_mean * self.scale
        out = (side - 1) // stride + 1
        self.out = torch.empty(batch, nodes, out, out, device=device)
        self.weight = self.taps[:, None].contiguous()

    def ours(self) -> Tensor:
        return ops.filter_nodes_(self.out, self.x, self.scale, self.shift, self.taps, stride=self.stride)

    def torchs(self, x: Tensor) -> Tensor:
        ready = F.relu(self.norm(x), inplace=True)
        return F.conv2d(ready, self.weight, stride=self.stride, padding=1, groups=len(self.taps))

    def check(self) -> None:
        same("nodes", self.ours(), self.torchs(self.x), rtol=1e-5)
        same("nodes", self.torchs(self.last), self.torchs(self.x), rtol=1e-5)


def filter_nodes(at: Setting) -> Iterator[Case]:
    for batch in (1, 8):
        rows = QUICK_NODES if at.quick else NODES
        blocks = [Nodes(*row, batch, at.device) for *row, count in rows for _ in range(count)]
        yield Case(
            f"all nodes of the MobileNet-like graph, batch {batch}",
            {
                OURS: over(blocks, Nodes.ours),
                TORCHS: over(blocks, lambda b: b.torchs(b.x)),
                TORCHS_LAST: over(blocks, lambda b: b.torchs(b.last)),
            },
            over(blocks, Nodes.check),
            [Claim(TORCHS, OURS), Claim(TORCHS_LAST, OURS)],
        )


BENCHMARKS = {
    "wired_sum": Benchmark(wired_sum, Effort(rounds=15, min_rounds=3, budget_s=2.0)),
    "filter_nodes": Benchmark(filter_nodes, Effort(rounds=15, min_rounds=5, budget_s=3.0)),
}
