"""The 3x3 convolutions of a graph's nodes, one channel each."""

from __future__ import annotations

from torch import nn


class NodeConvs(nn.Conv2d):
    """A depthwise 3x3 convolution whose weights the graphs use block by block: no layer that hide() may replace."""

    never_hidden = True

    def __init__(self, nodes: int, stride: int = 1) -> None:
        super().__init__(nodes, nodes, 3, stride, padding=1, groups=nodes, bias=False)
