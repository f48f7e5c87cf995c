"""Grouped and PerChannel: the highest scores of each group of a layer's weights. Masks made in Python, no kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rule import Selecting
from hiddennet.nn.rules import check_fraction, kept_count
from hiddennet.ops.checks import ORDERS, check_choice
from hiddennet.registry import register

_TOP_BIT = -(2**31)
_COMPARED = 32  # rows up to this length are ranked by comparing their members with each other


def _keys(scores: Tensor, by: str) -> Tensor:
    """int32 in the order of selection: the keys of csrc/base/key.cuh, their top bit turned since these are signed."""
    bits = scores.view(torch.int32)
    magnitude = bits & 0x7FFFFFFF
    if by == "magnitude":
        keys = magnitude ^ _TOP_BIT
    else:
        keys = torch.where((bits < 0) & (magnitude != 0), ~magnitude, magnitude)
    return keys.masked_fill(magnitude > 0x7F800000, 0x7FFFFFFF)


def top_of_rows(scores: Tensor, k: int, by: str) -> Tensor:
    """The k highest scores of each row: bool [rows, n]. Exactly k; of equal ones the lower index is pruned first.

    scores: float32 [rows, n]. No sort: short rows are ranked by comparing, long ones by the selection kernel, all rows
    in one call.
    """
    scores = scores.contiguous()
    keys, n = _keys(scores, by), scores.shape[1]
    if n <= _COMPARED:
        above = torch.zeros_like(keys)
        for j in range(n):
            other = keys[:, j : j + 1]
            above[:, :j] += other >= keys[:, :j]
            above[:, j + 1 :] += other > keys[:, j + 1 :]
        return above < k
    rows = ops.topk_select(list(scores.unbind(0)), [k] * len(scores), by=by)
    threshold, cut = rows[:, :1] ^ _TOP_BIT, rows[:, 1:2]
    index = torch.arange(n, dtype=torch.int32, device=scores.device)
    return (keys > threshold) | ((keys == threshold) & (index >= cut))


@register("rule", "grouped")
@dataclass(frozen=True)
class Grouped(Selecting):
    """n of every m neighbours: the highest scores of each group of m input channels, at each output and kernel tap.

    The n:m sparsity that hardware runs (2:4), with masks that are learned as edge-popup learns its: straight through to
    every score. Groups as in Zhou et al. 2021 (arXiv 2102.04010), where a layer's weight is [out, in, *kernel].

    Args:
        n, m: how many of how many are kept, 0 <= n <= m.
        by: rank "magnitude" or signed "value".

    A layer whose input channels (of a group) are no multiple of m is refused: exclude it.
    """

    n: int
    m: int
    by: str = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.n <= self.m and self.m >= 1):
            raise ValueError(f"Grouped: expected 0 <= n <= m and m of at least 1, got n={self.n}, m={self.m}")
        check_choice("Grouped", "by", self.by, ORDERS)

    def attach(self, layer: nn.Module) -> Grouped:
        channels = layer.weight_shape[1]
        if channels % self.m:
            raise ValueError(
                f"{type(layer).__name__}: expected input channels in groups of {self.m} for Grouped(n={self.n}, "
                f"m={self.m}), got {channels} in a weight of shape {tuple(layer.weight_shape)}; exclude the layer"
            )
        return self

    def keep(self, layer: nn.Module, scores: Tensor) -> Tensor:
        last = scores.movedim(1, -1)  # [out, *kernel, in]
        kept = top_of_rows(last.reshape(-1, self.m), self.n, self.by)
        return kept.view(last.shape).movedim(-1, 1)

    def density_of(self, layer: nn.Module) -> float:
        return self.n / self.m


@register("rule", "per_channel")
@dataclass(frozen=True)
class PerChannel(Selecting):
    """The highest scores of each output channel: edge-popup, where every filter keeps equally many weights.

    Args:
        density: kept fraction in [0, 1]; of a filter's n weights n - int((1 - density) n) are kept.
        by: rank "magnitude" or signed "value".
    """

    density: float
    by: str = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("PerChannel", "a density", self.density, "the kept fraction")
        check_choice("PerChannel", "by", self.by, ORDERS)

    def keep(self, layer: nn.Module, scores: Tensor) -> Tensor:
        filters = scores.contiguous().flatten(1)
        return top_of_rows(filters, kept_count(filters.shape[1], self.density), self.by).view(scores.shape)

    def density_of(self, layer: nn.Module) -> float:
        return self.density
