"""scale: the template op. Copy this file, csrc/ops/template_op and tests/ops/test_scale.py to begin a new op."""

import torch
from torch import Tensor

from hiddennet.ops.checks import check_tensor
from hiddennet.ops.fakes import register_fake

_scale = torch.ops.hiddennet.scale.default


@register_fake("scale")
def _(x: Tensor, a: float) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, a: float) -> Tensor:
        ctx.a = a
        return _scale(x.contiguous(), a)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        return _scale(grad.contiguous(), ctx.a), None


def scale(x: Tensor, a: float) -> Tensor:
    """Return a * x, contiguous. Equivalent to: `a * x`.

    Args:
        x: float32, any shape.
        a: rounded to float32.

    Raises:
        TypeError: x is no float32 tensor.
    """
    check_tensor("scale", "x", x, dtypes=(torch.float32,))
    return _Scale.apply(x, float(a))
