"""Selection among usable edges that are rows' first ones: the same as by a mask, whatever the hint and the ties."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet.nn.edge_rules import only, prefixes, top_edges


def stairs(*runs, sources):
    usable = torch.zeros(sum(rows for rows, _ in runs), sources, dtype=torch.bool)
    first = 0
    for rows, width in runs:
        usable[first : first + rows, :width] = True
        first += rows
    return usable


def test_prefixes_of_rows():
    assert prefixes(stairs((2, 3), (4, 5), (1, 7), sources=7)) == ((0, 2, 3), (2, 6, 5), (6, 7, 7))
    assert prefixes(stairs((2, 0), (2, 4), sources=4)) == ((0, 2, 0), (2, 4, 4))
    assert prefixes(torch.ones(3, 2, dtype=torch.bool)) == ((0, 3, 2),)
    assert prefixes(stairs((2, 3), sources=4).flip(1)) is None
    many = stairs(*((1, i) for i in range(65)), sources=70)
    assert prefixes(many) is None
    assert len(prefixes(many[:64])) == 64


@pytest.mark.parametrize("k", [0, 1, 7, 50, 99, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_prefixes_choose_what_a_mask_does(k, ties):
    usable = stairs((4, 0), (5, 8), (6, 10), sources=12)
    weight = torch.randn(15, 12, generator=torch.Generator().manual_seed(k))
    weight = weight.sign() if ties else weight
    hint = None
    for _ in range(3):  # cold, warm, warm with other weights
        want, _ = top_edges(weight, k, usable, None)
        found, hint = top_edges(weight, k, prefixes(usable), hint)
        assert torch.equal(found, want)
        assert int(found.count_nonzero()) == k
        weight = weight + (0 if ties else 0.1 * torch.randn(15, 12, generator=torch.Generator().manual_seed(1)))


def test_a_wiring_of_prefixes_keeps_what_its_mask_says():
    usable = stairs((6, 4), (6, 10), sources=12)
    wiring = hn.nn.Wiring(12, 12, edges=20, usable=usable)
    with torch.no_grad():
        wiring.weight.normal_()  # also where no edge is usable
    for _ in range(4):
        found = wiring.effective_weight().detach()
        assert torch.equal(found, only(wiring.mask(), wiring.weight.detach()))
        assert not (wiring.mask() & ~usable).any() and int(wiring.mask().sum()) == 20
        with torch.no_grad():
            wiring.weight.add_(0.2 * torch.randn(12, 12))
