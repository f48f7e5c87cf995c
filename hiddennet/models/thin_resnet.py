"""The residual networks for CIFAR of 6n + 2 layers (He et al., arXiv 1512.03385, section 4.2): 16, 32
and 64 channels. Not the wide ones of ``resnet``."""

import torch
import torch.nn.functional as F
from torch import nn

from .fused import norm_relu
from .layers import conv, linear, norm, scaled, stages

STAGE_CHANNELS = (16, 32, 64)


class ThinBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside a skip path. Where the shape changes the skip path is
    a 1x1 convolution and batch norm (``shortcut``, "option B") if ``projection``; else it has no
    weights: it takes every second pixel and puts empty channels on both sides ("option A")."""

    def __init__(self, channels: int, out: int, stride: int, batch_norm: str, projection: bool) -> None:
        super().__init__()
        self.conv1 = conv(channels, out, 3, stride)
        self.bn1 = norm(out, batch_norm)
        self.conv2 = conv(out, out, 3)
        self.bn2 = norm(out, batch_norm)
        self.stride = stride
        self.empty = ((out - channels) // 2, out - channels - (out - channels) // 2)
        self.shortcut = None
        if projection and (stride != 1 or channels != out):
            self.shortcut = nn.Sequential(conv(channels, out, 1, stride), norm(out, batch_norm))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv2(norm_relu(self.bn1, self.conv1(x)))
        return norm_relu(self.bn2, out, self._skip(x))

    def _skip(self, x: torch.Tensor) -> torch.Tensor:
        if self.shortcut is not None:
            return self.shortcut(x)
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, *self.empty)) if any(self.empty) else x


class ThinResNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes).

    ``blocks``: blocks in each of the three stages (3 for 20 layers, 5 for 32). ``projection``: whether
    skip paths have weights where the shape changes. ``width`` scales every layer's channels but the
    input's and the classes'. ``bias``: a zero bias in the classifier.
    """

    first_layer = "conv1"
    last_layer = "fc"

    def __init__(
        self,
        blocks: int,
        *,
        num_classes: int,
        in_channels: int,
        projection: bool = False,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
    ) -> None:
        super().__init__()
        outs = [scaled(planes, width) for planes in STAGE_CHANNELS]
        self.conv1 = conv(in_channels, outs[0], 3)
        self.bn1 = norm(outs[0], batch_norm)

        def block(channels: int, out: int, stride: int) -> ThinBlock:
            return ThinBlock(channels, out, stride, batch_norm, projection)

        for number, stage in enumerate(stages(outs[0], outs, [blocks] * 3, block), start=1):
            self.add_module(f"layer{number}", stage)
        self.fc = linear(outs[-1], num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = norm_relu(self.bn1, self.conv1(images))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
