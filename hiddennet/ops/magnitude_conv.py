"""magnitude_conv: one float64 image through a convolution by the magnitudes of masked weights; and SynFlow's scores.

On a CPU alone: on a GPU SynFlow is a captured graph of torch's operations in float64.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet.ops.checks import check_geometry, check_plane, check_same_device, check_tensor
from hiddennet.ops.conv_checks import Pair, output_shape
from hiddennet.ops.fakes import register_fake

_forward = torch.ops.hiddennet.magnitude_conv.default
_backward = torch.ops.hiddennet.magnitude_conv_backward_.default
_slopes = torch.ops.hiddennet.magnitude_conv_slopes.default


def _output(x: Tensor, shape: Sequence[int], *geometry: Pair) -> list[int]:
    return output_shape((1, *x.shape), shape, *geometry)[1:]


@register_fake("magnitude_conv")
def _(x, weight, bits, stride, padding, dilation) -> Tensor:
    return x.new_empty(_output(x, weight.shape, stride, padding, dilation))


@register_fake("magnitude_conv_backward_")
def _(x, dy, weight, bits, scores, accumulate, want_dx, stride, padding, dilation) -> Tensor:
    return torch.empty_like(x) if want_dx else x.new_empty(0)


@register_fake("magnitude_conv_slopes")
def _(x, dy, shape, places, stride, padding, dilation) -> Tensor:
    return x.new_empty(places.numel())


def _check(op: str, x: Tensor, shape: Sequence[int], dy: Tensor | None, *geometry: Pair) -> list[list[int]]:
    """The image, the sizes of the layer, and the gradient of its output."""
    check_tensor(op, "x", x, dtypes=(torch.float64,))
    if x.device.type == "cuda":
        raise ValueError(f"{op}: expected tensors on a CPU, got {x.device}; a GPU has torch.nn.functional.conv2d")
    if x.dim() != 3 or len(shape) != 4 or x.shape[0] != shape[1]:
        raise ValueError(
            f"{op}: expected x of shape (C, H, W) and a weight of shape (O, C, KH, KW), "
            f"got {tuple(x.shape)} and {tuple(shape)}"
        )
    if x.numel() == 0 or min(shape) < 1:
        raise ValueError(f"{op}: expected x and weight that are not empty, got {tuple(x.shape)} and {tuple(shape)}")
    check_geometry(op, *geometry)
    want = _output(x, shape, *geometry)
    if min(want[1:]) < 1:
        raise ValueError(f"{op}: expected an image at least as large as the kernel, got {tuple(x.shape)}")
    if dy is not None:
        check_tensor(op, "dy", dy, dtypes=(torch.float64,))
        check_same_device(op, "dy", dy, "x", x)
        if list(dy.shape) != want:
            raise ValueError(f"{op}: expected dy of shape {tuple(want)}, got {tuple(dy.shape)}")
    return list(map(list, geometry))


def _check_weight(op: str, weight: Tensor, bits: Tensor, x: Tensor) -> None:
    check_tensor(op, "weight", weight, dtypes=(torch.float32,))
    check_same_device(op, "weight", weight, "x", x)
    if not weight.is_contiguous():
        raise ValueError(f"{op}: expected a contiguous weight, got strides {weight.stride()}; call .contiguous()")
    check_plane(op, "bits", bits, weight, other="weight")


def magnitude_conv(
    x: Tensor,
    weight: Tensor,
    bits: Tensor,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """Return `conv2d(x, m)` of one image in float64, m = |weight| where its bit is set, else 0; no copy of m is made.

    Args:
        x: float64 (C, H, W), on a CPU.
        weight: float32 (O, C, KH, KW), contiguous.
        bits: uint8 [ceil(n / 8)] as pack_mask makes it.
        stride, padding, dilation: of the layer, (vertical, horizontal).

    Returns:
        float64 (O, OH, OW): the same bits on any number of threads and every instruction set. No gradient goes through.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "magnitude_conv"
    check_tensor(op, "weight", weight, dtypes=(torch.float32,))
    geometry = _check(op, x, weight.shape, None, stride, padding, dilation)
    _check_weight(op, weight, bits, x)
    with torch.no_grad():
        return _forward(x.contiguous(), weight, bits, *geometry)


def magnitude_conv_backward_(
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    bits: Tensor,
    scores: Tensor,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    accumulate: bool = False,
    want_dx: bool = True,
) -> Tensor | None:
    """Return the gradient of x through magnitude_conv, and write m dR/dm, SynFlow's scores (Tanaka et al. 2020).

    The gradient is float64. Scores are products of x and dy rounded to float32 (dy after its sum over positions that
    see equal patches), summed in float32: for numbers that are not negative their relative error is below
    (P + 4) 2^-24 for P <= 256 positions of the output, and below (260 + P / 256) 2^-24 for more.

    Args:
        x, weight, bits, stride, padding, dilation: of the forward.
        dy: float64 (O, OH, OW), on a CPU.
        scores: float32, contiguous, of the weight's shape: written in full.
        accumulate: add to `scores` what they hold, for a layer that is used more than once.
        want_dx: whether the gradient of x is wanted.

    Returns:
        float64 of x's shape, or None.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "magnitude_conv_backward_"
    check_tensor(op, "weight", weight, dtypes=(torch.float32,))
    geometry = _check(op, x, weight.shape, dy, stride, padding, dilation)
    _check_weight(op, weight, bits, x)
    check_tensor(op, "scores", scores, dtypes=(torch.float32,))
    check_same_device(op, "scores", scores, "x", x)
    if scores.shape != weight.shape or not scores.is_contiguous():
        raise ValueError(
            f"{op}: expected contiguous scores of shape {tuple(weight.shape)}, got {tuple(scores.shape)} "
            f"with strides {scores.stride()}"
        )
    with torch.no_grad():
        dx = _backward(
            x.contiguous(), dy.contiguous(), weight, bits, scores, bool(accumulate), bool(want_dx), *geometry
        )
    return dx if want_dx else None


def magnitude_conv_slopes(
    x: Tensor,
    dy: Tensor,
    shape: Sequence[int],
    places: Tensor,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """Return single entries of the gradient of m in float64: magnitude_conv_backward_'s scores are m times it, rounded.

    Args:
        x, dy, stride, padding, dilation: as there.
        shape: of the weight.
        places: int64 (n,), flat places in the weight.

    Returns:
        float64 (n,).

    Raises:
        TypeError, ValueError: anything outside what is said above; RuntimeError for places outside the weight.
    """
    op = "magnitude_conv_slopes"
    geometry = _check(op, x, shape, dy, stride, padding, dilation)
    check_tensor(op, "places", places, dtypes=(torch.int64,))
    check_same_device(op, "places", places, "x", x)
    if places.dim() != 1:
        raise ValueError(f"{op}: expected places of 1 dimension, got {places.dim()}")
    with torch.no_grad():
        return _slopes(x.contiguous(), dy.contiguous(), list(shape), places.contiguous(), *geometry)
