"""A small graph level by level: nodes' norms, filters and edge sums, in plain PyTorch and any dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hiddennet.ops.wired_levels import Levels


def wired_levels(start: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, taps: Tensor, levels: Levels) -> Tensor:
    """The last level's sums [images, rows, h, w], differentiable; every position of the weight is an edge."""

    def send(maps: Tensor, row: int, norm: bool) -> Tensor:
        mine = slice(row, row + maps.shape[1])
        if norm:
            maps = F.instance_norm(maps, weight=scale[mine], bias=shift[mine], eps=levels.eps)
        return F.conv2d(maps.relu(), taps[mine], padding=1, groups=maps.shape[1])

    sent, before, top = send(start, levels.of[0][0], levels.first_norm), start, 0
    for i, (row, rows, column, columns, first) in enumerate(levels.of[1:], start=2):
        part = weight[row : row + rows, column : column + columns]
        received = torch.einsum("vu,buhw->bvhw", part, sent[:, first : first + columns])
        if i == len(levels.of):
            return received + before[:, row - top : row - top + rows] if levels.lateral else received
        before, top = received, row
        sent = torch.cat((sent, send(received, row, True)), dim=1)
    raise AssertionError("at least two levels")
