"""generate_weight: a layer's random weights as a pure function of (seed, layer, index, redraw).

Equal to the bit on every backend, whatever the memory format. Initialisations and their scales: inits.py.
"""

import math

import torch
from torch import Tensor

from hiddennet.ops.checks import MAX_ELEMENTS, check_seed
from hiddennet.ops.fakes import register_void
from hiddennet.ops.inits import InitScale, init_scale

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
