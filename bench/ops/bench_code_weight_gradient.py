"""The exact weight gradient of 8-bit inputs and 16- or 8-bit gradients against torch's float32 weight gradient.

python -m bench.ops.bench_code_weight_gradient [--device cpu|cuda] [--json PATH] [--quick]

The layers of CIFAR ResNet-18 at batch 32, channels_last, the codes made before: quantising must be paid from the gain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.harness import Effort, Work, device_of, measure, parser, ratio, same
from bench.report import Report
from hiddennet import ops, reference

GRADIENTS = {"16-bit": torch.int16, "8-bit": torch.int8}
TORCH = "torch, float32"


class Case(NamedTuple):
    """A layer: channels, side of the input's map, filters, kernel, stride, and how often the network has it."""

    channels: int
    side: int
    out: int
    kernel: int
    stride: int
    count: int

    @property
    def name(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.channels}->{self.out} {self.kernel}x{self.kernel}{stride} @{self.side}, b{BATCH}"


BATCH = 32
CASES = (
    Case(3, 32, 64, 3, 1, 1),
    Case(64, 32, 64, 3, 1, 4),
    Case(64, 32, 128, 3, 2, 1),
    Case(64, 32, 128, 1, 2, 1),
    Case(128, 16, 128, 3, 1, 3),
    Case(128, 16, 256, 3, 2, 1),
    Case(128, 16, 256, 1, 2, 1),
    Case(256, 8, 256, 3, 1, 3),
    Case(256, 8, 512, 3, 2, 1),
    Case(256, 8, 512, 1, 2, 1),
    Case(512, 4, 512, 3, 1, 3),
)
QUICK = (Case(16, 8, 8, 3, 1, 2), Case(16, 8, 8, 1, 2, 1))


class Layer:
    """Codes of one layer's input and gradient, and the same as floats."""

    def __init__(self, case: Case, device: torch.device):
        self.shape = (case.out, case.channels, case.kernel, case.kernel)
        self.stride, self.padding = case.stride, case.kernel // 2
        side = (case.side + 2 * self.padding - case.kernel) // case.stride + 1
        generator = torch.Generator().manual_seed(0)
        signed = case.channels == 3  # a network's first layer sees normalised pixels
        low, high = (-128, 128) if signed else (0, 256)
        size = (BATCH, case.channels, case.side, case.side)
        self.x = torch.randint(low, high, size, generator=generator, dtype=torch.int8 if signed else torch.uint8)
        self.x = self.x.to(device).contiguous(memory_format=torch.channels_last)
        normal = torch.randn((BATCH, case.out, side, side), generator=generator)
        normal = (normal / normal.abs().max()).to(device).contiguous(memory_format=torch.channels_last)
        self.g = {
            name: (normal * -torch.iinfo(t).min).round().clamp(max=torch.iinfo(t).max).to(t)
            for name, t in GRADIENTS.items()
        }
        self.delta = torch.full((1,), 1e-3, device=device)
        self.floats = self.x.float() * self.delta, self.g["16-bit"].float() * self.delta
        self.like = torch.empty(self.shape, device=device).contiguous(memory_format=torch.channels_last)

    def ours(self, name: str) -> Tensor:
        """The gradient from codes."""
        return ops.code_weight_gradient(
            self.x,
            self.g[name],
            self.delta,
            self.delta,
            self.shape,
            stride=self.stride,
            padding=self.padding,
            channels_last=True,
        )[0]

    def torchs(self) -> Tensor:
        """The gradient from floats."""
        x, g = self.floats
        stride, padding = [self.stride] * 2, [self.padding] * 2
        return torch.ops.aten.convolution_backward(
            g, x, self.like, None, stride, padding, [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]

    def check(self) -> None:
        """Ours are the reference's bits; torch's are near."""
        where = (self.shape, (self.stride,) * 2, (self.padding,) * 2)
        delta = self.delta.cpu()
        for name, g in self.g.items():
            want = reference.code_weight_gradient(self.x.cpu(), g.cpu(), delta, delta, *where)
            same(f"gradient of {name} codes", self.ours(name).cpu(), want)
        same("torch's gradient", self.torchs().cpu(), self.ours("16-bit").cpu(), rtol=1e-2)


def works_of(layers: list[tuple[Layer, int]]) -> dict[str, Work]:
    """All variants over layers, each as often as the network has it."""

    def over(work: Callable[[Layer], Tensor]) -> None:
        for layer, count in layers:
            for _ in range(count):
                work(layer)

    works: dict[str, Work] = {
        f"hiddennet, {name} gradient": partial(over, lambda layer, name=name: layer.ours(name)) for name in GRADIENTS
    }
    works[TORCH] = partial(over, Layer.torchs)
    return works


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort(rounds=15, budget_s=3.0)
    report = Report("code_weight_gradient", args, device)
    cases = QUICK if args.quick else CASES
    layers = [(Layer(case, device), case.count) for case in cases]
    works = {case.name: works_of([(layer, 1)]) for case, (layer, _) in zip(cases, layers, strict=True)}
    total = f"all {sum(case.count for case in cases)} layers"
    works[total] = works_of(layers)
    for layer, _ in layers:
        layer.check()
    for what, variants in works.items():
        times = measure(variants, check=None, device=device, effort=effort)
        report.timings(what, times)
        for name in variants:
            if name != TORCH:
                bar = 1.3 if what == total and device.type == "cpu" else None
                found = ratio(times[TORCH], times[name])
                cpu = ratio(times[TORCH], times[name], clock="cpu")
                report.ratio(what, f"{TORCH} / {name}", found, cpu=cpu, at_least=bar)
    report.close()


if __name__ == "__main__":
    main()
