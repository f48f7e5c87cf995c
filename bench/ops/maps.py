"""What stands between convolutions, on a CPU: batch norm, addition and ReLU; ReLU and pooling. Against torch's ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness import Effort, same
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet import ops

SIZES = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels and side of a CIFAR ResNet-18's maps
OURS, TORCH = "hiddennet", "torch"


def _normed(x: Tensor, residual: Tensor | None) -> Tensor:
    y = F.batch_norm(x, None, None, training=True)
    return F.relu_(y if residual is None else y + residual)


def _pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(x), 2)


def _gradients(call: Callable[..., Tensor], *inputs: Tensor | None) -> list[Tensor]:
    """Output and gradients of a forward and a backward."""
    given = [None if t is None else t.detach().requires_grad_() for t in inputs]
    with torch.enable_grad():
        y = call(*given)
    dy = y.detach() - 0.5
    return [y.detach(), *torch.autograd.grad(y, [t for t in given if t is not None], dy)]


def fused(at: Setting) -> Iterator[Case]:
    if not at.on_cpu:
        return
    batch = 4 if at.quick else 128
    for dtype in (torch.float32, torch.bfloat16):
        for channels, side in SIZES[-1:] if at.quick else SIZES:
            size, last = (batch, channels, side, side), {"memory_format": torch.channels_last}
            x, residual = (torch.randn(size).to(dtype).contiguous(**last) for _ in range(2))
            pairs = {
                "norm, ReLU": ((ops.norm_relu, _normed), (x, None)),
                "norm, addition, ReLU": ((ops.norm_relu, _normed), (x, residual)),
                "ReLU, pooling": ((ops.relu_pool, _pooled), (x,)),
            }
            for name, (calls, inputs) in pairs.items():
                works = {
                    side_name: lambda call=call, inputs=inputs: _gradients(call, *inputs)
                    for side_name, call in zip((OURS, TORCH), calls, strict=True)
                }

                def check(works=works, dtype=dtype) -> None:
                    got, want = (works[side_name]()[0] for side_name in (OURS, TORCH))
                    same("output", got.float(), want.float(), rtol=1e-5 if dtype is torch.float32 else 1e-2)

                what = (
                    f"{name}, forward and backward, {channels} @{side}, b{batch}, {str(dtype).removeprefix('torch.')}"
                )
                yield Case(what, works, check, [Claim(TORCH, OURS)])


BENCHMARKS = {"fused_maps": Benchmark(fused, Effort(rounds=9, min_rounds=3, budget_s=3.0))}
