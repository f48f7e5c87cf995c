"""VGG with batch norm for small images (Simonyan and Zisserman, arXiv 1409.1556): 8 to 16 convolutions,
a global average and one classifier."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .fused import Stack
from .layers import conv, linear, norm, scaled

STAGE_CHANNELS = (64, 128, 256, 512, 512)  # each stage ends in a pooling
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class Vgg(nn.Module):
    """Images (B, in_channels, H, W), H and W at least 32, to logits (B, num_classes).

    ``counts``: convolutions in each of the five stages. ``width`` scales every layer's channels but
    the input's and the classes'. ``bias``: a zero bias in the classifier; ``conv_bias``: in the
    convolutions. Raises ValueError for an image too small for its poolings.
    """

    first_layer = "features.0"
    last_layer = "classifier"

    def __init__(
        self,
        counts: Sequence[int],
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        width: float = 1.0,
        batch_norm: str = "affine",
        bias: bool = False,
        conv_bias: bool = False,
    ) -> None:
        super().__init__()
        if image_size < 2 ** len(counts):
            raise ValueError(
                f"image_size: expected at least {2 ** len(counts)} for a network with {len(counts)} poolings, "
                f"got {image_size}; use larger images or a shallower model"
            )
        features: list[nn.Module] = []
        channels = in_channels
        for planes, count in zip(STAGE_CHANNELS, counts, strict=True):
            for _ in range(count):
                out = scaled(planes, width)
                features += [conv(channels, out, 3, bias=conv_bias), norm(out, batch_norm), nn.ReLU(inplace=True)]
                channels = out
            features.append(nn.MaxPool2d(2))
        self.features = Stack(*features)
        self.classifier = linear(channels, num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))
