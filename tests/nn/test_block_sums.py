"""Sums block by block over one buffer of all earlier nodes are those of plain products, by lists of edges or dense."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from hiddennet.nn.block_sums import Blocks, BlockSums, EdgeLists, edge_lists, node_sum

BLOCKS = {
    "tiled": Blocks(((0, 5, 0, 3), (5, 9, 0, 8), (9, 15, 0, 12))),
    "the last reads the last block": Blocks(((0, 5, 0, 3), (5, 9, 0, 8), (9, 15, 8, 12))),
    "rows twice": Blocks(((0, 5, 0, 3), (5, 15, 0, 8), (10, 15, 8, 12))),
    "not all rows": Blocks(((1, 6, 0, 3), (7, 11, 0, 8), (11, 13, 3, 12))),
}
ALL = Blocks(((0, 15, 0, 12),))


def weight_of(density, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(15, 12, generator=generator, dtype=torch.float64)
    return (drawn * (torch.rand(15, 12, generator=generator) < density)).to(dtype).requires_grad_()


def first_block(dtype=torch.float32):
    drawn = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return drawn.to(dtype).requires_grad_()


def summed(block, weight, blocks, *, lists=False, batch_first=False):
    sums = BlockSums(weight, blocks, EdgeLists(weight.detach(), blocks) if lists else None, block)
    for _, stop in blocks.columns:
        received = sums.sum(block)
        block = received.tanh()[-5:] if stop == 3 else received.tanh()[-4:]
        if batch_first:  # a view of what is not node-major
            block = block.transpose(0, 1).contiguous().transpose(0, 1)
    return received


def plain(block, weight, blocks):
    sources = block
    for a, b, c, d in blocks.spans:
        received = torch.einsum("vu,ubhw->vbhw", weight[a:b, c:d], sources[c:d])
        sources = torch.cat((sources, received.tanh()[-5:] if d == 3 else received.tanh()[-4:]))
    return received


@pytest.mark.parametrize("blocks", BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("density", [0.0, 0.15, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_and_gradients(dtype, density, blocks):
    results = []
    ways = [{}, {"batch_first": True}] + [{"lists": True}] * (dtype == torch.float32)
    for forward in (plain, *(partial(summed, **way) for way in ways)):
        block, weight = first_block(dtype), weight_of(density, dtype)
        out = forward(block, weight, blocks)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        results.append((out.detach(), block.grad, weight.grad))
    for found in results[1:]:
        for got, want in zip(found, results[0], strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


def test_half_precision_sums_by_dense_products():
    block, weight = first_block(torch.bfloat16), weight_of(0.15)
    blocks = BLOCKS["tiled"]
    out = summed(block, weight, blocks, lists=True)
    out.float().sum().backward()
    assert out.dtype == block.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32
    want = weight_of(0.15)
    plain(first_block(), want, blocks).sum().backward()
    torch.testing.assert_close(weight.grad, want.grad, rtol=0.05, atol=0.5)


def test_lists_are_for_few_edges_in_float32():
    assert edge_lists(weight_of(0.15).detach(), ALL).density < 0.2
    assert edge_lists(weight_of(1.0).detach(), ALL) is None
    assert edge_lists(weight_of(0.15, torch.float64).detach(), ALL) is None


def test_the_dense_weight_is_not_read_where_there_is_a_list():
    weight = weight_of(0.15).detach()
    maps = torch.randn(12, 2, 4, 5)
    found = node_sum(maps, torch.full_like(weight, torch.nan), ALL, edge_lists(weight, ALL))
    torch.testing.assert_close(found, torch.einsum("vu,ubhw->vbhw", weight, maps))


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("blocks", [ALL, Blocks(((4, 15, 0, 12),)), Blocks(((0, 15, 0, 7),))])
def test_node_sum_and_its_gradients(lists, blocks):
    ((a, b, _, d),) = blocks.spans
    weight, maps = weight_of(0.15), torch.randn(d, 2, 4, 5, requires_grad=True)
    factor = torch.randn(b - a, 2, 4, 5)
    found = node_sum(maps, weight, blocks, EdgeLists(weight.detach(), blocks) if lists else None)
    got = found, *torch.autograd.grad((found * factor).sum(), (maps, weight))
    want = torch.einsum("vu,ubhw->vbhw", weight[a:b, :d], maps)
    wanted = want, *torch.autograd.grad((want * factor).sum(), (maps, weight))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_a_frozen_weight_and_a_frozen_block():
    blocks = BLOCKS["rows twice"]
    for block, weight in ((first_block(), weight_of(0.15).detach()), (first_block().detach(), weight_of(0.15))):
        summed(block, weight, blocks, lists=True).sum().backward()
        want = [x.grad.clone() for x in (block, weight) if x.requires_grad]
        again = [x.detach().requires_grad_(x.requires_grad) for x in (block, weight)]
        plain(*again, blocks).sum().backward()
        for got, expected in zip(want, (x.grad for x in again if x.requires_grad), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_errors():
    block, weight = first_block(), weight_of(0.15)
    sums = BlockSums(weight, BLOCKS["tiled"], None, block)
    with pytest.raises(ValueError, match="block 0 of 3 nodes with 40 values each, got \\(2, 2, 4, 5\\)"):
        sums.sum(block[:2])
    with pytest.raises(RuntimeError, match="expected the last sum to be differentiated"):
        BlockSums(weight, BLOCKS["tiled"], None, block).sum(block).sum().backward()
    with pytest.raises(ValueError, match="block 1 of 0 nodes"):
        sums = BlockSums(weight, ALL, None, torch.zeros(12, 2, 4, 5))
        sums.sum(sums.sum(torch.zeros(12, 2, 4, 5)))
