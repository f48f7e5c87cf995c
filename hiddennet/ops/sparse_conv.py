"""sparse_conv: a float32 convolution by a weight with many zeros and its gradients, over lists of the other entries.

On a CPU alone. Vectors hold one channel of 16 (AVX-512), 8 (AVX2) or 4 blocks of outputs, of neighbouring images where
the batch has as many and of one image's map where it has not: any batch is served, large ones best.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import check_same_device, check_tensor, dense
from hiddennet.ops.conv_checks import Pair, check_maps, check_sizes, last, output_shape
from hiddennet.ops.fakes import register_fake

_forward = torch.ops.hiddennet.sparse_conv_forward.default
_input_gradient = torch.ops.hiddennet.sparse_conv_input_gradient.default
_weight_gradient = torch.ops.hiddennet.sparse_conv_weight_gradient.default

MAX_TAPS = 4096  # csrc/ops/sparse_conv/sparse_conv.h


@register_fake("sparse_conv_forward")
def _(x, weight, stride, padding, dilation) -> Tensor:
    shape = output_shape(x.shape, weight.shape, stride, padding, dilation)
    return torch.empty(shape, dtype=torch.float32, device=x.device, memory_format=torch.channels_last)


@register_fake("sparse_conv_input_gradient")
def _(dy, weight, input_shape, stride, padding, dilation) -> Tensor:
    return torch.empty(input_shape, dtype=torch.float32, device=dy.device, memory_format=torch.channels_last)


@register_fake("sparse_conv_weight_gradient")
def _(x, dy, weight, stride, padding, dilation) -> Tensor:
    layout = torch.contiguous_format if weight.is_contiguous() else torch.channels_last
    return torch.empty(weight.shape, dtype=torch.float32, device=x.device, memory_format=layout)


def _check_weight(op: str, weight: Tensor, name: str, like: Tensor) -> None:
    check_tensor(op, "weight", weight, dtypes=(torch.float32,))
    check_same_device(op, "weight", weight, name, like)
    if weight.dim() == 4 and weight.shape[2] * weight.shape[3] > MAX_TAPS:
        raise ValueError(
            f"{op}: expected a kernel of at most {MAX_TAPS} taps, got {tuple(weight.shape[2:])}; use conv2d"
        )


def sparse_conv_forward(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Return `conv2d(x, weight)` over the entries of `weight` that are not zero.

    Lists of these are made in every call. Entries of one magnitude are added and subtracted, and multiplied by it at
    the end; others are multiplied one by one. Infinity and NaN in x spread through kept entries only; padding counts as
    zeros, by which an infinite weight gives NaN.

    Args:
        x: float32 (N, C, H, W), on a CPU; channels_last is fastest, others are copied there.
        weight: float32 (O, C, KH, KW), at most 4096 taps, contiguous or channels_last.
        stride, padding, dilation: of the layer, (vertical, horizontal).

    Returns:
        float32 (N, O, OH, OW), channels_last: the same bits on any number of threads. No gradient goes through.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "sparse_conv_forward"
    check_maps(op, "x", x)
    _check_weight(op, weight, "x", x)
    geometry = check_sizes(op, x.shape, weight.shape, (stride, padding, dilation))
    return _forward(last(x), dense(weight.detach()), *geometry)


def sparse_conv_input_gradient(
    dy: Tensor, weight: Tensor, input_shape: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Return the gradient of sparse_conv_forward's x, over the same entries.

    Args:
        dy: float32 (N, O, OH, OW), on a CPU.
        weight, stride, padding, dilation: of the forward.
        input_shape: of x.

    Returns:
        float32 of `input_shape`, channels_last: the same bits on any number of threads.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "sparse_conv_input_gradient"
    check_maps(op, "dy", dy)
    _check_weight(op, weight, "dy", dy)
    geometry = check_sizes(op, input_shape, weight.shape, (stride, padding, dilation), dy)
    return _input_gradient(last(dy), dense(weight.detach()), list(input_shape), *geometry)


def sparse_conv_weight_gradient(
    x: Tensor, dy: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Return the weight gradient where `weight` is not zero, and zero elsewhere: for masks that do not move.

    Numbers that are not finite in x or dy leave some that are not finite in the gradient, of neighbouring taps, too.

    Args:
        x, weight, stride, padding, dilation: of the forward.
        dy: float32 (N, O, OH, OW), on a CPU.

    Returns:
        float32 of the weight's shape and memory layout: the same bits on any number of threads.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "sparse_conv_weight_gradient"
    check_maps(op, "x", x)
    check_maps(op, "dy", dy, x)
    _check_weight(op, weight, "x", x)
    geometry = check_sizes(op, x.shape, weight.shape, (stride, padding, dilation), dy)
    return _weight_gradient(last(x), last(dy), dense(weight.detach()), *geometry)
