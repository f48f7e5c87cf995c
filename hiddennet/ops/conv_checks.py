"""What the convolutions of plain tensors on a CPU refuse, and their output's shape."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import check_geometry, check_same_device, check_tensor

Pair = Sequence[int]


def output_shape(x: Sequence[int], weight: Sequence[int], stride: Pair, padding: Pair, dilation: Pair) -> list[int]:
    """Of a convolution's output, for the shapes of its input and weight."""
    size = [(x[2 + d] + 2 * padding[d] - dilation[d] * (weight[2 + d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    return [x[0], weight[0], *size]


def check_maps(
    op: str, name: str, maps: Tensor, like: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Images of 4 dimensions and this dtype on a CPU."""
    check_tensor(op, name, maps, dtypes=(dtype,))
    if maps.device.type == "cuda":
        raise ValueError(f"{op}: expected {name} on a CPU, got {maps.device}; a GPU has torch.nn.functional.conv2d")
    if maps.dim() != 4:
        raise ValueError(f"{op}: expected {name} of shape (N, C, H, W), got {tuple(maps.shape)}")
    if like is not None:
        check_same_device(op, name, maps, "x", like)


def check_sizes(
    op: str, x: Sequence[int], weight: Sequence[int], geometry: tuple[Pair, Pair, Pair], dy: Tensor | None = None
) -> list[list[int]]:
    """Sizes of a convolution without groups whose kernel fits into the padded input, dy of the output's shape.

    geometry: (stride, padding, dilation), which come back as the ops take them.
    """
    stride, padding, dilation = geometry
    check_geometry(op, stride, padding, dilation)
    if len(x) != 4 or len(weight) != 4 or x[1] != weight[1]:
        raise ValueError(
            f"{op}: expected an input of shape (N, C, H, W) and a weight of shape (O, C, KH, KW) without groups, "
            f"got {tuple(x)} and {tuple(weight)}"
        )
    want = output_shape(x, weight, stride, padding, dilation)
    if min(weight[2:]) < 1 or min(want[2:]) < 1:
        raise ValueError(f"{op}: expected an input at least as large as the kernel, got {tuple(x)} and {tuple(weight)}")
    if dy is not None and list(dy.shape) != want:
        raise ValueError(f"{op}: expected dy of shape {tuple(want)}, got {tuple(dy.shape)}")
    return [list(stride), list(padding), list(dilation)]


def last(t: Tensor) -> Tensor:
    """`t` in channels_last memory, without its graph."""
    return t.detach().contiguous(memory_format=torch.channels_last)
