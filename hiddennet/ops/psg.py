"""psg_conv2d, psg_linear: exact layers whose weight gradient is made of low-bit codes. E2-Train, as Peek-a-Boo has it.

With W the weight, x the input and dY the gradient of the output: Y and dX are exact; the weight's gradient is
  Gq = the gradient of quantize(x) and quantize(dY),  L = |Gq| >= threshold [x max|Gq|]
  dW = Gq where L, else 0 (sparsify) or the exact gradient; its sign alone with `sign`.

What is kept for the backward: x itself where something else keeps it alive (it is a leaf, or the result of an op whose
own backward reads its result, as ReLU's does), or where the exact gradient needs it; otherwise its codes, a byte an
element, and their step. Compiled code keeps codes. A masked weight is made again, as in masked_conv2d.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops.checks import check_same_device, check_tensor, is_channels_last
from hiddennet.ops.code_gradient import LINEAR, Geometry, input_codes, weight_gradient
from hiddennet.ops.masked_conv import _pair, compute_dtype, is_matmul
from hiddennet.ops.masked_weight import DTYPE_CODES, _masked_weight, _masked_weight_backward, in_one_layout, layout_of
from hiddennet.ops.psg_config import PSGConfig
from hiddennet.ops.quantize import EXACT_BITS, FUSED
from hiddennet.ops.rule import Rule
from hiddennet.ops.source import WeightSource

# autograd nodes that save their result, and those that only show it in another shape
_SAVE_RESULT = ("ReluBackward", "SigmoidBackward", "TanhBackward")
_VIEWS = ("ViewBackward", "UnsafeViewBackward", "ReshapeAliasBackward", "UnsqueezeBackward", "SqueezeBackward")


def kept_alive(x: Tensor) -> bool:
    """Whether x lives until the backward whether we save it or not: see this file's head."""
    node = x.grad_fn
    while node is not None and node.name().startswith(_VIEWS):
        node = node.next_functions[0][0]
    return node is None or node.name().startswith(_SAVE_RESULT) or hasattr(node, "variable")


def _saves_input(x: Tensor, config: PSGConfig) -> bool:
    if config.input_bits == EXACT_BITS or not config.sparsify or x.dtype not in FUSED:
        return True
    return not torch.compiler.is_compiling() and kept_alive(x)


def _apply(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    if bias is not None:
        bias = bias.to(x.dtype)
    if geometry == LINEAR:
        return F.linear(x, weight.flatten(1), bias)
    return F.conv2d(x, weight, bias, *geometry)


def _input_gradient(ctx, dy: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    if geometry == LINEAR:
        return dy @ weight.flatten(1)
    layout = torch.channels_last if ctx.input_last else torch.contiguous_format
    x = torch.empty(ctx.input_shape, dtype=dy.dtype, device=dy.device, memory_format=layout)  # its values are not read
    return torch.ops.aten.convolution_backward(
        dy, x, weight, None, *geometry[:3], False, [0, 0], geometry[3], [True, False, False]
    )[0]


def _forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, learns: bool, settings: tuple) -> tuple:
    """The output, and what to save for the weight's gradient: (x, None, None), (None, codes, delta) or nothing."""
    config, signed, geometry, save_input, dtype = settings
    ctx.settings, ctx.input_shape, ctx.input_dtype = settings, x.shape, x.dtype
    ctx.input_last = is_channels_last(x)
    ctx.bias_dtype = None if bias is None else bias.dtype
    cast = x.to(dtype)
    saved = (None, None, None)
    if learns:
        saved = (x, None, None) if save_input else (None, *input_codes(cast, config, signed, geometry))
    return _apply(cast, weight, bias, geometry), saved


def _gradients(
    ctx, dy: Tensor, saved: tuple, weight: Tensor | None, shape: list[int] | None, channels_last: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(dX if a weight is given, dW before the mask if a shape is, the gradient of the bias)."""
    config, signed, geometry, _, dtype = ctx.settings
    x, codes, delta = saved
    dy = dy.to(dtype)
    dx = grad = grad_bias = None
    if weight is not None:
        dx = _input_gradient(ctx, dy, weight, geometry).to(ctx.input_dtype)
    if shape is not None:
        pair = None if codes is None else (codes, delta)
        cast = None if x is None else x.to(dtype)
        flat = shape[:2] if geometry == LINEAR else shape
        grad = weight_gradient(cast, pair, dy, config, signed, flat, geometry, channels_last and geometry != LINEAR)
        grad = grad.view(shape)
    if ctx.bias_dtype is not None:
        over = tuple(range(dy.dim() - 1)) if geometry == LINEAR else (0, 2, 3)
        grad_bias = dy.sum(over, dtype=torch.float32 if dtype in FUSED else dtype).to(ctx.bias_dtype)
    return dx, grad, grad_bias


class _PlainPSG(torch.autograd.Function):
    """A layer whose weight is a tensor. Saves it, and x or its codes."""

    @staticmethod
    def forward(ctx, x, weight, bias, settings):
        y, saved = _forward(ctx, x, weight.to(settings[-1]), bias, ctx.needs_input_grad[1], settings)
        ctx.save_for_backward(*saved, weight)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        *saved, weight = ctx.saved_tensors
        w = weight.to(ctx.settings[-1]) if ctx.needs_input_grad[0] else None
        shape = list(weight.shape) if ctx.needs_input_grad[1] else None
        dx, grad, grad_bias = _gradients(ctx, dy, saved, w, shape, is_channels_last(weight))
        return dx, None if grad is None else grad.to(weight.dtype), grad_bias, None


class _HiddenPSG(torch.autograd.Function):
    """A layer whose weight a rule and a source make. Saves their parts, which exist anyway, and x or its codes."""

    @staticmethod
    def _weight(ctx, scores, stored, selection, bits, step, plane, dtype):
        rule_code, rule_seed = ctx.rule
        source_code, scale, seed, layer, redraw, _ = ctx.source
        return _masked_weight(
            scores, selection, ctx.shape, ctx.channels_last, rule_code, bits, step, rule_seed,
            source_code, stored, plane, scale, seed, layer, redraw, DTYPE_CODES[dtype],
        )  # fmt: skip

    @staticmethod
    def forward(ctx, x, bias, scores, stored, selection, bits, step, plane, shape, rule, source, settings):
        ctx.shape, ctx.rule, ctx.source = shape, rule, source
        ctx.channels_last = layout_of(scores, stored)
        parts = (scores, stored, selection, bits, step, plane)
        weight = _HiddenPSG._weight(ctx, *parts, settings[-1])
        learns = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        y, saved = _forward(ctx, x, weight, bias, learns, settings)
        ctx.save_for_backward(*saved, *parts)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, codes, delta, *parts = ctx.saved_tensors
        want_x, _, want_scores, want_stored = ctx.needs_input_grad[:4]
        weight = _HiddenPSG._weight(ctx, *parts, ctx.settings[-1]) if want_x else None
        shape = list(ctx.shape) if want_scores or want_stored else None
        dx, grad, grad_bias = _gradients(ctx, dy, (x, codes, delta), weight, shape, ctx.channels_last)
        scores, stored, selection, bits, step, plane = parts
        rule_code, rule_seed = ctx.rule
        source_code, scale, seed, layer, redraw, through = ctx.source
        grad_scores = None
        grad_stored = grad if want_stored else None
        masked = want_stored and not through
        if want_scores or masked:
            grad_scores, product = _masked_weight_backward(
                grad, scores, selection, ctx.channels_last, rule_code, bits, step, rule_seed,
                source_code, stored, plane, scale, seed, layer, redraw, want_scores, masked,
            )  # fmt: skip
            grad_stored = product if masked else grad_stored
        return dx, grad_bias, grad_scores if want_scores else None, grad_stored, *(None,) * 8


def _settings(x: Tensor, config: PSGConfig, signed: bool, geometry: Geometry) -> tuple:
    dtype = x.dtype if x.dtype == torch.float64 else compute_dtype(x)
    return config, signed, geometry, _saves_input(x, config), dtype


def _geometry(x: Tensor, shape, stride, padding, dilation, groups: int) -> tuple[Tensor, Geometry]:
    """The input as a batch, and the numbers; a padding that differs on two sides is added to the input."""
    stride, dilation = _pair(stride), _pair(dilation)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, shape[2:], strict=True)]
        if any(t % 2 for t in total):
            x = F.pad(x, (0, total[1] % 2, 0, total[0] % 2))
        padding = [t // 2 for t in total]
    padding = _pair(padding)
    if is_matmul(x, shape, stride, padding, groups):
        return x.flatten(1), LINEAR
    return x, (stride, padding, dilation, groups)


def _as_images(y: Tensor, geometry: Geometry) -> Tensor:
    return y[:, :, None, None] if geometry == LINEAR else y


def hidden_conv2d(x, scores, rule: Rule, source: WeightSource, bias, numbers: tuple, config, signed) -> Tensor:
    """masked_conv2d with PSG's gradient, without checks: for layers in training. numbers: stride to groups."""
    if x.dim() == 3:
        return hidden_conv2d(x[None], scores, rule, source, bias, numbers, config, signed)[0]
    x, geometry = _geometry(x, source.shape, *numbers)
    return _as_images(hidden_linear(x, scores, rule, source, bias, config, signed, geometry), geometry)


def hidden_linear(x, scores, rule: Rule, source: WeightSource, bias, config, signed, geometry=LINEAR) -> Tensor:
    """masked_linear with PSG's gradient, without checks: for layers in training."""
    settings = _settings(x, config, signed, geometry)
    if settings[-1] not in DTYPE_CODES:
        raise TypeError(f"psg: expected an input of dtype float32, bfloat16 or float16, got {settings[-1]}")
    scores, stored = in_one_layout(scores if rule.reads_scores else None, source.stored)
    rule_code, bits, step, rule_seed = rule.arguments()
    source_code, _, plane, scale, seed, layer, redraw = source.arguments()
    return _HiddenPSG.apply(
        x,
        bias,
        scores,
        stored,
        rule.selection,
        bits,
        step,
        plane,
        list(source.shape),
        (rule_code, rule_seed),
        (source_code, scale, seed, layer, redraw, source.through),
        settings,
    )


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
    if weight.dtype != x.dtype and compute_dtype(x) == x.dtype:
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
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if x.dim() == 3:
        numbers = (stride, padding, dilation, groups)
        return psg_conv2d(x[None], weight, bias, *numbers, config=config, input_signed=input_signed)[0]
    if x.dim() != 4 or x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"{op}: expected x of {weight.shape[1] * groups} channels, [N, C, H, W], got shape {tuple(x.shape)}"
        )
    x, geometry = _geometry(x, weight.shape, stride, padding, dilation, groups)
    return _as_images(_PlainPSG.apply(x, weight, bias, _settings(x, config, input_signed, geometry)), geometry)


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
    return _PlainPSG.apply(x, weight, bias, _settings(x, config, input_signed, LINEAR))
