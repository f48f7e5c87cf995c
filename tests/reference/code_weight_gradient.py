"""The weight gradient of a 2-d convolution from integer codes, tap by tap in int64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def code_sums(
    input: Tensor,
    gradient: Tensor,
    shape: tuple[int, ...],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """The exact sums, int64 [O, C / groups, KH, KW], of any integer codes."""
    out, channels, height, width = shape
    n, _, rows, columns = gradient.shape
    sums = torch.zeros(shape, dtype=torch.int64, device=input.device)
    if n * rows * columns == 0 or sums.numel() == 0:
        return sums
    x = F.pad(input.to(torch.int64), (padding[1], padding[1], padding[0], padding[0]))
    x = x.reshape(n, groups, channels, *x.shape[2:])
    g = gradient.to(torch.int64).reshape(n, groups, out // groups, rows, columns)
    for ky in range(height):
        for kx in range(width):
            y0, x0 = ky * dilation[0], kx * dilation[1]
            seen = x[..., y0 : y0 + stride[0] * (rows - 1) + 1 : stride[0], :]
            seen = seen[..., x0 : x0 + stride[1] * (columns - 1) + 1 : stride[1]]
            tap = torch.einsum("nuoyx,nucyx->uoc", g, seen)
            sums[:, :, ky, kx] = tap.reshape(out, channels)
    return sums


def code_weight_gradient(
    input: Tensor,
    gradient: Tensor,
    input_delta: Tensor,
    gradient_delta: Tensor,
    shape: tuple[int, ...],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """float32 [O, C / groups, KH, KW]: the sums times the product of both deltas in double, rounded once."""
    sums = code_sums(input, gradient, shape, stride, padding, dilation, groups)
    if gradient.numel() == 0:  # zeros whatever the deltas are
        return sums.to(torch.float32)
    return (sums.to(torch.float64) * (input_delta.double() * gradient_delta.double())).to(torch.float32)
