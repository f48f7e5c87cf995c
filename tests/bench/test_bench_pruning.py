"""The re-implemented pruning loop of Peek-a-Boo gives the masks of plain float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.originals_peek_a_boo import Synflow, masked_twin
from hiddennet.pruning import densities
from tests.reference import pruning as oracle

pytestmark = pytest.mark.usefixtures("one_thread")


def test_synflow_loop():
    layers = [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 4))
    twin = masked_twin(copy.deepcopy(net))
    before = {name: p.detach().clone() for name, p in twin.named_parameters()}
    loop = Synflow(twin, (3, 8, 8))
    loop.run(densities(0.2, 6))
    want = oracle.prune(net, ["0.weight", "3.weight"], "synflow", densities(0.2, 6), input_shape=(3, 8, 8))
    found = [mask.bool() for mask, _ in loop.pairs]
    assert all(torch.equal(a, b) for a, b in zip(found, want.values(), strict=True))
    assert all(torch.equal(p, before[name]) for name, p in twin.named_parameters())  # signs are back
