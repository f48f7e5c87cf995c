"""Sets that need no files: scikit-learn's digits, and random images for tests and benchmarks."""

import numpy as np

from .arrays import Arrays
from .order import derived_seed
from .split import stratified

DIGITS_TEST_IMAGES = 360


def read_digits() -> Arrays:
    """The 1797 handwritten digits of 8x8 pixels that come with scikit-learn, grey levels 0 ... 16
    spread over 0 ... 255; 1437 for training, 360 for testing, the same whatever the seed."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = data.target.astype(np.int64)
    test = stratified(labels, DIGITS_TEST_IMAGES, seed=0, purpose="digits test")
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Arrays(images[train], labels[train], images[test], labels[test], 10)


def make_synthetic(*, channels: int, size: int, num_classes: int, num_train: int, num_test: int, seed: int) -> Arrays:
    """Random images that can be learned: a random pattern for each class, half covered by noise.
    Labels run through the classes in turn."""
    random = np.random.RandomState(derived_seed(seed, "synthetic"))
    patterns = random.randint(0, 128, (num_classes, channels, size, size), dtype=np.uint8)

    def images(labels: np.ndarray) -> np.ndarray:
        noise = random.randint(0, 128, (len(labels), channels, size, size), dtype=np.uint8)
        return patterns[labels] + noise

    train, test = np.arange(num_train) % num_classes, np.arange(num_test) % num_classes
    return Arrays(images(train), train, images(test), test, num_classes)
