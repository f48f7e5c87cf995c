"""Residual networks (He et al., arXiv 1512.03385) for CIFAR and for ImageNet, plain and wide; for CIFAR
also those of 6n + 2 layers and of 16, 32 and 64 channels (section 4.2), and wide ones with
pre-activation (Zagoruyko and Komodakis, arXiv 1605.07146).

ResNet is one class for both: they differ in the stem, in the name of the projection on the skip path
and in nothing else. A bottleneck's stride sits on its 3x3 convolution ("v1.5").
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from hiddennet.models.fused import norm_relu
from hiddennet.models.layers import conv, linear, norm, scaled, stages

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


THIN_CHANNELS = (16, 32, 64)


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
    skip paths have weights where the shape changes. ``factor``: of the stages' channels over 16, 32, 64.
    ``width`` scales every layer's channels but the input's and the classes'. ``bias``: a zero bias in the
    classifier.
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
        factor: int = 1,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
    ) -> None:
        super().__init__()
        outs = [scaled(planes * factor, width) for planes in THIN_CHANNELS]
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


STEM_CHANNELS = 16


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
        outs = [scaled(planes * factor, width) for planes in THIN_CHANNELS]
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
