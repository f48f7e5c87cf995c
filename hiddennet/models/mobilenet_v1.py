"""MobileNetV1 (Howard et al., arXiv 1704.04861): small images get a stem of stride 1, larger ones of stride 2."""

from __future__ import annotations

import torch
from torch import nn

from .fused import norm_relu
from .layers import conv, linear, norm, scaled

STEM_CHANNELS = 32
# channels out and stride of each separable block
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
SMALL_IMAGE = 64  # up to this size the stem has stride 1


class Separable(nn.Module):
    """Depthwise 3x3, batch norm, ReLU, 1x1, batch norm, ReLU. (B, channels, H, W) to (B, out, H', W')."""

    def __init__(self, channels: int, out: int, stride: int, batch_norm: str) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3, stride, groups=channels)
        self.bn1 = norm(channels, batch_norm)
        self.conv2 = conv(channels, out, 1)
        self.bn2 = norm(out, batch_norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = norm_relu(self.bn1, self.conv1(x))
        return norm_relu(self.bn2, self.conv2(x))


class MobileNetV1(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes). ``width`` scales every layer's
    channels but the input's and the classes'. ``bias``: a zero bias in the classifier."""

    first_layer = "conv1"
    last_layer = "linear"

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
    ) -> None:
        super().__init__()
        channels = scaled(STEM_CHANNELS, width)
        self.conv1 = conv(in_channels, channels, 3, 1 if image_size <= SMALL_IMAGE else 2)
        self.bn1 = norm(channels, batch_norm)
        blocks = []
        for planes, stride in BLOCKS:
            out = scaled(planes, width)
            blocks.append(Separable(channels, out, stride, batch_norm))
            channels = out
        self.layers = nn.Sequential(*blocks)
        self.linear = linear(channels, num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.layers(norm_relu(self.bn1, self.conv1(images)))
        return self.linear(x.mean(dim=(2, 3)))
