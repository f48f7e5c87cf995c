"""Float32 convolutions on a CPU: by sparse weights, and their weight gradients, against torch's (oneDNN's)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from bench.harness import Effort, same
from bench.ops.codes import LAYERS, QUICK_LAYERS
from bench.ops.inputs import over
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet.ops import (
    dense_conv_weight_gradient,
    sparse_conv_forward,
    sparse_conv_input_gradient,
    sparse_conv_weight_gradient,
)

BATCH = 128
DENSITIES = (0.5, 0.3, 0.1, 0.02)
CONV4 = ((3, 32, 64, 3, 1, 1), (64, 32, 64, 3, 1, 1), (64, 16, 128, 3, 1, 1), (128, 16, 128, 3, 1, 1))
OURS, TORCH = "hiddennet", "torch"


class Layer:
    """One layer in channels_last, with a random mask; signed constants or weights of their own."""

    def __init__(self, layer: tuple[int, ...], batch: int, density: float = 1.0, signed: bool = True):
        channels, side, out, kernel, stride, self.count = layer
        generator, last = torch.Generator().manual_seed(0), {"memory_format": torch.channels_last}
        self.geometry = [stride] * 2, [kernel // 2] * 2, [1, 1]
        made = (side + 2 * (kernel // 2) - kernel) // stride + 1
        shape = (out, channels, kernel, kernel)
        weight = torch.randn(shape, generator=generator)
        weight = (weight.sign() if signed else weight) * 0.1
        mask = torch.rand(shape, generator=generator) < density
        self.weight = (weight * mask).contiguous(**last)
        self.x = torch.randn(batch, channels, side, side, generator=generator).contiguous(**last)
        self.dy = torch.randn(batch, out, made, made, generator=generator).contiguous(**last)
        self.flops = 2 * self.dy.numel() * weight[0].numel()
        self.name = f"{channels}->{out} {kernel}x{kernel}{f'/{stride}' if stride > 1 else ''} @{side}, b{batch}"

    def torchs(self, which: int) -> Tensor:
        """torch's gradient of the input or of the weight."""
        wanted = [which == 0, which == 1, False]
        numbers = (*self.geometry, False, [0, 0], 1, wanted)
        return torch.ops.aten.convolution_backward(self.dy, self.x, self.weight, None, *numbers)[which]

    def works(self) -> dict[str, tuple]:
        """By direction: ours and torch's."""
        x, dy, w, geometry = self.x, self.dy, self.weight, self.geometry
        return {
            "forward": (
                partial(sparse_conv_forward, x, w, *geometry),
                lambda: conv2d(x, w, None, *geometry),
            ),
            "input gradient": (
                partial(sparse_conv_input_gradient, dy, w, x.shape, *geometry),
                partial(self.torchs, 0),
            ),
            "kept weight gradient": (
                partial(sparse_conv_weight_gradient, x, dy, w, *geometry),
                partial(self.torchs, 1),
            ),
        }

    def dense(self) -> Tensor:
        """Our gradient of every weight."""
        return dense_conv_weight_gradient(self.x, self.dy, self.weight.shape, *self.geometry)

    def check(self) -> None:
        """All are torch's, nearly; the sparse weight gradient where there is a weight."""
        for name, (ours, torchs) in self.works().items():
            want = torchs()
            same(name, ours(), torch.where(self.weight != 0, want, 0.0) if "kept" in name else want, rtol=1e-5)
        same("dense weight gradient", self.dense(), self.torchs(1), rtol=1e-5)


def _rate(times, layer: Layer) -> Iterator[Value]:
    """Dense-equivalent GF/s, by CPU time."""
    for variant, timing in times.items():
        yield Value(variant, layer.flops / min(timing.cpu) / 1e9, "GF/s")


def _layers(at: Setting) -> tuple:
    return QUICK_LAYERS if at.quick else (*LAYERS, CONV4[2])


def sparse_conv(at: Setting) -> Iterator[Case]:
    if not at.on_cpu:
        return
    batch = 4 if at.quick else BATCH
    for density in DENSITIES:
        for signed in (True, False):
            layers = [Layer(layer, batch, density, signed) for layer in _layers(at)]
            kind = f"{'signs' if signed else 'values'}, density {density}"
            for layer in layers:
                works = {}
                for name, (ours, torchs) in layer.works().items():
                    works |= {f"{name}: {OURS}": ours, f"{name}: {TORCH}": torchs}
                claims = [Claim(f"{name}: {TORCH}", f"{name}: {OURS}") for name in layer.works()]
                yield Case(f"{layer.name}, {kind}", works, layer.check, claims, values=partial(_rate, layer=layer))


def dense_weight_gradient(at: Setting) -> Iterator[Case]:
    for batch in () if not at.on_cpu else (4,) if at.quick else (BATCH, 32):
        layers = [Layer(layer, batch) for layer in _layers(at)]
        whole = [layer for layer in layers for _ in range(layer.count)]
        for layer in layers:
            works = {OURS: layer.dense, TORCH: partial(layer.torchs, 1)}
            yield Case(layer.name, works, layer.check, [Claim(TORCH, OURS)], values=partial(_rate, layer=layer))
        works = {OURS: over(whole, Layer.dense), TORCH: over(whole, lambda layer: layer.torchs(1))}
        yield Case(f"all {len(whole)} layers, b{batch}", works, None, [Claim(TORCH, OURS)])


BENCHMARKS = {
    "sparse_conv": Benchmark(sparse_conv, Effort(rounds=7, min_rounds=3, warmup=1, budget_s=3.0, sample_s=0.0)),
    "dense_weight_gradient": Benchmark(dense_weight_gradient, Effort(rounds=9, min_rounds=3, budget_s=3.0)),
}
