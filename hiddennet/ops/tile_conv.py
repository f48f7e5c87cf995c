"""tile_conv: a convolution in bfloat16 and its two gradients as products of matrix tiles that block the batch.

On a CPU alone: AMX or AVX512-BF16 where the machine has them, plain loops elsewhere. csrc/ops/tile_conv/tile_conv.h
says what is computed; the sums are of float32 and do not depend on the number of threads.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.conv_checks import Pair, check_maps, check_sizes, last, output_shape
from hiddennet.ops.fakes import register_fake

_forward = torch.ops.hiddennet.tile_conv_forward.default
_input_gradient = torch.ops.hiddennet.tile_conv_input_gradient.default
_weight_gradient = torch.ops.hiddennet.tile_conv_weight_gradient.default

INSTRUCTIONS = ("plain", "avx512_bf16", "amx")


def _maps(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


@register_fake("tile_conv_forward")
def _(x, weight, stride, padding, dilation) -> Tensor:
    return _maps(x, output_shape(x.shape, weight.shape, stride, padding, dilation), x.dtype)


@register_fake("tile_conv_input_gradient")
def _(dy, weight, input_shape, stride, padding, dilation) -> Tensor:
    return _maps(dy, input_shape, dy.dtype)


@register_fake("tile_conv_weight_gradient")
def _(x, dy, shape, stride, padding, dilation) -> Tensor:
    return _maps(x, shape, torch.float32)


@functools.cache
def instructions() -> str:
    """What the tiles are multiplied with on this machine: "amx", "avx512_bf16" or "plain" (slow: for tests)."""
    return INSTRUCTIONS[torch.ops.hiddennet.tile_instructions(torch.empty(0))]


def _maps_of(op: str, **maps: Tensor) -> None:
    for name, t in maps.items():
        check_maps(op, name, t, dtype=torch.bfloat16)


def tile_conv_forward(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Return `conv2d(x, weight)` in bfloat16, channels_last, without a gradient.

    Args:
        x: bfloat16 (N, C, H, W), on a CPU; channels_last is fastest, others are copied there.
        weight: bfloat16 (O, C, KH, KW).
        stride, padding, dilation: of the layer, (vertical, horizontal).

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "tile_conv_forward"
    _maps_of(op, x=x, weight=weight)
    geometry = check_sizes(op, x.shape, weight.shape, (stride, padding, dilation))
    return _forward(last(x), last(weight), *geometry)


def tile_conv_input_gradient(
    dy: Tensor, weight: Tensor, input_shape: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Return the gradient of tile_conv_forward's x: bfloat16 of `input_shape`, channels_last.

    Args:
        dy: bfloat16 (N, O, OH, OW), on a CPU.
        weight, stride, padding, dilation: of the forward.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "tile_conv_input_gradient"
    _maps_of(op, dy=dy, weight=weight)
    geometry = check_sizes(op, input_shape, weight.shape, (stride, padding, dilation), dy)
    return _input_gradient(last(dy), last(weight), list(input_shape), *geometry)


def tile_conv_weight_gradient(
    x: Tensor, dy: Tensor, weight_shape: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Return the gradient of tile_conv_forward's weight: float32 of `weight_shape`, channels_last.

    Args:
        x, stride, padding, dilation: of the forward.
        dy: bfloat16 (N, O, OH, OW).

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "tile_conv_weight_gradient"
    _maps_of(op, x=x, dy=dy)
    geometry = check_sizes(op, x.shape, weight_shape, (stride, padding, dilation), dy)
    return _weight_gradient(last(x), last(dy), list(weight_shape), *geometry)
