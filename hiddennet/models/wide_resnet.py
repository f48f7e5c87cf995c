"""Wide residual networks with pre-activation for CIFAR (Zagoruyko and Komodakis, arXiv 1605.07146).
Not the wide bottleneck networks for ImageNet: see ``resnet``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .layers import conv, linear, norm, scaled

STEM_CHANNELS = 16
GROUP_CHANNELS = (16, 32, 64)


class WideBlock(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, twice, beside a skip path: an identity, or where the
    number of channels changes a 1x1 convolution of the activated input (``shortcut``)."""

    def __init__(self, channels: int, out: int, stride: int, batch_norm: str) -> None:
        super().__init__()
        self.bn1 = norm(channels, batch_norm)
        self.conv1 = conv(channels, out, 3, stride)
        self.bn2 = norm(out, batch_norm)
        self.conv2 = conv(out, out, 3)
        self.shortcut = conv(channels, out, 1, stride) if stride != 1 or channels != out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = F.relu(self.bn1(x))  # not in place: without batch norm it would change x
        skip = x if self.shortcut is None else self.shortcut(active)
        return skip + self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))


class WideResNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes).

    ``blocks``: blocks in each of the three groups (4 for 28 layers). ``factor``: of the groups'
    channels over 16, 32, 64. ``width`` scales every layer's channels, the stem's too. ``bias``: a
    zero bias in the classifier.
    """

    first_layer = "conv1"
    last_layer = "fc"

    def __init__(
        self,
        blocks: int,
        factor: int,
        *,
        num_classes: int,
        in_channels: int,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
    ) -> None:
        super().__init__()
        channels = scaled(STEM_CHANNELS, width)
        self.conv1 = conv(in_channels, channels, 3)
        for group, planes in enumerate(GROUP_CHANNELS, start=1):
            out = scaled(planes * factor, width)
            group_blocks = []
            for i in range(blocks):
                stride = 2 if group > 1 and i == 0 else 1
                group_blocks.append(WideBlock(channels, out, stride, batch_norm))
                channels = out
            self.add_module(f"block{group}", nn.Sequential(*group_blocks))
        self.bn1 = norm(channels, batch_norm)
        self.fc = linear(channels, num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        x = F.relu(self.bn1(x), inplace=True)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
