"""The autograd functions of psg_conv2d and psg_linear: what they keep for the backward, and what they make there.

Kept is x itself where something else keeps it alive (it is a leaf, or the result of an op whose own backward reads its
result, as ReLU's does), or where the exact gradient needs it; otherwise its codes, a byte an element, and their step.
Compiled code keeps codes. A masked weight is made again, as in masked_conv2d.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops.checks import dense, is_channels_last
from hiddennet.ops.code_gradient import LINEAR, Geometry, PSGConfig, input_codes, weight_gradient
from hiddennet.ops.masked_weight import MaskedWeight, part_gradients
from hiddennet.ops.quantize import EXACT_BITS, FUSED

# autograd nodes that save their result, and those that only show it in another shape
_SAVE_RESULT = ("ReluBackward", "SigmoidBackward", "TanhBackward")
_VIEWS = ("ViewBackward", "UnsafeViewBackward", "ReshapeAliasBackward", "UnsqueezeBackward", "SqueezeBackward")


def kept_alive(x: Tensor) -> bool:
    """Whether x lives until the backward whether we save it or not: see this file's head."""
    node = x.grad_fn
    while node is not None and node.name().startswith(_VIEWS):
        node = node.next_functions[0][0]
    return node is None or node.name().startswith(_SAVE_RESULT) or hasattr(node, "variable")


def saves_input(x: Tensor, config: PSGConfig) -> bool:
    """Whether to save x, not its codes."""
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
    dy = dense(dy.to(dtype))
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


class PlainPSG(torch.autograd.Function):
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


class HiddenPSG(torch.autograd.Function):
    """A layer whose weight is masked. Saves the weight's parts, which exist anyway, and x or its codes."""

    @staticmethod
    def forward(ctx, x, bias, settings, *parts):
        weight = MaskedWeight(*parts)
        learns = ctx.needs_input_grad[3] or ctx.needs_input_grad[12]
        y, saved = _forward(ctx, x, weight.write(settings[-1]), bias, learns, settings)
        weight.save(ctx, *saved)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        saved, weight = MaskedWeight.saved(ctx)
        want_x, want_scores, want_stored = (ctx.needs_input_grad[i] for i in (0, 3, 12))
        made = weight.write(ctx.settings[-1]) if want_x else None
        shape = weight.shape if want_scores or want_stored else None
        dx, grad, grad_bias = _gradients(ctx, dy, saved, made, shape, weight.channels_last)
        product = (None, None) if grad is None else weight.gradients(grad, want_scores, want_stored)
        return dx, grad_bias, None, *part_gradients(*product)
