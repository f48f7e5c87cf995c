"""Pull form: each block of nodes sums its incoming edges over one buffer of all earlier nodes, never copied."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class PullBuffer:
    """The outputs of a graph's source nodes for one forward: node-major, [nodes, batch x pixels], block by block.

    Autograd sees the blocks alone: gradients of all sources are summed in a second buffer, from the last pull to the
    first, each of which hands on the gradient of the block it brought. So every pull must bring the block made of what
    the one before it returned, and the last one must take part in what is differentiated.

    Args:
        nodes: how many source nodes the graph has.
        like: a block [batch, n, H, W] that tells batch, pixels, dtype and device.
    """

    def __init__(self, nodes: int, like: Tensor) -> None:
        self.values = like.new_empty(nodes, like.shape[0] * like.shape[2] * like.shape[3])
        self.gradient: Tensor | None = None
        self.filled = 0

    def pull(self, block: Tensor, weight: Tensor, *, first: int = 0, last: bool = False) -> Tensor:
        """Take the next nodes' outputs in and sum edges over the nodes from `first` on.

        Args:
            block: [batch, n, H, W], of the nodes after those taken in before.
            weight: [rows, filled - first], differentiable.
            first: the first node that is summed over.
            last: whether this is the last pull.

        Returns:
            [batch, rows, H, W] (a view of a node-major tensor).
        """
        start, self.filled = self.filled, self.filled + block.shape[1]
        if self.filled > self.values.shape[0] or weight.shape[1] != self.filled - first:
            raise ValueError(
                f"PullBuffer: expected at most {self.values.shape[0]} nodes and weights of {self.filled - first} of "
                f"them, got {self.filled} nodes and weights {tuple(weight.shape)}"
            )
        return _Pull.apply(block, weight, self, start, first, last)


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block: Tensor, weight: Tensor, buffer: PullBuffer, start: int, first: int, last: bool) -> Tensor:
        batch, nodes, height, width = block.shape
        values = buffer.values
        stop = start + nodes
        values[start:stop].view(nodes, batch, height, width).copy_(block.transpose(0, 1))
        cast = weight.to(values.dtype)
        ctx.save_for_backward(cast)
        ctx.buffer, ctx.span, ctx.last = buffer, (start, stop, first), last
        ctx.weight_dtype, ctx.block_dtype = weight.dtype, block.dtype
        out = torch.mm(cast, values[first:stop])
        return out.view(-1, batch, height, width).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        buffer, (start, stop, first) = ctx.buffer, ctx.span
        batch, rows, height, width = gradient.shape
        flat = gradient.transpose(0, 1).reshape(rows, -1).to(weight.dtype)
        if ctx.last:
            buffer.gradient = torch.zeros_like(buffer.values)
        elif buffer.gradient is None:
            raise RuntimeError("PullBuffer: expected the last pull to be differentiated, got a backward without it")
        summed = buffer.gradient
        block_gradient = weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = torch.mm(flat, buffer.values[first:stop].t()).to(ctx.weight_dtype)
        if ctx.needs_input_grad[0]:
            summed[first:stop].addmm_(weight.t(), flat)
            block_gradient = summed[start:stop].view(-1, batch, height, width).transpose(0, 1).to(ctx.block_dtype)
        if start == 0:
            buffer.gradient = None
        return block_gradient, weight_gradient, None, None, None, None


class _Slices(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, spans: tuple[tuple[int, int, int, int], ...]) -> tuple[Tensor, ...]:
        ctx.spans, ctx.shape = spans, weight.shape
        return tuple(weight[a:b, c:d].contiguous() for a, b, c, d in spans)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].new_zeros(ctx.shape)
        for (a, b, c, d), gradient in zip(ctx.spans, gradients, strict=True):
            total[a:b, c:d] += gradient
        return total, None


def slices(weight: Tensor, spans: tuple[tuple[int, int, int, int], ...]) -> tuple[Tensor, ...]:
    """weight[a:b, c:d] for each (a, b, c, d), copied; their gradients go into one tensor, made once."""
    return _Slices.apply(weight, spans)
