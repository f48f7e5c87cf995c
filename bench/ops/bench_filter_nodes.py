"""What nodes do between receiving and sending, beside torch's batch norm, ReLU and depthwise convolution.

python -m bench.ops.bench_filter_nodes [--device cpu|cuda] [--json PATH] [--quick]

All 13 node operations of the MobileNet-like graph at 224 px. torch's are given what they need in torch's order of
dimensions and write where they like; ours writes where the sums read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.harness import Effort, device_of, measure, parser, ratio, same
from bench.report import Report
from hiddennet import ops

OURS, TORCHS, LAST = "hiddennet", "torch: norm, ReLU, depthwise", "torch, channels_last"
CASES = (  # nodes, stride, side, how often
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
QUICK = ((8, 1, 14, 1), (16, 2, 9, 2))


class Block:
    """A block of nodes with what it receives."""

    def __init__(self, nodes: int, stride: int, side: int, batch: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(nodes + side)
        self.stride = stride
        self.x = torch.randn(batch, nodes, side, side, generator=generator).to(device)
        self.taps = torch.randn(nodes, 3, 3, generator=generator).to(device)
        self.norm = nn.BatchNorm2d(nodes).to(device).eval()
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 1.5)
        self.scale = (self.norm.running_var + self.norm.eps).rsqrt()
        self.shift = -self.norm.running_mean * self.scale
        out = (side - 1) // stride + 1
        self.out = torch.empty(batch, nodes, out, out, device=device)
        self.last = self.x.contiguous(memory_format=torch.channels_last)
        self.weight = self.taps[:, None].contiguous()

    def ours(self) -> Tensor:
        return ops.filter_nodes_(self.out, self.x, self.scale, self.shift, self.taps, stride=self.stride)

    def torchs(self, x: Tensor) -> Tensor:
        ready = F.relu(self.norm(x), inplace=True)
        return F.conv2d(ready, self.weight, stride=self.stride, padding=1, groups=len(self.taps))


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort(rounds=15, min_rounds=5, budget_s=3.0)
    report = Report("filter_nodes", args, device)
    cases = QUICK if args.quick else CASES
    for batch in (1, 8):
        blocks = [
            Block(nodes, stride, side, batch, device) for nodes, stride, side, count in cases for _ in range(count)
        ]
        with torch.no_grad():
            for block in blocks:
                same("nodes", block.ours(), block.torchs(block.x), rtol=1e-5)
                same("nodes", block.torchs(block.last), block.torchs(block.x), rtol=1e-5)

            def over(work: Callable[[Block], Tensor], blocks: list[Block] = blocks) -> Callable[[], None]:
                def run() -> None:
                    for block in blocks:
                        work(block)

                return run

            works = {
                OURS: over(Block.ours),
                TORCHS: over(lambda b: b.torchs(b.x)),
                LAST: over(lambda b: b.torchs(b.last)),
            }
            times = measure(works, check=None, device=device, effort=effort)
        what = f"all nodes of the MobileNet-like graph, batch {batch}"
        report.timings(what, times)
        for name in (TORCHS, LAST):
            cpu = ratio(times[name], times[OURS], clock="cpu")
            report.ratio(what, f"{name} / {OURS}", ratio(times[name], times[OURS]), cpu=cpu)
    report.close()


if __name__ == "__main__":
    main()
