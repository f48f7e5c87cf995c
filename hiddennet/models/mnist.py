"""Two convolutional nets for MNIST without batch norm: LeNet-5, and the net of the edge-popup authors'
example with its dropout. Not the stacks of ``small``, whose convolutions all keep the size."""

import torch
import torch.nn.functional as F
from torch import nn

from .fused import relu_pool
from .layers import conv, linear, scaled


def _check_side(side: int, image_size: int, least: int) -> None:
    if side < 1:
        raise ValueError(f"image_size: expected at least {least} for this network, got {image_size}; use larger images")


class LeNet5(nn.Module):
    """Images (B, in_channels, image_size, image_size) to logits (B, num_classes): 5x5 convolutions to 6
    and 16 channels, the first padded by 2, each with ReLU and a 2x2 max pooling; then 120, 84 units
    (400 in, for 28 pixels). ``bias``: zero biases in every layer."""

    first_layer = "conv1"
    last_layer = "fc3"

    def __init__(
        self, *, num_classes: int, in_channels: int, image_size: int, width: float = 1.0, bias: bool = False
    ) -> None:
        super().__init__()
        side = (image_size // 2 - 4) // 2
        _check_side(side, image_size, 12)
        six, sixteen, wide, narrow = (scaled(n, width) for n in (6, 16, 120, 84))
        self.conv1 = conv(in_channels, six, 5, bias=bias)
        self.conv2 = conv(six, sixteen, 5, padding=0, bias=bias)
        self.fc1 = linear(sixteen * side * side, wide, bias)
        self.fc2 = linear(wide, narrow, bias)
        self.fc3 = linear(narrow, num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = relu_pool(self.conv1(images))
        x = relu_pool(self.conv2(x)).flatten(1)
        x = F.relu(self.fc1(x), inplace=True)
        return self.fc3(F.relu(self.fc2(x), inplace=True))


class RamanujanNet(nn.Module):
    """Images (B, in_channels, image_size, image_size) to logits (B, num_classes): unpadded 3x3
    convolutions to 32 (ReLU) and 64 channels, a 2x2 max pooling, dropout of whole channels (0.25), 128
    units (ReLU), dropout (0.5). ``bias``: zero biases in every layer.

    The example ends in a log-softmax and a cross-entropy; the second log-softmax changes nothing, so
    logits are what it learns from.
    """

    first_layer = "conv1"
    last_layer = "fc2"

    def __init__(
        self, *, num_classes: int, in_channels: int, image_size: int, width: float = 1.0, bias: bool = False
    ) -> None:
        super().__init__()
        side = (image_size - 4) // 2
        _check_side(side, image_size, 6)
        first, second, wide = (scaled(n, width) for n in (32, 64, 128))
        self.conv1 = conv(in_channels, first, 3, padding=0, bias=bias)
        self.conv2 = conv(first, second, 3, padding=0, bias=bias)
        self.dropout1 = nn.Dropout2d(0.25)
        self.fc1 = linear(second * side * side, wide, bias)
        self.dropout2 = nn.Dropout(0.5)
        self.fc2 = linear(wide, num_classes, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv2(F.relu(self.conv1(images), inplace=True))
        x = self.dropout1(F.max_pool2d(x, 2)).flatten(1)
        return self.fc2(self.dropout2(F.relu(self.fc1(x), inplace=True)))
