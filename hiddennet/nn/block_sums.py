"""Sums over a wiring's edges, block of nodes by block, over one node-major buffer: by lists of edges, or dense."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiddennet.ops.wired_sum import SPARSE_UP_TO, Edges, pack_edges, wired_sum


@dataclass(frozen=True)
class Blocks:
    """The part of a weight that each sum of a graph reads, in the order they are run.

    Args:
        spans: (a, b, c, d) for each sum: nodes of rows [a, b) receive from those of columns [c, d). Block j of the
            senders is the columns from the d of the sum before to its own; c is where some block starts, up to block j.
    """

    spans: tuple[tuple[int, int, int, int], ...]

    @cached_property
    def columns(self) -> tuple[tuple[int, int], ...]:
        """First and last + 1 column of each sending block."""
        return tuple(pairwise((0, *(d for *_, d in self.spans))))

    @cached_property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """First and last + 1 row of each sum where all sums lie one behind the other."""
        return tuple(pairwise(accumulate((b - a for a, b, *_ in self.spans), initial=0)))

    @cached_property
    def usable(self) -> int:
        """Positions of the weight that are edges."""
        return sum((b - a) * (d - c) for a, b, c, d in self.spans)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Which elements of a weight of that shape are edges: bool [rows, columns]."""
        found = torch.zeros(rows, columns, dtype=torch.bool, device="cpu")
        for a, b, c, d in self.spans:
            found[a:b, c:d] = True
        return found

    @cached_property
    def tiled(self) -> bool:
        """Whether the sums' rows are the weight's, each once, and all read from the first column on."""
        return self.rows == tuple((a, b) for a, b, *_ in self.spans) and all(c == 0 for _, _, c, _ in self.spans)

    @cached_property
    def readers(self) -> tuple[list[tuple[int, int, int, int]], ...]:
        """For each sending block the rows of the weight that read it, and where their sums lie, as few ranges of both:
        (a, b, first sum, last sum + 1)."""
        found = []
        for j, (start, _) in enumerate(self.columns):
            ranges: list[tuple[int, int, int, int]] = []
            for (a, b, c, _), (g, h) in list(zip(self.spans, self.rows, strict=True))[j:]:
                if c > start:
                    continue
                if ranges and (ranges[-1][1], ranges[-1][3]) == (a, g):
                    a, _, g, _ = ranges.pop()
                ranges.append((a, b, g, h))
            found.append(ranges)
        return tuple(found)


class EdgeLists:
    """The edges of an effective weight by sum, made once for as long as the weight is the same.

    Args:
        weight: float32 [destinations, sources], on a CPU; elements outside the blocks' spans are left out.
    """

    def __init__(self, weight: Tensor, blocks: Blocks) -> None:
        self.blocks, n_sources = blocks, blocks.columns[-1][1]
        self.received = []
        for a, b, c, d in blocks.spans:
            found = pack_edges(weight[a:b, c:d])
            sources = (found.sources.int() + c).to(found.sources.dtype) if c else found.sources
            self.received.append(Edges(found.starts, sources, found.values, n_sources, _packed=True))

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
        turned = Edges(torch.cat(starts), sources, values, self.received[0].n_sources, _packed=True).transposed
        return [turned.destinations(a, b) for a, b in self.blocks.columns]


def edge_lists(weight: Tensor, blocks: Blocks) -> EdgeLists | None:
    """The edges of an effective weight; None where dense products are faster (many edges), or the only way (not
    float32; compiled; on a GPU, which the host would wait for)."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or torch.compiler.is_compiling():
        return None
    lists = EdgeLists(weight, blocks)
    return lists if lists.density <= SPARSE_UP_TO["cpu"] else None


class BlockSums:
    """One forward of a wiring: what its nodes send, in one buffer [nodes, batch x pixels], and the sums of it.

    Autograd sees the blocks alone. Backwards, the gradients of all sums are in a second buffer, filled from the last
    sum to the first, and that of the weight is written block by block into one tensor; positions that no sum reads
    get 0. So every block must be made of the sum that the one before it returned, and the last sum must take part in
    what is differentiated. A single sum needs no buffers: it is over the block itself.

    Args:
        weight: effective, [destinations, sources], differentiable.
        blocks: what each sum reads.
        lists: its edges, of `edge_lists`; for float32 values (sums of other types are dense). None: all are dense. The
            weight's gradient is dense all the same.
        like: a block [n, batch, H, W] that tells batch, pixels, dtype and device.
    """

    def __init__(self, weight: Tensor, blocks: Blocks, lists: EdgeLists | None, like: Tensor) -> None:
        self.weight, self.blocks = weight, blocks
        self.lists = lists if like.dtype == torch.float32 else None
        self.single = len(blocks.spans) == 1
        self.values = like.new_empty(0 if self.single else blocks.columns[-1][1], like[0].numel())
        self.cast = weight.detach().to(like.dtype)
        self.learns = weight.requires_grad and torch.is_grad_enabled()
        self.gradients: Tensor | None = None
        self.weight_gradient: Tensor | None = None
        self.done = 0

    def sum(self, block: Tensor) -> Tensor:
        """Take what the next sending block sends, [n, batch, H, W]; the next sum, contiguous: [rows, batch, H, W].

        Raises:
            ValueError: a block of other nodes or pixels, or one too many.
        """
        j, self.done = self.done, self.done + 1
        c, d = self.blocks.columns[j] if j < len(self.blocks.columns) else (0, 0)
        if block.shape[0] != d - c or block[0].numel() != self.values.shape[1]:
            raise ValueError(
                f"BlockSums: expected block {j} of {d - c} nodes with {self.values.shape[1]} values each, "
                f"got {tuple(block.shape)}"
            )
        return _Sum.apply(block, self.weight if j == 0 else None, self, j)


def node_sum(block: Tensor, weight: Tensor, blocks: Blocks, lists: EdgeLists | None = None) -> Tensor:
    """The only sum of `blocks`: [n, batch, H, W] to [rows, batch, H, W]."""
    return BlockSums(weight, blocks, lists, block).sum(block)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block: Tensor, weight: Tensor | None, sums: BlockSums, j: int) -> Tensor:
        (a, b, c, d), (start, stop) = sums.blocks.spans[j], sums.blocks.columns[j]
        if sums.single:
            sums.values = block.detach().reshape(stop, -1)
        else:
            sums.values[start:stop].view(block.shape).copy_(block)
        ctx.sums, ctx.j, ctx.dtype = sums, j, block.dtype
        ctx.save_for_backward(sums.weight.detach(), sums.values if sums.single else None)  # with their versions
        if sums.lists is not None:
            out = _listed(sums.values, sums.lists.received[j])
        else:
            out = torch.mm(sums.cast[a:b, c:d], sums.values[c:d])
        return out.view(-1, *block.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        sums, j = ctx.sums, ctx.j
        weight, _ = ctx.saved_tensors
        blocks, values = sums.blocks, sums.values
        (a, b, c, d), (start, stop), (g, h) = blocks.spans[j], blocks.columns[j], blocks.rows[j]
        if j == len(blocks.spans) - 1:
            if not sums.single:
                sums.gradients = values.new_empty(blocks.rows[-1][1], values.shape[1])
            if sums.learns:
                sums.weight_gradient = torch.empty_like(weight) if blocks.tiled else torch.zeros_like(weight)
        if sums.single:
            sums.gradients = gradient.reshape(h, -1).to(values.dtype)
        elif sums.gradients is None:
            raise RuntimeError("BlockSums: expected the last sum to be differentiated, got a backward without it")
        else:
            sums.gradients[g:h].view(gradient.shape).copy_(gradient)
        if sums.learns:
            out, left, right = sums.weight_gradient[a:b, c:d], sums.gradients[g:h], values[c:d].t()
            if out.dtype == left.dtype:
                torch.mm(left, right, out=out)
            else:
                out.copy_(torch.mm(left, right))
            if blocks.tiled:
                sums.weight_gradient[a:b, d:] = 0
        sent = None
        if ctx.needs_input_grad[0]:
            if sums.lists is not None:
                sent = _listed(sums.gradients, sums.lists.sent[j])
            else:
                for a, b, g, h in blocks.readers[j]:
                    own, received = sums.cast[a:b, start:stop].t(), sums.gradients[g:h]
                    sent = torch.mm(own, received) if sent is None else sent.addmm_(own, received)
            sent = sent.view(-1, *gradient.shape[1:]).to(ctx.dtype)
        weight_gradient = None
        if j == 0:
            weight_gradient, sums.weight_gradient, sums.gradients = sums.weight_gradient, None, None
        return sent, weight_gradient, None, None


def _listed(values: Tensor, edges: Edges) -> Tensor:
    """The sums over the edges of node-major values [nodes, n]."""
    return wired_sum(values[None, :, None], edges)[0, :, 0]
