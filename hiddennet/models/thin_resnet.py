"""The residual networks for CIFAR of 6n + 2 layers (He et al., arXiv 1512.03385, section 4.2): 16, 32
and 64 channels, and skip paths without weights. Not the wide ones of ``resnet``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .layers import conv, linear, norm, scaled

STAGE_CHANNELS = (16, 32, 64)


class ThinBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside a skip path. Where the shape changes the skip path
    takes every second pixel and puts empty channels on both sides ("option A")."""

    def __init__(self, channels: int, out: int, stride: int, batch_norm: str) -> None:
        super().__init__()
        self.conv1 = conv(channels, out, 3, stride)
        self.bn1 = norm(out, batch_norm)
        self.conv2 = conv(out, out, 3)
        self.bn2 = norm(out, batch_norm)
        self.stride = stride
        self.empty = ((out - channels) // 2, out - channels - (out - channels) // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if any(self.empty):
            x = F.pad(x, (0, 0, 0, 0, *self.empty))
        return F.relu(out + x, inplace=True)


class ThinResNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes).

    ``blocks``: blocks in each of the three stages (3 for 20 layers, 5 for 32). ``width`` scales every
    layer's channels but the input's and the classes'. ``bias``: a zero bias in the classifier.
    """

    first_layer = "conv1"
    last_layer = "fc"

    def __init__(
        self,
        blocks: int,
        *,
        num_classes: int,
        in_channels: int,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
    ) -> None:
        super().__init__()
        channels = scaled(STAGE_CHANNELS[0], width)
        self.conv1 = conv(in_channels, channels, 3)
        self.bn1 = norm(channels, batch_norm)
        for stage, planes in enumerate(STAGE_CHANNELS, start=1):
            out = scaled(planes, width)
            stage_blocks = []
            for i in range(blocks):
                stride = 2 if stage > 1 and i == 0 else 1
                stage_blocks.append(ThinBlock(channels, out, stride, batch_norm))
                channels = out
            self.add_module(f"layer{stage}", nn.Sequential(*stage_blocks))
        self.fc = linear(channels, num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
