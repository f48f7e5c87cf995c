"""Residual networks (He et al., arXiv 1512.03385) for CIFAR and for ImageNet, plain and wide.

One class for both: they differ in the stem, in the name of the projection on the skip path and in
nothing else. A bottleneck's stride sits on its 3x3 convolution ("v1.5"). Not for pre-activation
networks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .fused import norm_relu
from .layers import conv, linear, norm, scaled, stages

STAGE_CHANNELS = (64, 128, 256, 512)


class Block(nn.Module):
    """A residual block: convolutions, each followed by batch norm, beside a skip path.

    ``layers`` are (channels_out, kernel, stride) of its convolutions ``conv1``, ``conv2``, ...; those
    of more than 1x1 are in ``groups``. The skip path is an identity, or a 1x1 convolution and batch
    norm (module ``skip_name``) when the stride or the number of channels asks for it.
    """

    def __init__(
        self,
        channels: int,
        layers: Sequence[tuple[int, int, int]],
        *,
        batch_norm: str,
        skip_name: str,
        groups: int = 1,
    ) -> None:
        super().__init__()
        stride, out = 1, channels
        for i, (wide, kernel, step) in enumerate(layers, start=1):
            self.add_module(f"conv{i}", conv(out, wide, kernel, step, groups=groups if kernel > 1 else 1))
            self.add_module(f"bn{i}", norm(wide, batch_norm))
            stride, out = stride * step, wide
        self.depth = len(layers)
        self.skip_name = skip_name if stride != 1 or out != channels else None
        if self.skip_name:
            projection = nn.Sequential(conv(channels, out, 1, stride), norm(out, batch_norm))
            self.add_module(skip_name, projection)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for i in range(1, self.depth + 1):
            last = i == self.depth
            skip = None if not last else getattr(self, self.skip_name)(x) if self.skip_name else x
            out = norm_relu(getattr(self, f"bn{i}"), getattr(self, f"conv{i}")(out), skip)
        return out


class ResNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes).

    ``blocks``: blocks in each of the four stages. ``bottleneck``: 1x1, 3x3, 1x1 with four times the
    channels out, else two 3x3. ``inner``: factor on the inner channels of a bottleneck (2 in the
    wide networks). ``groups``: of its 3x3 convolution (32 in ResNeXt, Xie et al., arXiv 1611.05431).
    ``stem``: ``cifar`` (3x3, stride 1) or ``imagenet`` (7x7, stride 2, and a max pooling). ``width``
    scales every layer's channels but the input's, the classes' and, unless ``stem_scaled``, the
    stem's: it keeps 64, as in Chijiwa et al. (arXiv 2106.09269). ``bias``: a zero bias in the
    classifier.
    """

    first_layer = "conv1"
    last_layer = "fc"

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        bottleneck: bool,
        stem: str,
        num_classes: int,
        in_channels: int,
        inner: int = 1,
        groups: int = 1,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
        stem_scaled: bool = True,
    ) -> None:
        super().__init__()
        self.stem, cifar = stem, stem == "cifar"
        skip_name = "shortcut" if cifar else "downsample"
        channels = scaled(STAGE_CHANNELS[0], width) if stem_scaled else STAGE_CHANNELS[0]
        self.conv1 = conv(in_channels, channels, 3 if cifar else 7, 1 if cifar else 2)
        self.bn1 = norm(channels, batch_norm)
        self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
        expansion = 4 if bottleneck else 1
        if any(scaled(planes, width) * inner % groups for planes in STAGE_CHANNELS):
            raise ValueError(
                f"width: expected convolutions that can be split into {groups} groups, got {width}; "
                f"use a multiple of {groups / (STAGE_CHANNELS[0] * inner):g}"
            )

        def block(channels: int, out: int, stride: int) -> Block:
            thin = out // expansion
            if bottleneck:
                layers = [(thin * inner, 1, 1), (thin * inner, 3, stride), (out, 1, 1)]
            else:
                layers = [(thin, 3, stride), (thin, 3, 1)]
            return Block(channels, layers, batch_norm=batch_norm, skip_name=skip_name, groups=groups)

        outs = [scaled(planes, width) * expansion for planes in STAGE_CHANNELS]
        for number, stage in enumerate(stages(channels, outs, blocks, block), start=1):
            self.add_module(f"layer{number}", stage)
        self.fc = linear(outs[-1], num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(norm_relu(self.bn1, self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
