"""relu_pool: ReLU and 2x2 max pooling in one pass over channels_last maps; the backward needs a byte an output.

On a CPU alone; csrc/ops/relu_pool/relu_pool.h says what is computed."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops.channels_last import channels_last
from hiddennet.ops.checks import check_tensor
from hiddennet.ops.fakes import is_looked_at, register_fake
from hiddennet.ops.norm_relu import DTYPES, is_fused

_forward = torch.ops.hiddennet.relu_pool.default
_backward = torch.ops.hiddennet.relu_pool_backward.default


@register_fake("relu_pool")
def _(x) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    y = x.new_empty(shape).contiguous(memory_format=torch.channels_last)
    return y, torch.empty_like(y, dtype=torch.uint8)


@register_fake("relu_pool_backward")
def _(dy, places, shape) -> Tensor:
    return dy.new_empty(shape).contiguous(memory_format=torch.channels_last)


class _ReluPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y, places = _forward(x)
        ctx.save_for_backward(places)
        ctx.shape = tuple(x.shape)
        return y

    @staticmethod
    def backward(ctx, dy):
        (places,) = ctx.saved_tensors
        if torch.is_grad_enabled() or is_looked_at(dy):  # one that has a gradient itself, or comes in batches
            return _spread_by_torch(dy, places, ctx.shape)
        return _backward(channels_last(dy), places, list(ctx.shape))


def _spread_by_torch(dy: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    quarters = [dy * (places == i) for i in range(4)]
    images, channels, height, width = dy.shape
    rows = [torch.stack(quarters[i : i + 2], dim=-1).reshape(images, channels, height, 2 * width) for i in (0, 2)]
    dx = torch.stack(rows, dim=-2).reshape(images, channels, 2 * height, 2 * width)
    return F.pad(dx, (0, shape[3] % 2, 0, shape[2] % 2))


def relu_pool(x: Tensor) -> Tensor:
    """Return `max_pool2d(relu(x), 2)`, bit for bit, with its gradient; ties and NaN go as torch's pooling has them.

    Args:
        x: (N, C, H, W), float32, bfloat16 or float16, at least 2 pixels a side. float32 and bfloat16 on a CPU in
            channels_last go through our kernel; others, and where the forward is recorded or transformed, torch's.

    Raises:
        TypeError, ValueError: another dtype or number of dimensions.
    """
    op = "relu_pool"
    x = check_tensor(op, "x", x, dtypes=(*DTYPES, torch.float16))
    if x.dim() != 4 or min(x.shape[2:]) < 2:
        raise ValueError(f"{op}: expected x of shape (N, C, H, W), at least 2 pixels a side, got {tuple(x.shape)}")
    return _ReluPool.apply(x) if is_fused(x) else F.max_pool2d(F.relu(x), 2)
