"""Wide residual networks with pre-activation for CIFAR (Zagoruyko and Komodakis, arXiv 1605.07146).
Not the wide bottleneck networks for ImageNet: see ``resnet``."""

import torch
import torch.nn.functional as F
from torch import nn

from .fused import norm_relu
from .layers import conv, linear, norm, scaled, stages

STEM_CHANNELS = 16
GROUP_CHANNELS = (16, 32, 64)


class WideBlock(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, twice, beside a skip path: an identity, or where the
    shape changes a 1x1 convolution (``shortcut``). That one sees the activated input and the stride is
    the first convolution's; if ``plain_skip``, it sees the input itself and the stride is the second's."""

    def __init__(self, channels: int, out: int, stride: int, batch_norm: str, plain_skip: bool) -> None:
        super().__init__()
        self.bn1 = norm(channels, batch_norm)
        self.conv1 = conv(channels, out, 3, 1 if plain_skip else stride)
        self.bn2 = norm(out, batch_norm)
        self.conv2 = conv(out, out, 3, stride if plain_skip else 1)
        self.shortcut = conv(channels, out, 1, stride) if stride != 1 or channels != out else None
        self.plain_skip = plain_skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = norm_relu(self.bn1, x, inplace=False)  # in place, and without batch norm, it would change x
        skip = x if self.shortcut is None else self.shortcut(x if self.plain_skip else active)
        return skip + self.conv2(norm_relu(self.bn2, self.conv1(active)))


class WideResNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes).

    ``blocks``: blocks in each of the three groups (4 for 28 layers). ``factor``: of the groups'
    channels over 16, 32, 64. ``plain_skip``: of the blocks, see there. ``last_momentum``: of the
    running statistics of the batch norm before the average. ``width`` scales every layer's channels,
    the stem's too. ``bias``: a zero bias in the classifier.
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
        plain_skip: bool = False,
        last_momentum: float = 0.1,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.plain_skip = plain_skip
        stem = scaled(STEM_CHANNELS, width)
        outs = [scaled(planes * factor, width) for planes in GROUP_CHANNELS]
        self.conv1 = conv(in_channels, stem, 3)

        def block(channels: int, out: int, stride: int) -> WideBlock:
            return WideBlock(channels, out, stride, batch_norm, plain_skip)

        for number, group in enumerate(stages(stem, outs, [blocks] * 3, block), start=1):
            self.add_module(f"block{number}", group)
        self.bn1 = norm(outs[-1], batch_norm, last_momentum)
        self.fc = linear(outs[-1], num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        x = norm_relu(self.bn1, x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
