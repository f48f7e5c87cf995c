"""wired_sum with sources of two bytes: the same bits as with four."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hiddennet.ops import Edges, pack_edges, wired_sum
from tests.checks import assert_equal

SHAPES = {  # images, sources, destinations, side, density
    "14x14": (3, 70, 37, 14, 0.1),
    "7x7, packed": (9, 40, 65, 7, 0.2),
    "1x1 maps": (300, 33, 10, 1, 0.3),
    "no edges": (2, 5, 6, 9, 0.0),
}


def make(name, device):
    n, sources, destinations, side, density = SHAPES[name]
    weight = torch.randn(destinations, sources) * (torch.rand(destinations, sources) < density)
    return torch.randn(n, sources, side, side).to(device), weight.to(device)


@pytest.mark.parametrize("name", SHAPES)
def test_sources_in_two_bytes(device, name):
    x, weight = make(name, device)
    edges = pack_edges(weight)
    few = replace(edges, sources=edges.sources.to(torch.uint16))
    assert_equal(wired_sum(x, few), wired_sum(x, edges))
    for part in ("starts", "sources", "values"):
        assert_equal(getattr(few.transposed, part), getattr(edges.transposed, part), part)
    x.requires_grad_()
    (got,) = torch.autograd.grad(wired_sum(x, few).sum(), x)
    (want,) = torch.autograd.grad(wired_sum(x, edges).sum(), x)
    assert_equal(got, want)


def test_sources_in_two_bytes_are_checked():
    starts, values = torch.tensor([0, 1], dtype=torch.int32), torch.ones(1)
    with pytest.raises(ValueError, match=r"expected sources in \[0, 9\), got others"):
        Edges(starts, torch.tensor([9], dtype=torch.uint16), values, 9)
    few = Edges(starts, torch.tensor([8], dtype=torch.uint16), values, 9)
    few.sources.fill_(9)
    with pytest.raises(RuntimeError, match=r"expected sources in \[0, 9\), got 9"):
        wired_sum(torch.ones(1, 9, 2, 2), few)
