"""What the readers of small sets return. Not for sets of image files."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Arrays:
    """Images uint8 (N, C, H, W), square, and labels int64 (N,) below ``num_classes``."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
