"""The input that a network says it takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def example_of(model: nn.Module, key: str) -> Tensor:
    """Two images of zeros of the network's shape. key: what the mistake names.

    Raises ValueError for a network that does not say what it takes.
    """
    made = getattr(model, "architecture", None) or {}
    channels, side = made.get("in_channels"), made.get("image_size")
    if channels is None or side is None:
        raise ValueError(
            f"{key}: expected an example of the input, since {type(model).__name__} does not say what it takes, got "
            "none; give one with example="
        )
    return torch.zeros(2, channels, side, side)
