"""Pull form: each block of nodes sums its incoming edges over one buffer of all earlier nodes, never copied."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiddennet.ops.wired_sum import SPARSE_UP_TO, Edges, pack_edges, wired_sum_

Spans = tuple[tuple[int, int, int, int], ...]


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

    def pull(
        self, block: Tensor, weight: Tensor, *, first: int = 0, last: bool = False, edges: Edges | None = None
    ) -> Tensor:
        """Take the next nodes' outputs in and sum edges over the nodes from `first` on.

        Args:
            block: [batch, n, H, W], of the nodes after those taken in before; no copy of its memory beside the buffer
                if it is a view of a node-major tensor, as what pull returns.
            weight: [rows, filled - first], differentiable.
            first: the first node that is summed over.
            last: whether this is the last pull.
            edges: the weight's, see `edge_lists`: sums and the nodes' gradients then run over the list; for float32
                (other types run the dense weight). The weight's gradient is dense all the same.

        Returns:
            [batch, rows, H, W] (a view of a node-major tensor).
        """
        start, self.filled = self.filled, self.filled + block.shape[1]
        if self.filled > self.values.shape[0] or weight.shape[1] != self.filled - first:
            raise ValueError(
                f"PullBuffer: expected at most {self.values.shape[0]} nodes and weights of {self.filled - first} of "
                f"them, got {self.filled} nodes and weights {tuple(weight.shape)}"
            )
        if edges is not None and (edges.n_destinations, edges.n_sources) != tuple(weight.shape):
            got = (edges.n_destinations, edges.n_sources)
            raise ValueError(f"PullBuffer: expected edges of a weight {tuple(weight.shape)}, got ones of {got}")
        return _Pull.apply(block, weight, self, (start, self.filled, first), last, edges)


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block: Tensor, weight: Tensor, buffer: PullBuffer, span, last: bool, edges) -> Tensor:
        start, stop, first = span
        batch, nodes, height, width = block.shape
        values = buffer.values
        values[start:stop].view(nodes, batch, height, width).copy_(block.transpose(0, 1))
        edges = edges if values.dtype == torch.float32 else None
        cast = weight.to(values.dtype)
        ctx.save_for_backward(cast)
        ctx.buffer, ctx.span, ctx.last, ctx.edges = buffer, span, last, edges
        ctx.weight_dtype, ctx.block_dtype = weight.dtype, block.dtype
        out = _times(cast, edges, values[first:stop])
        return out.view(-1, batch, height, width).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        buffer, (start, stop, first) = ctx.buffer, ctx.span
        batch, rows, height, width = gradient.shape
        flat = gradient.transpose(0, 1).reshape(rows, -1).to(weight.dtype)
        if ctx.last:
            buffer.gradient = torch.empty_like(buffer.values)
            buffer.gradient[:first].zero_()
        elif buffer.gradient is None:
            raise RuntimeError("PullBuffer: expected the last pull to be differentiated, got a backward without it")
        summed = buffer.gradient
        block_gradient = weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = torch.mm(flat, buffer.values[first:stop].t()).to(ctx.weight_dtype)
        if ctx.needs_input_grad[0]:
            _times_transposed(weight, ctx.edges, flat, summed[first:stop], add=not ctx.last)
            block_gradient = summed[start:stop].view(-1, batch, height, width).transpose(0, 1).to(ctx.block_dtype)
        if start == 0:
            buffer.gradient = None
        return block_gradient, weight_gradient, None, None, None, None


class _NodeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, nodes: Tensor, weight: Tensor, edges: Edges | None) -> Tensor:
        cast, flat = weight.to(nodes.dtype), nodes.reshape(nodes.shape[0], -1)
        ctx.edges = edges if nodes.dtype == torch.float32 else None
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(flat, cast)
        return _times(cast, ctx.edges, flat).view(-1, *nodes.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        nodes, weight = ctx.saved_tensors
        flat = gradient.reshape(gradient.shape[0], -1)
        to_nodes = to_weight = None
        if ctx.needs_input_grad[0]:
            to_nodes = torch.empty_like(nodes)
            _times_transposed(weight, ctx.edges, flat, to_nodes, add=False)
            to_nodes = to_nodes.view(-1, *gradient.shape[1:])
        if ctx.needs_input_grad[1]:
            to_weight = torch.mm(flat, nodes.t()).to(ctx.weight_dtype)
        return to_nodes, to_weight, None


def node_sum(nodes: Tensor, weight: Tensor, edges: Edges | None = None) -> Tensor:
    """I_v = sum_u w_vu z_u of node-major maps: nodes [n, batch, H, W], weight [rows, n], to [rows, batch, H, W].

    edges: the weight's, see `edge_lists`; None: the dense weight is run. The weight's gradient is dense either way.
    """
    return _NodeSum.apply(nodes, weight, edges)


def _maps(flat: Tensor) -> Tensor:
    return flat[None, :, :, None]


def _times(weight: Tensor, edges: Edges | None, flat: Tensor) -> Tensor:
    """weight @ flat."""
    if edges is None:
        return torch.mm(weight, flat)
    out = flat.new_empty(weight.shape[0], flat.shape[1])
    wired_sum_(_maps(out), _maps(flat), edges)
    return out


def _times_transposed(weight: Tensor, edges: Edges | None, flat: Tensor, out: Tensor, *, add: bool) -> None:
    """out (+)= weight^T @ flat."""
    if edges is not None:
        wired_sum_(_maps(out), _maps(flat), edges.transposed, accumulate=add)
    elif add:
        out.addmm_(weight.t(), flat)
    else:
        torch.mm(weight.t(), flat, out=out)


class _Slices(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, spans: Spans) -> tuple[Tensor, ...]:
        ctx.spans, ctx.shape = spans, weight.shape
        return tuple(weight[a:b, c:d].contiguous() for a, b, c, d in spans)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].new_zeros(ctx.shape)
        for (a, b, c, d), gradient in zip(ctx.spans, gradients, strict=True):
            total[a:b, c:d] += gradient
        return total, None


def slices(weight: Tensor, spans: Spans) -> tuple[Tensor, ...]:
    """weight[a:b, c:d] for each (a, b, c, d), copied; their gradients go into one tensor, made once."""
    return _Slices.apply(weight, spans)


def edge_lists(weight: Tensor, spans: Spans) -> tuple[Edges | None, ...]:
    """The edges of weight[a:b, c:d] for each (a, b, c, d), for sums that read lists of edges; None for each where the
    dense product is faster (many edges), or the only one (not float32; on a GPU, which the host would wait for)."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return (None,) * len(spans)
    parts = (weight[a:b, c:d] for a, b, c, d in spans)
    return tuple(pack_edges(part) if _sparse(part) else None for part in parts)


def _sparse(part: Tensor) -> bool:
    return int(part.count_nonzero()) <= SPARSE_UP_TO["cpu"] * part.numel()
