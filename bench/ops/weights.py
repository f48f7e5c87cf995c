"""Weights from the counter generator, and a hidden layer's forward and backward by every plan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness import Effort, captured, same
from bench.ops.inputs import kept, selected, size, walk
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet import ops
from tests import reference

# -- generate_weight: against torch's own random fills of the same size --------------------------------------------

PEERS = {"signed_constant": "bernoulli_", "kaiming_uniform": "uniform_", "kaiming_normal": "normal_"}


def check_generated(init: str, device: torch.device) -> None:
    """Every backend draws the reference's bits (a small weight; the tests cover the rest)."""
    shape = (6, 5, 3, 3)
    scaled = ops.init_scale(shape, init)
    want = reference.generate(scaled.kind, scaled.scale, size([shape]), seed=7, layer=3).view(shape)
    same(f"{init} on {device}", ops.generate_weight(shape, init, seed=7, layer=3, device=device).cpu(), want)


def generate_weight(at: Setting) -> Iterator[Case]:
    shape = (1024, 1024, 3, 3) if at.on_cpu else (4096, 1024, 3, 3)  # beyond any cache
    shape = (64, 64, 3, 3) if at.quick else shape
    n = size([shape])
    for init, peer in PEERS.items():
        ours = partial(ops.generate_weight, shape, init, seed=0, device=at.device)
        fill = getattr(torch.empty(shape, device=at.device), peer)
        what, theirs = f"{init} ({n:,})", f"torch {peer}"
        works = {"hiddennet": ours, theirs: lambda fill=fill: fill()}
        yield Case(what, works, partial(check_generated, init, at.device), [Claim(theirs, "hiddennet")], bytes=4 * n)
        if not at.on_cpu:
            yield Case(what, {"hiddennet, graph": captured([ours])}, bytes=4 * n)


# -- masked_conv: beside the same dense layer ----------------------------------------------------------------------

# batch, input channels, side, output channels, kernel; stride 1, padded to keep its size
LAYERS = (
    (128, 64, 32, 64, 3),
    (128, 256, 8, 256, 3),
    (128, 512, 4, 512, 3),
    (32, 512, 16, 512, 1),
    (128, 16384, 1, 256, 1),
    (1, 16384, 1, 256, 1),
)
QUICK_LAYERS = ((4, 8, 8, 8, 3), (4, 256, 1, 32, 1))


class Layer:
    """One hidden layer and the same dense one, with an input and an upstream gradient.

    The dense layer convolves with a stored weight and makes its gradient; the plans make the weight from scores and
    signs first, and the scores' gradient last. The selection is made before: it is topk_mask's.
    """

    def __init__(self, layer: tuple[int, ...], device: torch.device, dtype: torch.dtype, layout: torch.memory_format):
        batch, channels, side, out, kernel = layer
        shape = (out, channels, kernel, kernel)
        self.padding, self.dtype = kernel // 2, dtype
        scores = walk(shape, 1, device)[0].contiguous(memory_format=layout)
        self.scores = scores.requires_grad_()
        self.source = ops.WeightSource.generate(shape, "signed_constant", seed=0, device=device)
        self.rule = selected(ops.topk_select([scores], [kept(scores.numel())])[0])
        x = torch.randn((batch, channels, side, side), device=device, dtype=dtype).contiguous(memory_format=layout)
        with torch.no_grad():
            weight = ops.masked_weight(scores, self.rule, source=self.source)
            self.grad = torch.randn_like(F.conv2d(x, weight.to(dtype), padding=self.padding))
        self.weight = weight.requires_grad_()  # float32, as a trained weight is
        self.x = x.requires_grad_()

    def hidden(self, plan: str) -> tuple[Tensor, ...]:
        """Output, gradients of input and scores."""
        y = ops.masked_conv2d(self.x, self.scores, self.rule, source=self.source, padding=self.padding, plan=plan)
        return (y, *torch.autograd.grad(y, (self.x, self.scores), self.grad))

    def dense(self) -> tuple[Tensor, ...]:
        """Output, gradients of input and weight."""
        y = F.conv2d(self.x, self.weight.to(self.dtype), padding=self.padding)
        return (y, *torch.autograd.grad(y, (self.x, self.weight), self.grad))

    def plans(self) -> dict[str, str]:
        """The plans that serve this layer here, by the name of their variant."""
        chosen = ops.default_plan(self.x, self.source.shape, [1, 1], [self.padding] * 2, [1, 1], 1)
        found = ["effective_weight"]
        found += ["matmul"] if self.padding == 0 and self.x.shape[-1] == 1 else []
        found += ["implicit_gemm"] if self.x.is_cuda and self.dtype is torch.bfloat16 else []
        return {plan + (" (default)" if plan == chosen else ""): plan for plan in found}

    def check(self) -> None:
        """Each plan equals the dense layer up to the rounding of its sums."""
        rtol = 2e-2
        if self.dtype is torch.float32:  # convolutions are TF32 on a GPU, matrix products are not
            rtol = 2e-3 if self.x.is_cuda else 1e-4
        y, dx, dw = self.dense()
        with torch.no_grad():
            surrogate = dw * self.source.weight(device=dw.device) * self.scores.sign()
        names = ("output", "input gradient", "score gradient")
        for plan in self.plans().values():
            for name, got, want in zip(names, self.hidden(plan), (y, dx, surrogate), strict=True):
                same(f"{plan}: {name}", got.detach(), want.detach(), rtol=rtol)


def masked_conv(at: Setting) -> Iterator[Case]:
    formats = [(torch.float32, torch.contiguous_format)]
    formats += [(torch.float32 if at.on_cpu else torch.bfloat16, torch.channels_last)]
    for batch, channels, side, out, kernel in QUICK_LAYERS if at.quick else LAYERS:
        for dtype, layout in formats:
            if side == 1 and layout is torch.channels_last and at.on_cpu:
                continue  # one pixel has no layout
            layer = Layer((batch, channels, side, out, kernel), at.device, dtype, layout)
            works = {name: partial(layer.hidden, plan) for name, plan in layer.plans().items()}
            kind = str(dtype).removeprefix("torch.") + (", channels_last" if layout is torch.channels_last else "")
            yield Case(
                f"{channels}->{out} {kernel}x{kernel} @{side}, b{batch}, {kind}",
                {**works, "dense": layer.dense},
                layer.check,
                [Claim(name, "dense") for name in works],
            )


BENCHMARKS = {
    "generate_weight": Benchmark(generate_weight, floor=True),
    "masked_conv": Benchmark(masked_conv, Effort(budget_s=6.0), grad=True),
}
