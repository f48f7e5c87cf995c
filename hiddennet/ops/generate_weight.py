"""generate_weight: a layer's random weights as a pure function of (seed, layer, index, redraw); and WeightSource: where
a layer's weights come from, as what an op needs of them (csrc/base/source.cuh).

Equal to the bit on every backend, whatever the memory format. Initialisations and their scales: inits.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hiddennet.ops.checks import MAX_ELEMENTS, check_seed, check_tensor
from hiddennet.ops.fakes import register_void
from hiddennet.ops.inits import KINDS, InitScale, init_scale

_generate_weight = torch.ops.hiddennet.generate_weight.default
_generate_signs = torch.ops.hiddennet.generate_signs.default
register_void("generate_weight", "generate_signs")


def fill(out: Tensor, scaled: InitScale, *, seed: int, layer: int, redraw: int) -> Tensor:
    """Write the numbers `scaled` names into `out` (float32, bfloat16, float16; OIHW or channels_last); return it."""
    signs = scaled.kind == "signs"  # made without a plane: a constant with signs
    code = InitScale("constant", 1.0).code if signs else scaled.code
    _generate_weight(out, code, signs, scaled.scale, seed, layer, redraw)
    return out


def sign_plane(n: int, *, seed: int, layer: int, redraw: int, device: torch.device | str) -> Tensor:
    """Return the signs of n weights as bits: uint8 [ceil(n / 8)], OIHW order, 1 = negative."""
    plane = torch.empty((n + 7) // 8, dtype=torch.uint8, device=device)
    _generate_signs(plane, n, seed, layer, redraw)
    return plane


def generate_weight(
    shape: tuple[int, ...],
    init: str,
    *,
    seed: int,
    layer: int = 0,
    redraw: int = 0,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    density: float | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Return a weight of `shape` [out, in, *kernel], drawn by the counter generator. Never an exact 0 for constants.

    Args:
        shape: at least 2 dimensions, fewer than 2^31 elements.
        init: one of hiddennet.ops.INITS.
        seed, layer, redraw: name the draw; 63, 32 and 32 bits.
        mode, nonlinearity: "fan_in" or "fan_out"; a nonlinearity of torch.nn.init.calculate_gain.
        density: the kept fraction the fan is scaled by (`scale_fan`), or None.
        dtype: float32, bfloat16 or float16; drawn in float32 and rounded to nearest even.
        memory_format: contiguous or channels_last (4 dimensions); the values do not depend on it.

    Raises:
        ValueError, TypeError: an argument outside what is said above.
    """
    op = "generate_weight"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(f"{op}: expected dtype float32, bfloat16 or float16, got {dtype}")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"{op}: expected fewer than 2^31 elements, got shape {tuple(shape)}; split the layer")
    check_seed(op, "seed", seed, 63)
    check_seed(op, "layer", layer, 32)
    check_seed(op, "redraw", redraw, 32)
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(f"{op}: expected memory_format contiguous_format or channels_last, got {memory_format}")
    if memory_format is torch.channels_last and len(shape) != 4:
        raise ValueError(f"{op}: expected 4 dimensions for channels_last, got shape {tuple(shape)}")
    scaled = init_scale(tuple(shape), init, mode=mode, nonlinearity=nonlinearity, density=density)
    out = torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=memory_format)
    return fill(out, scaled, seed=seed, layer=layer, redraw=redraw)


@dataclass(frozen=True)
class WeightSource:
    """Built by the class methods below. Only signs keep a tensor: one bit a weight."""

    kind: str
    shape: torch.Size
    stored: Tensor | None = None
    plane: Tensor | None = None
    scale: float = 0.0
    seed: int = 0
    layer: int = 0
    redraw: int = 0
    through: bool = False  # stored weights: pass the gradient of pruned weights too

    @classmethod
    def store(cls, weight: Tensor, *, layer: int = 0, through: bool = False) -> WeightSource:
        """A float32 tensor. It gets the masked gradient, or with `through` that of every weight (neural wirings)."""
        check_tensor("WeightSource.store", "weight", weight, dtypes=(torch.float32,))
        return cls("stored", weight.shape, stored=weight, layer=layer, through=through)

    @classmethod
    def generate(
        cls,
        shape: tuple[int, ...],
        init: str = "signed_constant",
        *,
        seed: int,
        layer: int = 0,
        redraw: int = 0,
        mode: str = "fan_in",
        nonlinearity: str = "relu",
        density: float | None = None,
        device: torch.device | str = "cpu",
    ) -> WeightSource:
        """Weights drawn by the counter generator; arguments as in generate_weight."""
        op = "WeightSource.generate"
        check_seed(op, "seed", seed, 63)
        check_seed(op, "layer", layer, 32)
        check_seed(op, "redraw", redraw, 32)
        scaled = init_scale(tuple(shape), init, mode=mode, nonlinearity=nonlinearity, density=density)
        size = torch.Size(shape)
        plane = None
        if scaled.kind == "signs":
            plane = sign_plane(size.numel(), seed=seed, layer=layer, redraw=redraw, device=device)
        return cls(scaled.kind, size, None, plane, scaled.scale, seed, layer, redraw)

    def arguments(self) -> tuple[int, Tensor | None, Tensor | None, float, int, int, int]:
        """The ops' (source, stored, plane, scale, seed, layer, redraw)."""
        return KINDS.index(self.kind), self.stored, self.plane, self.scale, self.seed, self.layer, self.redraw

    def weight(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Tensor:
        """All weights, none masked: a new tensor for generated ones, the stored tensor itself otherwise."""
        if self.stored is not None:
            return self.stored
        out = torch.empty(self.shape, dtype=dtype, device=device, memory_format=memory_format)
        scaled = InitScale(self.kind, self.scale)
        return fill(out, scaled, seed=self.seed, layer=self.layer, redraw=self.redraw)
