"""masked_conv2d, masked_linear: layers whose weight is made of a mask and a source on the way in.

A *plan* is one way to compute the same layer. The default is the fastest one known for the device and shape; every plan
can be forced by name and compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import check_choice, check_geometry
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.mask import Mask
from hiddennet.ops.masked_weight import (
    DTYPE_CODES,
    N_ARGUMENTS,
    MaskedWeight,
    checked_weight,
    effective_weight,
    part_gradients,
)
from hiddennet.ops.source import WeightSource

_forward = torch.ops.hiddennet.masked_conv_forward.default
_input_gradient = torch.ops.hiddennet.masked_conv_input_gradient.default

PLANS = {
    "effective_weight": "write the effective weight once, then torch's convolution (oneDNN, cuDNN)",
    "matmul": "a 1x1 kernel on a 1x1 map as a matrix product (oneDNN, cuBLAS)",
    "implicit_gemm": "CUDA, bfloat16: an implicit GEMM whose weight loader makes the masked weight",
}


@register_fake("masked_conv_forward")
def _(x, scores, selection, shape, *others) -> Tensor:
    stride, padding, dilation = others[-3:]
    size = [(x.shape[2 + d] + 2 * padding[d] - dilation[d] * (shape[2 + d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    out = (x.shape[0], shape[0], *size)
    return torch.empty(out, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@register_fake("masked_conv_input_gradient")
def _(dy, input_shape, *others) -> Tensor:
    return torch.empty(input_shape, dtype=dy.dtype, device=dy.device, memory_format=torch.channels_last)


class _ImplicitGemm(torch.autograd.Function):
    """Forward and input gradient by our kernel; the weight gradient by torch's, then straight through to the scores."""

    @staticmethod
    def forward(ctx, x, geometry, *parts):
        weight = MaskedWeight(*parts)
        weight.save(ctx, x)
        ctx.geometry = geometry
        return _forward(x, *weight[:N_ARGUMENTS], *geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        (x,), weight = MaskedWeight.saved(ctx)
        want_x, want_scores, want_stored = (ctx.needs_input_grad[i] for i in (0, 2, 11))
        dy = dy.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        dx = grad_scores = grad_stored = None
        if want_x:
            dx = _input_gradient(dy, list(x.shape), *weight[:N_ARGUMENTS], *ctx.geometry)
        if want_scores or want_stored:
            stride, padding, dilation = ctx.geometry
            like = dy.new_empty(()).expand(weight.shape)
            grad = torch.ops.aten.convolution_backward(
                dy, x, like, None, stride, padding, dilation, False, [0, 0], 1, [False, True, False]
            )[1]
            grad_scores, grad_stored = weight.gradients(grad, want_scores, want_stored)
        return dx, None, *part_gradients(grad_scores, grad_stored)


def _implicit_gemm(x: Tensor, weight: MaskedWeight, bias, geometry) -> Tensor:
    x = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = _ImplicitGemm.apply(x, geometry, *weight)
    return y if bias is None else y + bias.to(y.dtype).view(1, -1, 1, 1)


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def is_matmul(x: Tensor, shape: Sequence[int], stride: list[int], padding: list[int] | str, groups: int) -> bool:
    """Whether the convolution is a matrix product: a 1x1 kernel on a 1x1 map."""
    return (
        tuple(shape[2:]) == (1, 1)
        and tuple(x.shape[2:]) == (1, 1)
        and groups == 1
        and (padding == "valid" or (not isinstance(padding, str) and not any(padding)) or padding == "same")
    )


def default_plan(x: Tensor, shape: Sequence[int], stride, padding, dilation, groups: int) -> str:
    """The fastest plan known today for this input: "matmul" where it applies, else "effective_weight".

    On a GPU at training batch sizes the effective weight costs about 1 % of a step and feeds cuDNN; making weights
    inside the convolution is expected to pay only for weight-bound layers, so "implicit_gemm" is never the default yet.
    """
    return "matmul" if is_matmul(x, shape, stride, padding, groups) else "effective_weight"


def compute_dtype(op: str | None, x: Tensor) -> torch.dtype:
    """The dtype a layer computes in: autocast's where it is on, else the input's.

    op: raises TypeError in its name where the ops do not have the dtype.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{op or 'autocast'}: expected an input that is a Tensor, got {type(x).__name__}")
    dtype, device = x.dtype, x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if op is not None and dtype not in DTYPE_CODES:
        raise TypeError(f"{op}: expected an input of dtype float32, bfloat16 or float16, got {dtype}")
    return dtype


def _check_plan(op: str, plan: str, x: Tensor, shape: Sequence[int], stride, padding, groups: int) -> None:
    check_choice(op, "plan", plan, tuple(PLANS))
    if plan == "matmul" and not is_matmul(x, shape, stride, padding, groups):
        raise ValueError(f"{op}: expected a 1x1 kernel on a 1x1 map for plan 'matmul', got input {tuple(x.shape)}")
    if plan == "implicit_gemm":
        if x.device.type not in ("cuda", "meta"):
            raise ValueError(f"{op}: expected a CUDA input for plan 'implicit_gemm', got {x.device}")
        if groups != 1 or isinstance(padding, str):
            raise ValueError(f"{op}: expected groups=1 and padding in numbers for plan 'implicit_gemm'")


def conv2d(x: Tensor, weight: MaskedWeight, bias, stride, padding, dilation, groups: int, plan: str | None) -> Tensor:
    """masked_conv2d without the checks of its parts: for layers. stride, padding, dilation: pairs, or a name."""
    op, shape = "masked_conv2d", weight.shape
    dtype = compute_dtype(op, x)
    if x.layout is not torch.strided or x.is_nested:
        raise TypeError(f"{op}: expected a dense input, got a nested one or layout {x.layout}; use .to_dense()")
    check_geometry(op, stride, padding, dilation)
    if plan is None:
        plan = default_plan(x, shape, stride, padding, dilation, groups)
    else:
        _check_plan(op, plan, x, shape, stride, padding, groups)
    if plan == "implicit_gemm":
        return _implicit_gemm(x, weight, bias, (stride, padding, dilation))
    made = effective_weight(weight, dtype)
    if plan == "matmul":
        return F.linear(x.flatten(1), made.flatten(1), bias)[:, :, None, None]
    return F.conv2d(x, made, bias, stride, padding, dilation, groups)


def linear(x: Tensor, weight: MaskedWeight, bias: Tensor | None) -> Tensor:
    """masked_linear without the checks of its parts: for layers."""
    return F.linear(x, effective_weight(weight, compute_dtype("masked_linear", x)), bias)


def masked_conv2d(
    x: Tensor,
    scores: Tensor | None,
    k: int | Mask,
    *,
    source: WeightSource,
    by: str = "magnitude",
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    plan: str | None = None,
) -> Tensor:
    """Convolve with the effective weight. Equivalent to `F.conv2d(x, masked_weight(scores, k, source=source), ...)`.

    Args:
        x: [N, C, H, W] (or unbatched [C, H, W]); float32, bfloat16 or float16; under autocast its dtype.
        scores, k, source, by: as in masked_weight; the weight is [out, C / groups, KH, KW].
        plan: a name of hiddennet.ops.PLANS, or None for the fastest known.

    Raises:
        TypeError, ValueError: as in masked_weight; a plan that does not serve this input.
    """
    op = "masked_conv2d"
    weight = checked_weight(op, scores, k, by, source)
    if len(source.shape) != 4:
        raise ValueError(f"{op}: expected a weight of 4 dimensions, got shape {tuple(source.shape)}")
    padding = padding if isinstance(padding, str) else _pair(padding)
    return conv2d(x, weight, bias, _pair(stride), padding, _pair(dilation), groups, plan)


def masked_linear(
    x: Tensor,
    scores: Tensor | None,
    k: int | Mask,
    *,
    source: WeightSource,
    by: str = "magnitude",
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply by the effective weight. Equivalent to `F.linear(x, masked_weight(scores, k, source=source), bias)`.

    Args:
        x: [..., in]; float32, bfloat16 or float16; under autocast its dtype.
        scores, k, source, by: as in masked_weight; the weight is [out, in].

    Raises:
        TypeError, ValueError: as in masked_weight.
    """
    op = "masked_linear"
    weight = checked_weight(op, scores, k, by, source)
    if len(source.shape) != 2:
        raise ValueError(f"{op}: expected a weight of 2 dimensions, got shape {tuple(source.shape)}")
    return linear(x, weight, bias)
