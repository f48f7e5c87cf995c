"""A hidden layer's forward and backward by every plan that serves it, beside the same dense layer.

The dense layer convolves with a stored weight and makes its gradient; the plans make the weight
from scores and signs first, and the scores' gradient last. The selection is made before: it is
bench_topk_mask's. The plan taken by default is named.

python -m bench.ops.bench_masked_conv [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness import Effort, Work, device_of, measure, parser, ratio, same
from bench.ops.cases import kept, walk
from bench.report import Report
from hiddennet import ops


class Case(NamedTuple):
    """A layer: input and weight shapes; stride 1, padded to keep its size."""

    name: str
    batch: int
    channels: int
    side: int
    out: int
    kernel: int


CASES = (
    Case("64->64 3x3 @32, b128", 128, 64, 32, 64, 3),
    Case("256->256 3x3 @8, b128", 128, 256, 8, 256, 3),
    Case("512->512 3x3 @4, b128", 128, 512, 4, 512, 3),
    Case("512->512 1x1 @16, b32", 32, 512, 16, 512, 1),
    Case("16384->256 1x1 @1, b128", 128, 16384, 1, 256, 1),
    Case("16384->256 1x1 @1, b1", 1, 16384, 1, 256, 1),
)
QUICK = (Case("8->8 3x3 @8, b4", 4, 8, 8, 8, 3), Case("256->32 1x1 @1, b4", 4, 256, 1, 32, 1))


class Layer:
    """One hidden layer and the same dense one, with an input and an upstream gradient."""

    def __init__(self, case: Case, device: torch.device, dtype: torch.dtype, channels_last: bool):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        shape = (case.out, case.channels, case.kernel, case.kernel)
        self.padding = case.kernel // 2
        scores = walk(shape, 1, device)[0].contiguous(memory_format=layout)
        self.scores = scores.requires_grad_()
        self.source = ops.WeightSource.generate(shape, "signed_constant", seed=0, device=device)
        row = ops.topk_select([scores], [kept(scores.numel())])[0]
        self.rule = ops.Mask.selected(row, "magnitude")
        with torch.no_grad():
            weight = ops.masked_weight(scores, self.rule, source=self.source)
        self.weight = weight.requires_grad_()  # float32, as a trained weight is
        self.dtype = dtype
        size = (case.batch, case.channels, case.side, case.side)
        x = torch.randn(size, device=device, dtype=dtype).contiguous(memory_format=layout)
        self.x = x.requires_grad_()
        with torch.no_grad():
            like = F.conv2d(self.x, self.weight.to(dtype), padding=self.padding)
        self.grad = torch.randn_like(like)

    def hidden(self, plan: str) -> tuple[Tensor, ...]:
        """Output, gradients of input and scores."""
        y = ops.masked_conv2d(self.x, self.scores, self.rule, source=self.source, padding=self.padding, plan=plan)
        return (y, *torch.autograd.grad(y, (self.x, self.scores), self.grad))

    def dense(self) -> tuple[Tensor, ...]:
        """Output, gradients of input and weight."""
        y = F.conv2d(self.x, self.weight.to(self.dtype), padding=self.padding)
        return (y, *torch.autograd.grad(y, (self.x, self.weight), self.grad))

    def check(self, plans: list[str]) -> None:
        """Each plan equals the dense layer up to the rounding of its sums."""
        rtol = 2e-2
        if self.dtype is torch.float32:  # convolutions are TF32 on a GPU, matrix products are not
            rtol = 1e-4 if self.x.device.type == "cpu" else 2e-3
        y, dx, dw = self.dense()
        with torch.no_grad():
            surrogate = dw * self.source.weight(device=dw.device) * self.scores.sign()
        for plan in plans:
            for name, got, want in zip(
                ("output", "input gradient", "score gradient"),
                self.hidden(plan),
                (y, dx, surrogate),
                strict=True,
            ):
                same(f"{plan}: {name}", got.detach(), want.detach(), rtol=rtol)

    def plans(self) -> tuple[list[str], str]:
        """The plans that serve this layer here, and the default one."""
        shape, x = self.source.shape, self.x
        chosen = ops.default_plan(x, self.source, [1, 1], [self.padding] * 2, [1, 1], 1)
        found = ["effective_weight"]
        if tuple(shape[2:]) == (1, 1) and tuple(x.shape[2:]) == (1, 1):
            found.append("matmul")
        if x.device.type == "cuda" and self.dtype is torch.bfloat16:
            found.append("implicit_gemm")
        return found, chosen


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    torch.backends.cudnn.benchmark = True
    effort = Effort.quick() if args.quick else Effort(budget_s=6.0)
    report = Report("masked_conv", args, device)
    formats = [(torch.float32, False), (torch.float32, True)]
    if device.type == "cuda":
        formats = [(torch.float32, False), (torch.bfloat16, True)]
    for case in QUICK if args.quick else CASES:
        for dtype, channels_last in formats:
            if case.side == 1 and channels_last and device.type == "cpu":
                continue  # one pixel has no layout
            layer = Layer(case, device, dtype, channels_last)
            plans, chosen = layer.plans()
            works: dict[str, Work] = {
                p + (" (default)" if p == chosen else ""): lambda p=p, layer=layer: layer.hidden(p) for p in plans
            }
            works["dense"] = layer.dense
            check = partial(layer.check, plans)
            times = measure(works, check=check, device=device, effort=effort)
            kind = str(dtype).removeprefix("torch.") + (", channels_last" if channels_last else "")
            what = f"{case.name}, {kind}"
            report.timings(what, times)
            for name in works:
                if name != "dense":
                    report.ratio(what, f"{name} / dense", ratio(times[name], times["dense"]))
    report.close()


if __name__ == "__main__":
    main()
