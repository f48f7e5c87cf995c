"""Inputs of many sizes: a few are measured, the others go the way of the nearest; nothing grows with their number."""

from __future__ import annotations

import json

import torch

import hiddennet as hn
from hiddennet import tuned
from hiddennet.ops import conv_ways


def _step(layer, side: int, n: int = 2) -> None:
    layer(torch.randn(n, 20, side, side).contiguous(memory_format=torch.channels_last)).sum().backward()


def test_only_a_few_sizes_are_measured(measuring, monkeypatch):
    measured = []

    def measure(direction, conv, names, tensors):
        measured.append((direction, conv.input))
        large = "lists" if direction == "forward" else "panels"
        return {name: 1.0 if (name == large) == (conv.input[2] > 8) else 5.0 for name in names}

    monkeypatch.setattr(conv_ways, "_measure", measure)
    layer = hn.HiddenConv2d(20, 24, 3, 1, 1).to(memory_format=torch.channels_last)
    for side in range(5, 25):
        _step(layer, side)
    assert [size[2] for direction, size in measured if direction == "forward"] == list(range(5, 5 + conv_ways.SIZES))
    assert len(conv_ways._chosen) == len(measured) == 2 * conv_ways.SIZES
    assert sum(map(len, json.loads(tuned.cache_file().read_text()).popitem()[1].values())) == len(measured)
    conv = next(iter(conv_ways._chosen))[1]
    found = [conv_ways.choose("forward", conv._replace(input=(2, 20, side, side)), ()) for side in (4, 40)]
    assert found == ["effective_weight", "lists"]


def test_other_layers_are_measured_all_the_same(measuring):
    for channels in range(24, 24 + 2 * conv_ways.SIZES):
        _step(hn.HiddenConv2d(20, channels, 3, 1, 1).to(memory_format=torch.channels_last), 6)
    assert len(conv_ways._chosen) == 4 * conv_ways.SIZES


def test_deterministic_mode_counts_from_when_it_is_on(measuring):
    measuring["panels"] = measuring["lists"] = 1.0
    layer = hn.HiddenConv2d(20, 24, 3, 1, 1).to(memory_format=torch.channels_last)
    y = layer(torch.randn(2, 20, 6, 6).contiguous(memory_format=torch.channels_last)).sum()
    torch.use_deterministic_algorithms(True)
    try:
        y.backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert {direction for direction, _ in conv_ways._chosen} == {"forward"}
