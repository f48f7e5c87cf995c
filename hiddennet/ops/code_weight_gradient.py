"""code_weight_gradient: the exact weight gradient of a convolution or linear layer from low-bit integer codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import check_same_device, check_tensor
from hiddennet.ops.fakes import register_fake

_code_weight_gradient = torch.ops.hiddennet.code_weight_gradient.default

INPUT_CODES = (torch.uint8, torch.int8, torch.int16, torch.int32)
GRADIENT_CODES = (torch.int8, torch.int16)


@register_fake("code_weight_gradient")
def _(
    input, gradient, input_delta, gradient_delta, shape, stride, padding, dilation, groups, channels_last
) -> tuple[Tensor, Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    dw = torch.empty(shape, dtype=torch.float32, device=input.device, memory_format=layout)
    return dw, torch.empty(1, dtype=torch.float32, device=input.device)


def _pair(op: str, name: str, value: int | Sequence[int], least: int) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= least for v in pair):
        raise ValueError(f"{op}: expected {name} to be one or two ints >= {least}, got {value!r}")
    return pair


def _check_geometry(op: str, x: Tensor, g: Tensor, shape, stride, padding, dilation, groups: int) -> None:
    out, channels, *kernel = shape
    if groups < 1 or out % groups:
        raise ValueError(f"{op}: expected output channels in multiples of the groups, got {out} in {groups} groups")
    if x.shape[1] != channels * groups:
        raise ValueError(f"{op}: expected input codes of {channels * groups} channels, got {x.shape[1]}")
    size = []
    for d in range(2):
        span = x.shape[2 + d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1
        if span < 0:
            raise ValueError(f"{op}: expected an input at least as large as the kernel, got {tuple(x.shape[2:])}")
        size.append(span // stride[d] + 1)
    want = (x.shape[0], out, *size)
    if tuple(g.shape) != want:
        raise ValueError(f"{op}: expected gradient codes of shape {want}, got {tuple(g.shape)}")


def code_weight_gradient(
    input: Tensor,
    gradient: Tensor,
    input_delta: Tensor,
    gradient_delta: Tensor,
    shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    channels_last: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the weight gradient of a convolution, exact up to one rounding, and its largest magnitude.

    A code c stands for c * delta. The sum of products of codes is an exact integer; it is multiplied by
    input_delta * gradient_delta in double and rounded to float32. All devices give the same bits and none is waited
    for. PSG (E2-Train, arXiv 1910.13349) thresholds it against its largest magnitude. Equivalent to, rounded once:
    `torch.nn.grad.conv2d_weight(input * input_delta, shape, gradient * gradient_delta, stride, padding, ...)`.

    Args:
        input: codes [N, C, H, W], or [N, C] of a linear layer: uint8, int8, int16, or int32 that holds unsigned codes
            of at most 16 bits (the values are not looked at; others give wrong sums).
        gradient: codes of the output's gradient, [N, O, OH, OW] or [N, O]: int8 or int16.
        input_delta, gradient_delta: float32 [1] on the codes' device.
        shape: of the weight, (O, C / groups, KH, KW) or (O, C).
        stride, padding, dilation, groups: of the layer.
        channels_last: whether the result's memory is OHWI.

        Codes are fastest in channels_last; others are copied there first.

    Returns:
        float32 of `shape`, and float32 [1]: max |dW|. Both zero where there is no pixel.

    Raises:
        TypeError, ValueError: anything outside what is said above.
    """
    op = "code_weight_gradient"
    check_tensor(op, "input codes", input, dtypes=INPUT_CODES)
    check_tensor(op, "gradient codes", gradient, dtypes=GRADIENT_CODES)
    check_same_device(op, "gradient codes", gradient, "the input codes", input)
    for name, delta in (("input_delta", input_delta), ("gradient_delta", gradient_delta)):
        check_tensor(op, name, delta, dtypes=(torch.float32,))
        check_same_device(op, name, delta, "the input codes", input)
        if delta.numel() != 1:
            raise ValueError(f"{op}: expected {name} of 1 element, got {delta.numel()}")
    shape = list(shape)
    if len(shape) not in (2, 4) or not input.dim() == gradient.dim() == len(shape):
        dims = f"{input.dim()}-d and {gradient.dim()}-d codes for a {len(shape)}-d weight"
        raise ValueError(f"{op}: expected codes and weight of 4 dimensions, or of 2 for a linear layer, got {dims}")
    linear = len(shape) == 2
    if linear:
        if channels_last:
            raise ValueError(f"{op}: expected channels_last=False for a weight of 2 dimensions, got True")
        input, gradient = (t.reshape(*t.shape, 1, 1) for t in (input, gradient))
    pairs = _pair(op, "stride", stride, 1), _pair(op, "padding", padding, 0), _pair(op, "dilation", dilation, 1)
    _check_geometry(op, input, gradient, (*shape, 1, 1)[:4], *pairs, groups)
    dw, largest = _code_weight_gradient(
        input.detach().contiguous(memory_format=torch.channels_last),
        gradient.detach().contiguous(memory_format=torch.channels_last),
        input_delta.detach(),
        gradient_delta.detach(),
        [*shape, 1, 1][:4],
        *pairs,
        groups,
        channels_last,
    )
    return (dw.view(shape) if linear else dw), largest
