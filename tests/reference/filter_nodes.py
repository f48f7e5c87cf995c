"""What the nodes of a wiring do in evaluation, in float64."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def filter_nodes(x: Tensor, scale: Tensor, shift: Tensor, taps: Tensor, stride: int) -> Tensor:
    """float64 [N, nodes, H', W'] of x [N, nodes, H, W]."""
    ready = F.relu(x.double() * scale.double()[:, None, None] + shift.double()[:, None, None])
    return F.conv2d(ready, taps.double()[:, None], stride=stride, padding=1, groups=len(taps))
