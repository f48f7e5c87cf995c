"""norm_relu: batch norm in training, an addition and ReLU in 3 passes over the maps forward and 5 backward, where torch
takes up to 8 and 9. On a CPU, channels_last; csrc/ops/norm_relu/norm_relu.h says what is computed."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops.channels_last import channels_last
from hiddennet.ops.checks import check_same_device, check_tensor
from hiddennet.ops.fakes import is_looked_at, register_fake

_forward = torch.ops.hiddennet.norm_relu.default
_backward = torch.ops.hiddennet.norm_relu_backward.default
DTYPES = torch.float32, torch.bfloat16


@register_fake("norm_relu")
def _(x, residual, gamma, beta, running_mean, running_var, momentum, eps) -> tuple[Tensor, Tensor, Tensor]:
    sums = x.new_empty(x.shape[1], dtype=torch.float64)
    return torch.empty_like(x, memory_format=torch.channels_last), sums, torch.empty_like(sums)


@register_fake("norm_relu_backward")
def _(dy, x, y, gamma, beta, mean, invstd) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    dresidual = x.new_empty(0) if y is None else torch.empty_like(dx)
    return dx, dresidual, *(torch.empty_like(mean, dtype=torch.float32) for _ in range(2))


class _NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, gamma, beta, running, momentum, eps):
        y, mean, invstd = _forward(x, residual, gamma, beta, *running, momentum, eps)
        ctx.save_for_backward(x, residual, gamma, beta, mean, invstd, None if residual is None else y)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx, dy):
        x, residual, gamma, beta, mean, invstd, y = ctx.saved_tensors
        if torch.is_grad_enabled() or is_looked_at(dy):  # one that has a gradient itself, or comes in batches
            inputs = [t for t, want in zip((x, residual, gamma, beta), ctx.needs_input_grad, strict=False) if want]
            again = torch.is_grad_enabled()
            with torch.enable_grad(), torch.autocast("cpu", enabled=False):
                made = _by_torch(x, residual, gamma, beta, (None, None), 0.0, ctx.eps)
                found = iter(torch.autograd.grad(made, inputs, dy, create_graph=again))
            to_parts = [next(found) if want else None for want in ctx.needs_input_grad[:4]]
        else:
            dx, dresidual, *to_channels = _backward(channels_last(dy), x, y, gamma, beta, mean, invstd)
            to_parts = [dx, None if y is None else dresidual]
            to_parts += [g if want else None for g, want in zip(to_channels, ctx.needs_input_grad[2:4], strict=True)]
        return *to_parts, None, None, None


def _by_torch(x, residual, gamma, beta, running, momentum: float, eps: float) -> Tensor:
    y = F.batch_norm(x, *running, gamma, beta, True, momentum, eps)
    return F.relu(y if residual is None else y + residual)


def norm_relu(
    x: Tensor,
    residual: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    running: tuple[Tensor, Tensor] | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return `relu(batch_norm(x, training=True) + residual)`, with gradients for the first four.

    Sums are of float64, in an order that does not depend on the number of threads.

    Args:
        x: (N, C, H, W), float32 or bfloat16, more than one value a channel. On a CPU and in channels_last it goes
            through our kernel; else, and where the forward is recorded or transformed, through torch's.
        residual: of x's shape, dtype and layout, added before the ReLU.
        gamma, beta: float32 (C,), the affine part; None for 1 and 0.
        running: float32 (C,) running mean and unbiased variance, moved in place by `momentum`.

    Raises:
        TypeError, ValueError: another dtype or shape.
    """
    op = "norm_relu"
    x = check_tensor(op, "x", x, dtypes=DTYPES)
    if x.dim() != 4 or x.numel() <= x.shape[1]:
        raise ValueError(f"{op}: expected x of shape (N, C, H, W), more than one value a channel, got {tuple(x.shape)}")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"{op}: expected residual of x's shape and dtype, got {tuple(residual.shape)} of {residual.dtype} "
            f"beside {tuple(x.shape)} of {x.dtype}"
        )
    state = (None, None) if running is None else running
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        got = tuple(state.shape) if isinstance(state, Tensor) else state
        raise TypeError(f"{op}: expected running to be (mean, variance) or None, got {got!r}")
    for name, t in zip(("gamma", "beta", "running mean", "running variance"), (gamma, beta, *state), strict=True):
        if t is None:
            continue
        check_tensor(op, name, t, dtypes=(torch.float32,))
        check_same_device(op, name, t, "x", x)
        if t.shape != x.shape[1:2] or not t.is_contiguous():
            raise ValueError(
                f"{op}: expected {name} of shape ({x.shape[1]},), contiguous, got {tuple(t.shape)} "
                f"with strides {t.stride()}"
            )
    if not is_fused(x) or (residual is not None and not is_fused(residual)):
        return _by_torch(x, residual, gamma, beta, state, momentum, eps)
    y = _NormRelu.apply(x, residual, gamma, beta, state, momentum, eps)
    if running is not None:
        torch.autograd.graph.increment_version(running)
    return y


def is_fused(x: Tensor) -> bool:
    """Whether these maps go through kernels of our own: on a CPU, in channels_last alone, not looked at."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and x.dim() == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
        and not is_looked_at()
    )
