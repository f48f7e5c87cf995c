"""What stands between convolutions, in fewer passes over the maps: batch norm, an addition and ReLU; ReLU and pooling.

Training on a CPU in channels_last takes the fused kernels (hiddennet.ops.norm_relu, relu_pool); whatever else happens
takes the modules one by one, as torch has them: evaluation, a GPU, tracing and export, a module with a hook, another
class in its place (SyncBatchNorm, quantisation), HIDDENNET_PLANS=fixed.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from hiddennet.ops import conv_ways
from hiddennet.ops.norm_relu import is_fused
from hiddennet.ops.norm_relu import norm_relu as norm_relu_op
from hiddennet.ops.relu_pool import relu_pool as relu_pool_op


def norm_relu(norm: nn.Module, x: Tensor, residual: Tensor | None = None, *, inplace: bool = True) -> Tensor:
    """`relu(norm(x) + residual)`. inplace: whether the ReLU may overwrite what the norm returned."""
    if (
        _may_fuse(x, norm)
        and _is_plain_norm(norm)
        and (residual is None or (is_fused(residual) and (residual.shape, residual.dtype) == (x.shape, x.dtype)))
    ):
        running = None if norm.running_mean is None else (norm.running_mean, norm.running_var)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        how = {"running": running, "momentum": norm.momentum, "eps": norm.eps}
        return norm_relu_op(x, residual, norm.weight, norm.bias, **how)
    y = norm(x)
    return F.relu(y if residual is None else y + residual, inplace=inplace or residual is not None)


def relu_pool(x: Tensor) -> Tensor:
    """`max_pool2d(relu(x), 2)`; x may be overwritten."""
    if _may_fuse(x) and min(x.shape[2:]) > 1:
        return relu_pool_op(x)
    return F.max_pool2d(F.relu(x, inplace=True), 2)


class Stack(nn.Sequential):
    """An nn.Sequential in which batch norm and ReLU, ReLU and 2x2 max pooling that follow one another are fused."""

    def forward(self, x: Tensor) -> Tensor:
        for group in self._groups():
            first, *others = group
            if len(group) == 1 or not _may_fuse(x, *group):
                for module in group:
                    x = module(x)
                continue
            if isinstance(first, nn.BatchNorm2d):
                x = norm_relu(first, x)
                others = others[1:]
            if others or isinstance(first, nn.ReLU):
                x = relu_pool(x)  # of maps that may be behind their ReLU already
        return x

    def _groups(self) -> Iterator[list[nn.Module]]:
        """The modules in order; together: a batch norm, a ReLU and a pooling, or two of them with the ReLU."""
        group: list[nn.Module] = []
        for module in self:
            last = type(group[-1]) if group else None
            joins = (type(module) is nn.ReLU and last is nn.BatchNorm2d) or (last is nn.ReLU and _is_plain_pool(module))
            if group and not joins:
                yield group
                group = []
            group.append(module)
        if group:
            yield group


def _is_plain_norm(norm: nn.Module) -> bool:
    parts = [] if type(norm) is not nn.BatchNorm2d else [norm.running_mean, norm.running_var, norm.weight, norm.bias]
    return (
        bool(parts)
        and norm.training
        and norm.momentum is not None
        and (norm.running_mean is None) == (norm.running_var is None)
        and all(part is None or _is_plain(part) for part in parts)
    )


def _is_plain(part: Tensor) -> bool:
    return part.dtype is torch.float32 and part.device.type == "cpu" and part.is_contiguous()


def _is_plain_pool(module: nn.Module) -> bool:
    if type(module) is not nn.MaxPool2d or module.return_indices or module.ceil_mode:
        return False
    pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
    return tuple(pair if isinstance(pair, int) else tuple(pair) for pair in pairs) == (2, 2, 0, 1)


def _may_fuse(x: Tensor, *modules: nn.Module) -> bool:
    """Whether x may pass through these modules without a call of theirs."""
    return (
        isinstance(x, Tensor)
        and is_fused(x)
        and x.numel() > x.shape[1]  # else the norm refuses
        and torch.is_grad_enabled()
        and not hooks._has_any_global_hook()
        and not any(_has_hooks(module) for module in modules)
        and conv_ways.measures()
    )


def _has_hooks(module: nn.Module) -> bool:
    """Hooks, or a forward of its own put in its place."""
    hooks_of = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks_of) or "forward" in vars(module)
