"""Small graphs that are counted or differentiated forwards: one op hides neither operations nor tangents."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from hiddennet.models.dnw import StaticConfig, StaticGraph, base


@pytest.fixture
def network(monkeypatch) -> StaticGraph:
    torch.manual_seed(0)
    found, ran = StaticGraph(StaticConfig()), []
    whole = base.wired_levels
    monkeypatch.setattr(base, "wired_levels", lambda *given: (ran.append(1), whole(*given))[1])
    found(torch.randn(2, 3, 32, 32))
    assert ran, "otherwise nothing is tested here"
    return found


def test_operations_are_counted_whichever_way(network, monkeypatch):
    def count() -> int:
        with FlopCounterMode(display=False) as counter:
            network(torch.randn(2, 3, 32, 32)).sum().backward()
        return counter.get_total_flops()

    found = count()
    monkeypatch.setattr(base, "runs_by_levels", lambda *given: False)
    assert found == count()


def test_a_tangent_is_not_dropped(network):
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode AD"):
        network(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.filterwarnings("ignore")
def test_a_trace_computes_the_same(network):
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(network, x)(x), network(x))
