"""Small networks: plain stacks of 3x3 convolutions and fully connected layers, without batch norm
unless asked for.

The fully connected net and Conv-2/4/6/8 of Frankle and Carbin (arXiv 1803.03635), as Ramanujan et
al. (arXiv 1911.13299) use them, Conv-4/6 with batch norm, fully connected nets of 1000 units a layer,
and two nets for 8x8 digits. Not for residual networks.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .fused import Stack
from .layers import conv, linear, norm, scaled

POOL = "P"


class SmallNet(nn.Module):
    """Convolutions (``convs``), then fully connected layers (``linear``), ReLU after all but the
    last; images (B, in_channels, image_size, image_size) to logits (B, num_classes).

    ``plan`` lists the channels of the 3x3 convolutions, with ``POOL`` for a 2x2 max pooling;
    ``hidden`` the widths of the fully connected layers before the classifier. ``width`` scales
    both; the input and the output stay as they are. ``bias``: zero biases in every layer.

    ``batch_norm``: None, or a kind for a batch norm behind every layer but the last, whose fully
    connected layers are then 1x1 convolutions, as Chen et al. (Peek-a-Boo, ICLR 2022) have them.

    Raises ValueError for an image too small for its poolings.
    """

    def __init__(
        self,
        plan: Sequence[int | str],
        hidden: Sequence[int],
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        width: float = 1.0,
        batch_norm: str | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        side = image_size // 2 ** plan.count(POOL)
        if side < 1:
            raise ValueError(
                f"image_size: expected at least {2 ** plan.count(POOL)} for a network with "
                f"{plan.count(POOL)} poolings, got {image_size}; use larger images or a "
                "shallower model"
            )
        convs: list[nn.Module] = []
        channels = in_channels
        for step in plan:
            if step == POOL:
                convs.append(nn.MaxPool2d(2))
            else:
                wide = scaled(step, width)
                convs += [conv(channels, wide, 3, bias=bias), *_active(wide, batch_norm)]
                channels = wide
        features = [channels * side * side, *(scaled(n, width) for n in hidden), num_classes]
        dense: list[nn.Module] = []
        for i, wide in enumerate(features[1:]):
            if i > 0:
                dense += _active(features[i], batch_norm)
            dense.append(
                linear(features[i], wide, bias) if batch_norm is None else conv(features[i], wide, 1, bias=bias)
            )
        large = image_size >= 16  # smaller maps: a call costs more than a pass over them
        self.convs = (Stack if large and (POOL in plan or batch_norm) else nn.Sequential)(*convs)
        self.linear = nn.Sequential(*dense)
        self.pixels = batch_norm is not None
        self.first_layer = "convs.0" if convs else "linear.0"
        self.last_layer = f"linear.{len(self.linear) - 1}"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.convs(images).flatten(1)
        return self.linear(x[:, :, None, None] if self.pixels else x).flatten(1)


def _active(channels: int, batch_norm: str | None) -> list[nn.Module]:
    normed = [] if batch_norm is None else [norm(channels, batch_norm)]
    return [*normed, nn.ReLU(inplace=True)]
