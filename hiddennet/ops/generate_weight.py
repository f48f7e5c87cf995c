"""generate_weight: a layer's random weights as a pure function of (seed, layer, index, redraw).

Equal to the bit on every backend, whatever the memory format. Initialisations and their gains: hidden-networks section
4 ("signed Kaiming constant" and others), He et al. 2015, Glorot and Bengio 2010.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import MAX_ELEMENTS, check_choice, check_seed

_generate_weight = torch.ops.hiddennet.generate_weight.default
_generate_signs = torch.ops.hiddennet.generate_signs.default

INITS = (
    "signed_constant",
    "unsigned_constant",
    "kaiming_normal",
    "kaiming_uniform",
    "kaiming_laplace",
    "xavier_normal",
    "xavier_constant",
    "standard",
    "uniform",
)
MODES = ("fan_in", "fan_out")
_SCALED_BY_FAN = ("signed_constant", "unsigned_constant", "kaiming_normal", "kaiming_laplace")


@torch.library.register_fake("hiddennet::generate_weight")
def _(out, source, signs, scale, seed, layer, redraw) -> None:
    return None


@torch.library.register_fake("hiddennet::generate_signs")
def _(plane, n, seed, layer, redraw) -> None:
    return None


class InitScale(NamedTuple):
    """An initialisation for one shape: a kind of number times a scale.

    kind: "constant", "signs", "uniform" U(-1, 1), "normal" N(0, 1) or "laplace" Laplace(0, 1).
    """

    kind: str
    scale: float


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, *kernel], as in torch.nn.init."""
    if len(shape) < 2:
        raise ValueError(f"generate_weight: expected a weight of at least 2 dimensions, got shape {tuple(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def init_scale(
    shape: tuple[int, ...],
    init: str,
    *,
    mode: str = "fan_in",
    nonlinearity: str = "relu",
    density: float | None = None,
) -> InitScale:
    """Return the kind of number and its scale for a weight of this shape.

    With F = the fan named by `mode` (times `density`, if given: what the papers call scale_fan) and g = the gain:
    signed_constant and unsigned_constant g / sqrt(F); kaiming_normal N(0, g^2 / F); kaiming_uniform U(+-g sqrt(3 / F));
    kaiming_laplace Laplace(0, g / sqrt(2 F)), of the same deviation; xavier_normal N(0, 2 / (fan_in + fan_out));
    xavier_constant its deviation, signed; standard U(+-1 / sqrt(fan_in)); uniform U(-1, 1).

    Raises:
        ValueError: unknown init, mode or nonlinearity; a density outside (0, 1]; a density for an init without it.
    """
    op = "generate_weight"
    check_choice(op, "init", init, INITS)
    check_choice(op, "mode", mode, MODES)
    fan_in, fan_out = fans(tuple(shape))
    if fan_in == 0 or fan_out == 0:
        raise ValueError(f"{op}: expected a weight with elements, got shape {tuple(shape)}")
    if density is not None:
        if init not in _SCALED_BY_FAN:
            raise ValueError(f"{op}: expected no scale_fan for init {init!r}; it serves {', '.join(_SCALED_BY_FAN)}")
        if not 0.0 < density <= 1.0:
            raise ValueError(f"{op}: expected a density in (0, 1] to scale the fan by, got {density}")
    fan = (fan_in if mode == "fan_in" else fan_out) * (1.0 if density is None else density)
    try:
        gain = torch.nn.init.calculate_gain(nonlinearity)
    except ValueError:
        raise ValueError(f"{op}: expected a nonlinearity torch.nn.init knows, got {nonlinearity!r}") from None
    xavier = math.sqrt(2.0 / (fan_in + fan_out))
    return {
        "signed_constant": InitScale("signs", gain / math.sqrt(fan)),
        "unsigned_constant": InitScale("constant", gain / math.sqrt(fan)),
        "kaiming_normal": InitScale("normal", gain / math.sqrt(fan)),
        "kaiming_uniform": InitScale("uniform", math.sqrt(3.0) * gain / math.sqrt(fan)),
        "kaiming_laplace": InitScale("laplace", gain / math.sqrt(2.0 * fan)),
        "xavier_normal": InitScale("normal", xavier),
        "xavier_constant": InitScale("signs", xavier),
        "standard": InitScale("uniform", 1.0 / math.sqrt(fan_in)),
        "uniform": InitScale("uniform", 1.0),
    }[init]


KIND_CODES = {"stored": 0, "constant": 1, "signs": 2, "uniform": 3, "normal": 4, "laplace": 5}


def fill(out: Tensor, scaled: InitScale, *, seed: int, layer: int, redraw: int) -> Tensor:
    """Write the numbers `scaled` names into `out` (float32, bfloat16, float16; OIHW or channels_last); return it."""
    kind = "constant" if scaled.kind == "signs" else scaled.kind
    signs = scaled.kind == "signs"
    _generate_weight(out, KIND_CODES[kind], signs, scaled.scale, seed, layer, redraw)
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
