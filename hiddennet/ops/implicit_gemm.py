"""The plan "implicit_gemm" of a masked convolution: CUDA kernels whose weight loader makes the masked weight."""

import torch
from torch import Tensor

from hiddennet.ops.conv_checks import output_shape
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.masked_weight import N_ARGUMENTS, MaskedWeight, part_gradients

_forward = torch.ops.hiddennet.masked_conv_forward.default
_input_gradient = torch.ops.hiddennet.masked_conv_input_gradient.default


@register_fake("masked_conv_forward")
def _(x, scores, selection, shape, *others) -> Tensor:
    out = output_shape(x.shape, shape, *others[-3:])
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
        owes = None if dy.requires_grad else ctx
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
            grad_scores, grad_stored = weight.gradients(grad, want_scores, want_stored, owes)
        return dx, None, *part_gradients(grad_scores, grad_stored)


def implicit_gemm(x: Tensor, weight: MaskedWeight, bias: Tensor | None, geometry) -> Tensor:
    """The convolution in bfloat16. x: (N, C, H, W), CUDA. geometry: (stride, padding, dilation), pairs."""
    x = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = _ImplicitGemm.apply(x, geometry, *weight)
    return y if bias is None else y + bias.to(y.dtype).view(1, -1, 1, 1)
