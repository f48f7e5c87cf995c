"""MobileNetV1 (Howard et al., arXiv 1704.04861), and MobileNetV2 for CIFAR (Sandler et al., arXiv 1801.04381) with
the strides that small images need, ReLU in place of ReLU6, and a projection on skip paths whose channels change."""

import torch
import torch.nn.functional as F
from torch import nn

from hiddennet.models.fused import norm_relu
from hiddennet.models.layers import conv, linear, norm, scaled

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
# expansion, channels out, blocks, stride of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """A 1x1 convolution to ``expansion`` times the channels, a depthwise 3x3, a 1x1 back; batch norm
    after each, no ReLU after the last. At stride 1 a skip path is added: an identity, or a 1x1
    convolution and batch norm (``shortcut``) where the channels change."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int, batch_norm: str) -> None:
        super().__init__()
        inner = expansion * channels
        self.conv1 = conv(channels, inner, 1)
        self.bn1 = norm(inner, batch_norm)
        self.conv2 = conv(inner, inner, 3, stride, groups=inner)
        self.bn2 = norm(inner, batch_norm)
        self.conv3 = conv(inner, out, 1)
        self.bn3 = norm(out, batch_norm)
        self.has_skip = stride == 1
        self.shortcut = nn.Sequential()
        if stride == 1 and channels != out:
            self.shortcut = nn.Sequential(conv(channels, out, 1), norm(out, batch_norm))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = norm_relu(self.bn1, self.conv1(x))
        out = norm_relu(self.bn2, self.conv2(out))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.has_skip else out


class MobileNetV2(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes). ``width`` scales every layer's
    channels but the input's and the classes'. ``bias``: a zero bias in the classifier."""

    first_layer = "conv1"
    last_layer = "fc"

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
    ) -> None:
        super().__init__()
        channels, head = scaled(STEM_CHANNELS, width), scaled(HEAD_CHANNELS, width)
        self.conv1 = conv(in_channels, channels, 3)
        self.bn1 = norm(channels, batch_norm)
        blocks = []
        for expansion, planes, count, stride in STAGES:
            out = scaled(planes, width)
            for i in range(count):
                blocks.append(InvertedResidual(channels, out, expansion, stride if i == 0 else 1, batch_norm))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = conv(channels, head, 1)
        self.bn2 = norm(head, batch_norm)
        self.fc = linear(head, num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.blocks(norm_relu(self.bn1, self.conv1(images)))
        x = norm_relu(self.bn2, self.conv2(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


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
