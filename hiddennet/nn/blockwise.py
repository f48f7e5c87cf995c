"""The sums over an acyclic wiring's edges, block of nodes by block, on a CPU: node-major, by lists or dense."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiddennet.ops.wired_sum import SPARSE_UP_TO, Edges, pack_edges, wired_sum


@dataclass(frozen=True)
class Blocks:
    """Nodes of each sending block, in the order of columns, and of each receiving one, in the order of rows.

    Receiving block j sums over sending blocks 0 ... j.
    """

    sending: tuple[int, ...]
    receiving: tuple[int, ...]

    @cached_property
    def columns(self) -> tuple[tuple[int, int], ...]:
        """First and last + 1 column of each sending block."""
        return tuple(pairwise(accumulate(self.sending, initial=0)))

    @cached_property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """First and last + 1 row of each receiving block."""
        return tuple(pairwise(accumulate(self.receiving, initial=0)))

    @cached_property
    def usable(self) -> int:
        """Positions of the weight that are edges."""
        return sum((b - a) * d for (a, b), (_, d) in zip(self.rows, self.columns, strict=True))


class EdgeLists:
    """The edges of an effective weight by block, made once for as long as the weight is the same.

    Args:
        weight: float32 [destinations, sources], on a CPU; elements at positions that are no edges are left out.
    """

    def __init__(self, weight: Tensor, blocks: Blocks) -> None:
        self.blocks, self.n_sources = blocks, weight.shape[1]
        self.received = []
        for (a, b), (_, d) in zip(blocks.rows, blocks.columns, strict=True):
            found = pack_edges(weight[a:b, :d])
            self.received.append(Edges(found.starts, found.sources, found.values, self.n_sources))

    @property
    def density(self) -> float:
        """The kept fraction of the positions that are edges."""
        return sum(edges.n_edges for edges in self.received) / max(1, self.blocks.usable)

    @cached_property
    def sent(self) -> list[Edges]:
        """The edges out of each sending block, by source: what the gradient of its nodes is summed over."""
        starts, before = [torch.zeros(1, dtype=torch.int32)], 0
        for edges in self.received:
            starts.append(edges.starts[1:] + before)
            before += edges.n_edges
        sources = torch.cat([edges.sources for edges in self.received])
        values = torch.cat([edges.values for edges in self.received])
        turned = Edges(torch.cat(starts), sources, values, self.n_sources).transposed
        return [turned.destinations(a, b) for a, b in self.blocks.columns]


class BlockSums:
    """One forward of a wiring: what its nodes send, in one buffer [nodes, batch x pixels], and the sums of it.

    Autograd sees the blocks alone. Backwards, the gradients of all sums are in a second buffer, filled from the last
    block to the first, and that of the weight is written block by block into one tensor; positions that are no edges
    get 0. So every block must be made of the sum that the one before it returned, and the last sum must take part in
    what is differentiated.

    Args:
        weight: effective, [destinations, sources], differentiable.
        blocks: see Blocks.
        lists: its edges; None: sums are dense products.
        like: a block [n, batch, H, W] that tells batch, pixels and dtype.
    """

    def __init__(self, weight: Tensor, blocks: Blocks, lists: EdgeLists | None, like: Tensor) -> None:
        self.weight, self.blocks, self.lists = weight, blocks, lists
        self.values = like.new_empty(weight.shape[1], like[0].numel())
        self.learns = weight.requires_grad and torch.is_grad_enabled()
        self.gradients: Tensor | None = None
        self.weight_gradient: Tensor | None = None
        self.done = 0

    def sum(self, block: Tensor) -> Tensor:
        """Take what the next sending block sends, [n, batch, H, W], and sum the next receiving block's edges:
        [rows, batch, H, W]."""
        j, self.done = self.done, self.done + 1
        wanted = self.blocks.sending[j] if j < len(self.blocks.sending) else None
        if block.shape[0] != wanted or block[0].numel() != self.values.shape[1]:
            raise ValueError(
                f"BlockSums: expected block {j} of {wanted} nodes with {self.values.shape[1]} values each, "
                f"got {tuple(block.shape)}"
            )
        return _Sum.apply(block, self.weight if j == 0 else None, self, j)


def worth_lists(lists: EdgeLists) -> bool:
    """Whether sums by lists are faster than dense products."""
    return lists.density <= SPARSE_UP_TO["cpu"]


def _listed(values: Tensor, edges: Edges) -> Tensor:
    """The sums over the edges of node-major values [nodes, n]."""
    return wired_sum(values[None, :, None], edges)[0, :, 0]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block: Tensor, weight: Tensor | None, sums: BlockSums, j: int) -> Tensor:
        blocks = sums.blocks
        (a, b), (c, d) = blocks.rows[j], blocks.columns[j]
        sums.values[c:d].view_as(block).copy_(block)
        ctx.sums, ctx.j, ctx.dtype = sums, j, block.dtype
        ctx.save_for_backward(sums.weight.detach())  # with its version
        if sums.lists is not None:
            out = _listed(sums.values, sums.lists.received[j])
        else:
            out = torch.mm(sums.weight[a:b, :d].detach().to(sums.values.dtype), sums.values[:d])
        return out.view(-1, *block.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        sums, j = ctx.sums, ctx.j
        (weight,) = ctx.saved_tensors
        blocks, values = sums.blocks, sums.values
        (a, b), (c, d) = blocks.rows[j], blocks.columns[j]
        if j == len(blocks.rows) - 1:
            sums.gradients = values.new_empty(weight.shape[0], values.shape[1])
            sums.weight_gradient = torch.empty_like(weight) if sums.learns else None
        if sums.gradients is None:
            raise RuntimeError("BlockSums: expected the last sum to be differentiated, got a backward without it")
        received = sums.gradients[a:b]
        received.view_as(gradient).copy_(gradient)
        if sums.learns:
            target = sums.weight_gradient[a:b]
            if target.dtype == values.dtype:
                torch.mm(received, values[:d].t(), out=target[:, :d])
            else:
                target[:, :d] = torch.mm(received, values[:d].t())
            target[:, d:] = 0
        sent = None
        if ctx.needs_input_grad[0]:
            if sums.lists is not None:
                sent = _listed(sums.gradients, sums.lists.sent[j])
            else:
                sent = torch.mm(weight[a:, c:d].t().to(values.dtype), sums.gradients[a:])
            sent = sent.view(-1, *gradient.shape[1:]).to(ctx.dtype)
        weight_gradient = None
        if j == 0:
            weight_gradient, sums.weight_gradient, sums.gradients = sums.weight_gradient, None, None
        return sent, weight_gradient, None, None
