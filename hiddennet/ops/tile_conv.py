"""tile_conv: a convolution in bfloat16 and its two gradients as products of matrix tiles that block the batch.

On a CPU alone: AMX or AVX512-BF16 where the machine has them, plain loops elsewhere. csrc/ops/tile_conv/tile_conv.h
says what is computed; the sums are of float32 and do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import check_geometry, check_tensor
from hiddennet.ops.fakes import register_fake

_forward = torch.ops.hiddennet.tile_conv_forward.default
_input_gradient = torch.ops.hiddennet.tile_conv_input_gradient.default
_weight_gradient = torch.ops.hiddennet.tile_conv_weight_gradient.default

Pair = Sequence[int]
INSTRUCTIONS = ("plain", "avx512_bf16", "amx")


def output_shape(x: Sequence[int], weight: Sequence[int], stride: Pair, padding: Pair, dilation: Pair) -> list[int]:
    """(N, O, OH, OW) of a convolution of an input (N, C, H, W) by a weight (O, C, KH, KW)."""
    size = [(x[2 + d] + 2 * padding[d] - dilation[d] * (weight[2 + d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    return [x[0], weight[0], *size]


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


def _maps_of(op: str, name: str, value: Tensor) -> Tensor:
    t = check_tensor(op, name, value, dtypes=(torch.bfloat16,))
    if t.device.type == "cuda":
        raise ValueError(f"{op}: expected {name} on a CPU, got {t.device}; a GPU has torch.nn.functional.conv2d")
    if t.dim() != 4:
        raise ValueError(f"{op}: expected {name} of 4 dimensions, got shape {tuple(t.shape)}")
    return t.contiguous(memory_format=torch.channels_last)


def _check_output(op: str, dy: Tensor, want: Sequence[int]) -> None:
    if list(dy.shape) != list(want):
        raise ValueError(f"{op}: expected dy of shape {tuple(want)}, got {tuple(dy.shape)}")


def _check_sizes(op: str, x: Sequence[int], weight: Sequence[int], stride: Pair, padding: Pair, dilation: Pair) -> None:
    check_geometry(op, stride, padding, dilation)
    if len(x) != 4 or len(weight) != 4 or x[1] != weight[1]:
        raise ValueError(
            f"{op}: expected x of shape (N, C, H, W) and a weight of shape (O, C, KH, KW), "
            f"got {tuple(x)} and {tuple(weight)}"
        )
    if min(weight[2:]) < 1 or min(output_shape(x, weight, stride, padding, dilation)[2:]) < 1:
        raise ValueError(f"{op}: expected an input at least as large as the kernel, got {tuple(x)} and {tuple(weight)}")


def tile_conv_forward(
    x: Tensor, weight: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """The convolution of x (N, C, H, W) by weight (O, C, KH, KW), both bfloat16: (N, O, OH, OW), channels_last.

    Raises:
        TypeError, ValueError: other dtypes, shapes or devices.
    """
    op = "tile_conv_forward"
    x, weight = _maps_of(op, "x", x), _maps_of(op, "weight", weight)
    _check_sizes(op, x.shape, weight.shape, stride, padding, dilation)
    return _forward(x, weight, stride, padding, dilation)


def tile_conv_input_gradient(
    dy: Tensor,
    weight: Tensor,
    input_shape: Sequence[int],
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """The gradient of the convolution's input, of shape input_shape, bfloat16, channels_last.

    Raises:
        TypeError, ValueError: other dtypes, shapes or devices.
    """
    op = "tile_conv_input_gradient"
    dy, weight = _maps_of(op, "dy", dy), _maps_of(op, "weight", weight)
    _check_sizes(op, input_shape, weight.shape, stride, padding, dilation)
    _check_output(op, dy, output_shape(input_shape, weight.shape, stride, padding, dilation))
    return _input_gradient(dy, weight, input_shape, stride, padding, dilation)


def tile_conv_weight_gradient(
    x: Tensor,
    dy: Tensor,
    weight_shape: Sequence[int],
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """The gradient of the convolution's weight, of shape weight_shape, float32, channels_last.

    Raises:
        TypeError, ValueError: other dtypes, shapes or devices.
    """
    op = "tile_conv_weight_gradient"
    x, dy = _maps_of(op, "x", x), _maps_of(op, "dy", dy)
    _check_sizes(op, x.shape, weight_shape, stride, padding, dilation)
    _check_output(op, dy, output_shape(x.shape, weight_shape, stride, padding, dilation))
    return _weight_gradient(x, dy, weight_shape, stride, padding, dilation)
