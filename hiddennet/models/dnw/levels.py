"""When a small graph is run by `wired_levels`, and how: the small maps, few edges and float32 of a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from hiddennet.ops.looked_at import is_looked_at
from hiddennet.ops.wired_levels import SIDE, Levels
from hiddennet.ops.wired_sum import SPARSE_UP_TO


def runs_by_levels(stem: Tensor, weight: Tensor, levels: Levels) -> bool:
    """Whether the sums of these levels are better by lists of edges, of a whole graph at once; else block by block."""
    if is_looked_at() and not torch._C._is_tracing():  # a trace has the op; by blocks it fails
        return False
    if stem.device.type != "cpu" or stem.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if tuple(stem.shape[2:]) != (SIDE, SIDE):
        return False
    edges = sum(_edges(weight, *part) for part in {(level[:4]) for level in levels.of})
    return edges <= SPARSE_UP_TO["cpu"] * sum(r * c for _, r, _, c in {level[:4] for level in levels.of})


def _edges(weight: Tensor, row: int, rows: int, column: int, columns: int) -> int:
    return int(weight.detach()[row : row + rows, column : column + columns].count_nonzero())
