"""psg_conv2d, psg_linear: exact layers whose weight gradient is made of low-bit codes. E2-Train, as Peek-a-Boo has it.

With W the weight, x the input and dY the gradient of the output: Y and dX are exact; the weight's gradient is
  Gq = the gradient of quantize(x) and quantize(dY),  L = |Gq| >= threshold [x max|Gq|]
  dW = Gq where L, else 0 (sparsify) or the exact gradient; its sign alone with `sign`.
What is kept for the backward: see psg_function.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops.checked_weight import _pair
from hiddennet.ops.checks import check_geometry, check_same_device, check_tensor
from hiddennet.ops.code_gradient import LINEAR, Geometry, PSGConfig
from hiddennet.ops.masked_conv import compute_dtype, is_matmul
from hiddennet.ops.masked_weight import MaskedWeight
from hiddennet.ops.psg_function import HiddenPSG, PlainPSG, saves_input
from hiddennet.ops.quantize import FUSED


def _settings(x: Tensor, config: PSGConfig, signed: bool, geometry: Geometry) -> tuple:
    dtype = x.dtype if x.dtype == torch.float64 else compute_dtype(None, x)
    return config, signed, geometry, saves_input(x, config), dtype


def _geometry(x: Tensor, shape, stride, padding, dilation, groups: int) -> tuple[Tensor, Geometry]:
    """The input as a batch, and the numbers; a padding that differs on two sides is added to the input."""
    stride, dilation = _pair(stride), _pair(dilation)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, shape[2:], strict=True)]
        if any(t % 2 for t in total):
            x = F.pad(x, (0, total[1] % 2, 0, total[0] % 2))
        padding = [t // 2 for t in total]
    padding = _pair(padding)
    check_geometry("psg_conv2d", stride, padding, dilation)
    if is_matmul(x, shape, stride, padding, groups):
        return x.flatten(1), LINEAR
    return x, (stride, padding, dilation, groups)


def _as_images(y: Tensor, geometry: Geometry) -> Tensor:
    return y[:, :, None, None] if geometry == LINEAR else y


def hidden_conv2d(x: Tensor, weight: MaskedWeight, bias, numbers: tuple, config: PSGConfig, signed: bool) -> Tensor:
    """masked_conv2d with PSG's gradient, without checks: for layers in training. numbers: stride to groups."""
    if x.dim() == 3:
        return hidden_conv2d(x[None], weight, bias, numbers, config, signed)[0]
    x, geometry = _geometry(x, weight.shape, *numbers)
    return _as_images(hidden_linear(x, weight, bias, config, signed, geometry), geometry)


def hidden_linear(x: Tensor, weight: MaskedWeight, bias, config: PSGConfig, signed: bool, geometry=LINEAR) -> Tensor:
    """masked_linear with PSG's gradient, without checks: for layers in training."""
    compute_dtype("psg", x)
    return HiddenPSG.apply(x, bias, _settings(x, config, signed, geometry), *weight)


def _check(op: str, x: Tensor, weight: Tensor, bias: Tensor | None, config: PSGConfig, signed: bool, dims: int) -> None:
    if not isinstance(config, PSGConfig):
        raise TypeError(f"{op}: expected config to be a PSGConfig, got {type(config).__name__}")
    if not isinstance(signed, bool):
        raise TypeError(f"{op}: expected input_signed to be a bool, got {signed!r}")
    allowed = (*FUSED, torch.float64)
    for name, t in (("x", x), ("weight", weight)) if bias is None else (("x", x), ("weight", weight), ("bias", bias)):
        check_tensor(op, name, t, dtypes=allowed)
        check_same_device(op, name, t, "x", x)
    if weight.dim() != dims:
        raise ValueError(f"{op}: expected a weight of {dims} dimensions, got shape {tuple(weight.shape)}")
    if weight.dtype != x.dtype and compute_dtype(None, x) == x.dtype:
        raise TypeError(f"{op}: expected weight of dtype {x.dtype} like x, got {weight.dtype}; use .to() or autocast")


def _learns(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))


def psg_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    config: PSGConfig,
    input_signed: bool = False,
) -> Tensor:
    """torch.nn.functional.conv2d, whose weight gets PSG's gradient (see this file's head).

    Output, the gradient of x and that of the bias are exact. The statistics are of this call's batch alone. Under
    autocast all is computed in its dtype, codes are taken of tensors in that dtype, and the weight's gradient is made
    in float32. A second backward through a kept graph gives the same gradients; a gradient of the gradient is refused.

    Args:
        x: [N, C, H, W] or [C, H, W]; float32, bfloat16, float16 (codes by integer kernels), or float64 (quantised
            values in float64). weight: [out, C / groups, KH, KW]. The others are torch's.
        config: bits, threshold and what becomes of elements below it.
        input_signed: whether x has negative values; where it is False they count as 0 in the weight's gradient.

    Raises:
        TypeError, ValueError: config or tensors that do not fit.
    """
    op = "psg_conv2d"
    _check(op, x, weight, bias, config, input_signed, 4)
    if not _learns(x, weight, bias):
        check_geometry(op, _pair(stride), padding if isinstance(padding, str) else _pair(padding), _pair(dilation))
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if x.dim() == 3:
        numbers = (stride, padding, dilation, groups)
        return psg_conv2d(x[None], weight, bias, *numbers, config=config, input_signed=input_signed)[0]
    if x.dim() != 4 or x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"{op}: expected x of {weight.shape[1] * groups} channels, [N, C, H, W], got shape {tuple(x.shape)}"
        )
    x, geometry = _geometry(x, weight.shape, stride, padding, dilation, groups)
    return _as_images(PlainPSG.apply(x, weight, bias, _settings(x, config, input_signed, geometry)), geometry)


def psg_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    config: PSGConfig,
    input_signed: bool = False,
) -> Tensor:
    """torch.nn.functional.linear, whose weight gets PSG's gradient: as psg_conv2d of 1x1 maps.

    Args:
        x: [..., in]; dtypes as in psg_conv2d; samples are along the first dimension. weight: [out, in].
        config, input_signed: as in psg_conv2d.

    Raises:
        TypeError, ValueError: config or tensors that do not fit.
    """
    op = "psg_linear"
    _check(op, x, weight, bias, config, input_signed, 2)
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{op}: expected x of {weight.shape[1]} features, [..., in], got shape {tuple(x.shape)}")
    if not _learns(x, weight, bias):
        return F.linear(x, weight, bias)
    if x.dim() == 1:
        return psg_linear(x[None], weight, bias, config=config, input_signed=input_signed)[0]
    return PlainPSG.apply(x, weight, bias, _settings(x, config, input_signed, LINEAR))
