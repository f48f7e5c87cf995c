"""Pull form: sums over one buffer of all earlier nodes are those of plain products, over lists of edges or without."""

from __future__ import annotations

import pytest
import torch

from hiddennet.nn.pull import PullBuffer, edge_lists, node_sum, slices

WIDTHS, ROWS = (3, 5, 4), (5, 4, 6)  # nodes that each pull brings, and rows that it sums
SPANS = ((0, 5, 0, 3), (5, 9, 0, 8), (9, 15, 8, 12))


def weight_of(density, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(15, 12, generator=generator, dtype=torch.float64)
    return (drawn * (torch.rand(15, 12, generator=generator) < density)).to(dtype).requires_grad_()


def first_block(dtype=torch.float32):
    return (
        torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
    )


def pulled(block, weight, *, lists):
    pieces = slices(weight, SPANS)
    edges = edge_lists(weight.detach(), SPANS) if lists else (None,) * 3
    buffer = PullBuffer(sum(WIDTHS), block)
    for i, (piece, (_, _, first, _)) in enumerate(zip(pieces, SPANS, strict=True)):
        received = buffer.pull(block, piece, first=first, last=i == 2, edges=edges[i])
        block = received.tanh()
    return received


def plain(block, weight):
    sources = block
    for a, b, c, d in SPANS:
        received = torch.einsum("vu,buhw->bvhw", weight[a:b, c:d], sources[:, c:d])
        sources = torch.cat((sources, received.tanh()), dim=1)
    return received


@pytest.mark.parametrize("density", [0.0, 0.15, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_and_gradients(dtype, density):
    results = []
    for forward in (plain, lambda b, w: pulled(b, w, lists=False), lambda b, w: pulled(b, w, lists=True)):
        block, weight = first_block(dtype), weight_of(density, dtype)
        out = forward(block, weight)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        results.append((out.detach(), block.grad, weight.grad))
    for found in results[1:]:
        for got, want in zip(found, results[0], strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


def test_lists_are_for_few_edges_in_float32():
    assert [edges is None for edges in edge_lists(weight_of(0.15).detach(), SPANS)] == [False] * 3
    assert edge_lists(weight_of(1.0).detach(), SPANS) == (None,) * 3
    assert edge_lists(weight_of(0.15, torch.float64).detach(), SPANS) == (None,) * 3


def test_the_dense_weight_is_not_read_where_there_is_a_list():
    weight = weight_of(0.15).detach()
    (edges,) = edge_lists(weight, ((0, 15, 0, 12),))
    maps = torch.randn(12, 2, 4, 5)
    found = node_sum(maps, torch.full_like(weight, torch.nan), edges)
    torch.testing.assert_close(found, torch.einsum("vu,ubhw->vbhw", weight, maps))


@pytest.mark.parametrize("lists", [False, True])
def test_node_sum_and_its_gradients(lists):
    weight, maps = weight_of(0.15), torch.randn(12, 2, 4, 5, requires_grad=True)
    edges = edge_lists(weight.detach(), ((0, 15, 0, 12),))[0] if lists else None
    factor = torch.randn(15, 2, 4, 5)
    found = node_sum(maps, weight, edges)
    got = found, *torch.autograd.grad((found * factor).sum(), (maps, weight))
    want = torch.einsum("vu,ubhw->vbhw", weight, maps)
    wanted = want, *torch.autograd.grad((want * factor).sum(), (maps, weight))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_a_frozen_weight_and_a_frozen_block():
    for block, weight in ((first_block(), weight_of(0.15).detach()), (first_block().detach(), weight_of(0.15))):
        pulled(block, weight, lists=True).sum().backward()
        want = [x.grad.clone() for x in (block, weight) if x.requires_grad]
        again = [x.detach().requires_grad_(x.requires_grad) for x in (block, weight)]
        plain(*again).sum().backward()
        for got, expected in zip(want, (x.grad for x in again if x.requires_grad), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_errors():
    block, weight = first_block(), weight_of(0.15)
    with pytest.raises(ValueError, match=r"at most 2 nodes and weights of 3 of them, got 3 nodes and weights \(5, 3\)"):
        PullBuffer(2, block).pull(block, weight[:5, :3])
    with pytest.raises(ValueError, match=r"weights of 3 of them, got 3 nodes and weights \(5, 4\)"):
        PullBuffer(12, block).pull(block, weight[:5, :4])
    (edges,) = edge_lists(weight.detach(), ((0, 4, 0, 3),))
    with pytest.raises(ValueError, match=r"edges of a weight \(5, 3\), got ones of \(4, 3\)"):
        PullBuffer(12, block).pull(block, weight[:5, :3], edges=edges)
    with pytest.raises(RuntimeError, match="expected the last pull to be differentiated"):
        PullBuffer(12, block).pull(block, weight[:5, :3]).sum().backward()
