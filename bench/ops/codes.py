"""Codes of few bits: quantising activations and gradients, and the exact weight gradient of codes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bench.harness import Effort, same
from bench.ops.inputs import over
from bench.originals_peek_a_boo import quantise
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet import ops
from hiddennet.ops.quantize import centred_codes, range_of
from tests import reference

# -- quantize_codes: range and codes of a layer's input and of its output's gradient, as they lie and turned ------

SHAPES = ((32, 64, 32, 32), (32, 128, 16, 16), (32, 512, 4, 4))  # of a ResNet-18
KINDS = {"input": ("sample_mean", 8, False), "gradient": ("tensor", 16, True)}  # range over, bits, signed
LIES, TURNED, LEAN, ORIGINAL = "as x lies", "turned to channels_last", "torch, few passes", "original"


def original(x: Tensor, range_over: str, bits: int, signed: bool) -> Tensor:
    """The original's range and its passes."""
    rows = x.abs().flatten(1).max(-1).values
    return quantise(x, bits, rows.mean() if range_over == "sample_mean" else rows.max(), signed)


def lean(x: Tensor, range_over: str, bits: int, signed: bool) -> Tensor:
    """Few passes of torch: no host, no clone, values not codes."""
    low, high = (-float(2 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    rows = x.abs().flatten(1).amax(-1)
    step = (rows.mean() if range_over == "sample_mean" else rows.max()) * (2.0 if signed else 1.0) / 2**bits
    return (x / step).clamp_(low, high).round_().mul_(step)


def coded(x: Tensor, range_over: str, bits: int, signed: bool, turned: bool) -> tuple[Tensor, Tensor]:
    return centred_codes(x, range_of(x, range_over), bits, signed, turned)


def check_codes(x: Tensor, *how: object) -> None:
    """Codes times their step are the values of both peers; turned they are the same codes."""
    codes, step = coded(x, *how, False)
    same("values", codes * step, lean(x, *how), rtol=1e-4)
    same("values of the original", codes * step, original(x, *how), rtol=1e-2)
    same("turned codes", coded(x, *how, True)[0], codes)


def quantize_codes(at: Setting) -> Iterator[Case]:
    for shape in ((2, 8, 8, 8),) if at.quick else SHAPES:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(at.device)
        for name, how in KINDS.items():
            bits, t = how[1], x.relu() if name == "input" else x
            works = {
                LIES: partial(coded, t, *how, False),
                TURNED: partial(coded, t, *how, True),
                LEAN: partial(lean, t, *how),
                ORIGINAL: partial(original, t, *how),
            }
            yield Case(
                f"{name} {'x'.join(map(str, shape))}, {bits} bits",
                works,
                partial(check_codes, t, *how),
                [Claim(peer, TURNED, at_least=1.0, shown=f"{peer} / turned") for peer in (LEAN, ORIGINAL)],
                bytes=dict.fromkeys((LIES, TURNED), t.numel() * (4 + 4 + (bits + 7) // 8)),
            )


# -- code_weight_gradient: 8-bit inputs and 16- or 8-bit gradients, against torch's float32 weight gradient --------

GRADIENTS = {"16-bit": torch.int16, "8-bit": torch.int8}
TORCH = "torch, float32"
BATCH = 32
# channels, side of the input's map, filters, kernel, stride, how often CIFAR ResNet-18 has the layer
LAYERS = (
    (3, 32, 64, 3, 1, 1),
    (64, 32, 64, 3, 1, 4),
    (64, 32, 128, 3, 2, 1),
    (64, 32, 128, 1, 2, 1),
    (128, 16, 128, 3, 1, 3),
    (128, 16, 256, 3, 2, 1),
    (128, 16, 256, 1, 2, 1),
    (256, 8, 256, 3, 1, 3),
    (256, 8, 512, 3, 2, 1),
    (256, 8, 512, 1, 2, 1),
    (512, 4, 512, 3, 1, 3),
)
QUICK_LAYERS = ((16, 8, 8, 3, 1, 2), (16, 8, 8, 1, 2, 1))


class Layer:
    """Codes of one layer's input and gradient, channels_last, made before: quantising must be paid from the gain."""

    def __init__(self, layer: tuple[int, ...], device: torch.device):
        channels, side, out, kernel, self.stride, self.count = layer
        self.shape, self.padding = (out, channels, kernel, kernel), kernel // 2
        self.name = (
            f"{channels}->{out} {kernel}x{kernel}{f'/{self.stride}' if self.stride > 1 else ''} @{side}, b{BATCH}"
        )
        made = (side + 2 * self.padding - kernel) // self.stride + 1
        generator, last = torch.Generator().manual_seed(0), {"memory_format": torch.channels_last}
        signed = channels == 3  # a network's first layer sees normalised pixels
        low, high, kind = (-128, 128, torch.int8) if signed else (0, 256, torch.uint8)
        x = torch.randint(low, high, (BATCH, channels, side, side), generator=generator, dtype=kind)
        self.x = x.to(device).contiguous(**last)
        normal = torch.randn((BATCH, out, made, made), generator=generator)
        normal = (normal / normal.abs().max()).to(device).contiguous(**last)
        limits = {name: torch.iinfo(kind) for name, kind in GRADIENTS.items()}
        self.g = {
            name: (normal * -limit.min).round().clamp(max=limit.max).to(GRADIENTS[name])
            for name, limit in limits.items()
        }
        self.delta = torch.full((1,), 1e-3, device=device)
        self.floats = self.x.float() * self.delta, self.g["16-bit"].float() * self.delta
        self.like = torch.empty(self.shape, device=device).contiguous(**last)

    def ours(self, name: str) -> Tensor:
        """The gradient from codes."""
        how = {"stride": self.stride, "padding": self.padding, "channels_last": True}
        return ops.code_weight_gradient(self.x, self.g[name], self.delta, self.delta, self.shape, **how)[0]

    def torchs(self) -> Tensor:
        """The gradient from floats."""
        x, g = self.floats
        numbers = ([self.stride] * 2, [self.padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False])
        return torch.ops.aten.convolution_backward(g, x, self.like, None, *numbers)[1]

    def check(self) -> None:
        """Ours are the reference's bits; torch's are near."""
        where = (self.shape, (self.stride,) * 2, (self.padding,) * 2)
        delta = self.delta.cpu()
        for name, g in self.g.items():
            want = reference.code_weight_gradient(self.x.cpu(), g.cpu(), delta, delta, *where)
            same(f"gradient of {name} codes", self.ours(name).cpu(), want)
        same("torch's gradient", self.torchs().cpu(), self.ours("16-bit").cpu(), rtol=1e-2)


def code_weight_gradient(at: Setting) -> Iterator[Case]:
    layers = [Layer(layer, at.device) for layer in (QUICK_LAYERS if at.quick else LAYERS)]
    whole = [layer for layer in layers for _ in range(layer.count)]
    ours = {f"hiddennet, {name} gradient": name for name in GRADIENTS}
    for what, group in {**{layer.name: [layer] for layer in layers}, f"all {len(whole)} layers": whole}.items():
        works = {variant: over(group, lambda layer, name=name: layer.ours(name)) for variant, name in ours.items()}
        bar = at.on_cpu_only(1.3 if group is whole else None)
        yield Case(
            what,
            {**works, TORCH: over(group, Layer.torchs)},
            None if group is whole else group[0].check,
            [Claim(TORCH, variant, at_least=bar) for variant in ours],
        )


BENCHMARKS = {
    "quantize_codes": Benchmark(quantize_codes, Effort(budget_s=3.0), floor=True),
    "code_weight_gradient": Benchmark(code_weight_gradient, Effort(rounds=15, budget_s=3.0)),
}
