"""masked_conv2d, masked_linear: layers whose weight is made by a rule and a source on the way in.

A *plan* is one way to compute the same layer. The default is the fastest one known for the device and shape; every plan
can be forced by name and compared.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import check_choice, in_layout
from hiddennet.ops.masked_weight import (
    DTYPE_CODES,
    _masked_weight_backward,
    effective_weight,
    in_one_layout,
    layout_of,
    resolve_rule,
)
from hiddennet.ops.rule import Rule
from hiddennet.ops.source import WeightSource

_forward = torch.ops.hiddennet.masked_conv_forward.default
_input_gradient = torch.ops.hiddennet.masked_conv_input_gradient.default

PLANS = {
    "effective_weight": "write the effective weight once, then torch's convolution (oneDNN, cuDNN)",
    "matmul": "a 1x1 kernel on a 1x1 map as a matrix product (oneDNN, cuBLAS)",
    "implicit_gemm": "CUDA, bfloat16: an implicit GEMM whose weight loader makes the masked weight",
}


@torch.library.register_fake("hiddennet::masked_conv_forward")
def _(
    x, scores, selection, shape, channels_last, rule, bits, step, rule_seed,
    source, stored, plane, scale, seed, layer, redraw, stride, padding, dilation,
) -> Tensor:  # fmt: skip
    size = [(x.shape[2 + d] + 2 * padding[d] - dilation[d] * (shape[2 + d] - 1) - 1) // stride[d] + 1 for d in range(2)]
    out = (x.shape[0], shape[0], *size)
    return torch.empty(out, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.register_fake("hiddennet::masked_conv_input_gradient")
def _(
    dy, input_shape, scores, selection, shape, channels_last, rule, bits, step, rule_seed,
    source, stored, plane, scale, seed, layer, redraw, stride, padding, dilation,
) -> Tensor:  # fmt: skip
    return torch.empty(input_shape, dtype=dy.dtype, device=dy.device, memory_format=torch.channels_last)


class _ImplicitGemm(torch.autograd.Function):
    """Forward and input gradient by our kernel; the weight gradient by torch's, then straight through to the scores."""

    @staticmethod
    def forward(ctx, x, scores, stored, selection, bits, step, plane, shape, rule, source, geometry):
        ctx.channels_last = layout_of(scores, stored)
        ctx.save_for_backward(x, scores, stored, selection, bits, step, plane)
        ctx.shape, ctx.rule, ctx.source, ctx.geometry = shape, rule, source, geometry
        rule_code, rule_seed = rule
        return _forward(
            x, scores, selection, shape, ctx.channels_last, rule_code, bits, step, rule_seed,
            source[0], stored, plane, *source[1:5], *geometry,
        )  # fmt: skip

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, scores, stored, selection, bits, step, plane = ctx.saved_tensors
        rule_code, rule_seed = ctx.rule
        through = ctx.source[5]
        dy = dy.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        rule = (rule_code, bits, step, rule_seed)
        source = (ctx.source[0], stored, plane, *ctx.source[1:5])
        dx = grad_scores = grad_weight = None
        if ctx.needs_input_grad[0]:
            dx = _input_gradient(
                dy, list(x.shape), scores, selection, ctx.shape, ctx.channels_last, *rule, *source, *ctx.geometry
            )
        want_scores, want_weight = ctx.needs_input_grad[1], ctx.needs_input_grad[2]
        if want_scores or want_weight:
            stride, padding, dilation = ctx.geometry
            weight_like = dy.new_empty(()).expand(ctx.shape)
            grad = torch.ops.aten.convolution_backward(
                dy, x, weight_like, None, stride, padding, dilation, False, [0, 0], 1, [False, True, False]
            )[1]
            grad = in_layout(grad, ctx.channels_last)
            masked = want_weight and not through
            if want_scores or masked:
                grad_scores, grad_weight = _masked_weight_backward(
                    grad, scores, selection, ctx.channels_last, *rule, *source, want_scores, masked
                )
            if want_weight and through:
                grad_weight = grad.to(torch.float32)
        return (
            dx,
            grad_scores if want_scores else None,
            grad_weight if want_weight else None,
            *(None,) * 8,
        )


def _implicit_gemm(x: Tensor, scores, rule: Rule, source: WeightSource, bias, geometry) -> Tensor:
    scores, stored = in_one_layout(scores if rule.reads_scores else None, source.stored)
    rule_code, bits, step, rule_seed = rule.arguments()
    source_code, _, plane, scale, seed, layer, redraw = source.arguments()
    y = _ImplicitGemm.apply(
        x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last),
        scores,
        stored,
        rule.selection,
        bits,
        step,
        plane,
        list(source.shape),
        (rule_code, rule_seed),
        (source_code, scale, seed, layer, redraw, source.through),
        geometry,
    )
    return y if bias is None else y + bias.to(y.dtype).view(1, -1, 1, 1)


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def is_matmul(x: Tensor, shape: torch.Size, stride: list[int], padding: list[int] | str, groups: int) -> bool:
    """Whether the convolution is a matrix product: a 1x1 kernel on a 1x1 map."""
    return (
        tuple(shape[2:]) == (1, 1)
        and tuple(x.shape[2:]) == (1, 1)
        and groups == 1
        and (padding == "valid" or (not isinstance(padding, str) and not any(padding)) or padding == "same")
    )


def default_plan(x: Tensor, source: WeightSource, stride, padding, dilation, groups: int) -> str:
    """The fastest plan known today for this input: "matmul" where it applies, else "effective_weight".

    On a GPU at training batch sizes the effective weight costs about 1 % of a step and feeds cuDNN; making weights
    inside the convolution is expected to pay only for weight-bound layers, so "implicit_gemm" is never the default yet.
    """
    return "matmul" if is_matmul(x, source.shape, stride, padding, groups) else "effective_weight"


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype a layer computes in: autocast's where it is on, else the input's."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _check_plan(op: str, plan: str, x: Tensor, source: WeightSource, stride, padding, dilation, groups: int) -> None:
    check_choice(op, "plan", plan, tuple(PLANS))
    if plan == "matmul" and not is_matmul(x, source.shape, stride, padding, groups):
        raise ValueError(f"{op}: expected a 1x1 kernel on a 1x1 map for plan 'matmul', got input {tuple(x.shape)}")
    if plan == "implicit_gemm":
        if x.device.type not in ("cuda", "meta"):
            raise ValueError(f"{op}: expected a CUDA input for plan 'implicit_gemm', got {x.device}")
        if groups != 1 or isinstance(padding, str):
            raise ValueError(f"{op}: expected groups=1 and padding in numbers for plan 'implicit_gemm'")


def conv2d(x, scores, rule, source, bias, stride, padding, dilation, groups, plan) -> Tensor:
    """masked_conv2d without the checks of its parts: for layers."""
    op = "masked_conv2d"
    stride, dilation = _pair(stride), _pair(dilation)
    padding = padding if isinstance(padding, str) else _pair(padding)
    if plan is None:
        plan = default_plan(x, source, stride, padding, dilation, groups)
    else:
        _check_plan(op, plan, x, source, stride, padding, dilation, groups)
    if plan == "implicit_gemm":
        return _implicit_gemm(x, scores, rule, source, bias, (stride, padding, dilation))
    dtype = compute_dtype(x)
    if dtype not in DTYPE_CODES:
        raise TypeError(f"{op}: expected an input of dtype float32, bfloat16 or float16, got {dtype}")
    weight = effective_weight(scores, rule, source, dtype)
    if plan == "matmul":
        return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def linear(x, scores, rule, source, bias) -> Tensor:
    """masked_linear without the checks of its parts: for layers."""
    dtype = compute_dtype(x)
    if dtype not in DTYPE_CODES:
        raise TypeError(f"masked_linear: expected an input of dtype float32, bfloat16 or float16, got {dtype}")
    return F.linear(x, effective_weight(scores, rule, source, dtype), bias)


def masked_conv2d(
    x: Tensor,
    scores: Tensor | None,
    k: int | Rule,
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
    rule = resolve_rule(op, scores, k, by, source)
    if len(source.shape) != 4:
        raise ValueError(f"{op}: expected a weight of 4 dimensions, got shape {tuple(source.shape)}")
    return conv2d(x, scores, rule, source, bias, stride, padding, dilation, groups, plan)


def masked_linear(
    x: Tensor,
    scores: Tensor | None,
    k: int | Rule,
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
    rule = resolve_rule(op, scores, k, by, source)
    if len(source.shape) != 2:
        raise ValueError(f"{op}: expected a weight of 2 dimensions, got shape {tuple(source.shape)}")
    return linear(x, scores, rule, source, bias)
