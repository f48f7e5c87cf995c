"""On the runtime that runs nothing: torch's calls into cuBLAS and cuDNN, which are not there, return memory instead."""

from __future__ import annotations

import torch
from torch import Tensor


def _products(library: torch.library.Library) -> None:
    def mm(a: Tensor, b: Tensor) -> Tensor:
        return a.new_empty(a.shape[0], b.shape[1])

    def bmm(a: Tensor, b: Tensor) -> Tensor:
        return a.new_empty(a.shape[0], a.shape[1], b.shape[2])

    def addmm(_, a: Tensor, b: Tensor, beta=1, alpha=1) -> Tensor:
        return mm(a, b)

    def into(*_, out: Tensor, **__) -> Tensor:
        return out

    def in_place(out: Tensor, *_, **__) -> Tensor:
        return out

    for name, of in (("mm", mm), ("bmm", bmm), ("addmm", addmm)):
        library.impl(name, of, "CUDA")
        library.impl(f"{name}.out", into, "CUDA")
    library.impl("addmm_", in_place, "CUDA")
    library.impl("baddbmm_", in_place, "CUDA")


def _convolutions(library: torch.library.Library) -> None:
    def layout(*tensors: Tensor) -> torch.memory_format:
        last = any(
            t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
            for t in tensors
        )
        return torch.channels_last if last else torch.contiguous_format

    def forward(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
        sizes = (
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
        )
        shape = (x.shape[0], weight.shape[0], *sizes)
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout(x, weight))

    def backward(dy, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, wanted):
        of = layout(x, dy)
        return (
            torch.empty_like(x, memory_format=of) if wanted[0] else None,
            torch.empty_like(weight, memory_format=of) if wanted[1] else None,
            weight.new_empty(weight.shape[0]) if wanted[2] else None,
        )

    library.impl("convolution", forward, "CUDA")
    library.impl("convolution_backward", backward, "CUDA")


def install() -> torch.library.Library:
    """Replace them while the returned library lives."""
    library = torch.library.Library("aten", "IMPL")
    torch.backends.cudnn.enabled = False
    _products(library)
    _convolutions(library)
    return library
