"""Readers of small sets: MNIST and Fashion-MNIST from their idx files, plain or gzipped (LeCun et al. 1998),
scikit-learn's digits, and random images for tests and benchmarks. CIFAR: ``cifar``; downloading them: ``roots``."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hiddennet.data.order import derived_seed, stratified


@dataclass(frozen=True)
class Arrays:
    """Images uint8 (N, C, H, W), square, and labels int64 (N,) below ``num_classes``."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int


MOST_BYTES = 2**30  # of a set that is held in memory; MNIST has 47 million


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of the idx file ``path``, or of ``path``.gz where there is no plain one.

    Raises FileNotFoundError for neither and ValueError for a damaged file.
    """
    packed = path.with_name(path.name + ".gz")
    file = path if path.exists() else packed
    head = 4 + 4 * dimensions
    try:
        with (gzip.open if file is packed else open)(file, "rb") as stream:
            data = stream.read(head)
            if len(data) < head or data[:4] != bytes([0, 0, 8, dimensions]):
                raise _corrupt(file, dimensions, f"a file that begins with {data[:4].hex() or 'nothing'}")
            shape = tuple(map(int, np.frombuffer(data, ">u4", dimensions, 4)))
            if math.prod(shape) > MOST_BYTES:
                raise _corrupt(file, dimensions, f"the shape {shape}, which is more than {MOST_BYTES} bytes")
            data = stream.read(math.prod(shape) + 1)  # no more of a file that unfolds to gigabytes
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: expected an idx file, or the same with .gz, got neither; put it there or set "
            "data.download=true after deleting the folder"
        ) from error
    except (EOFError, OSError, zlib.error) as error:
        raise _corrupt(file, dimensions, str(error)) from error
    wanted = math.prod(shape)
    if len(data) != wanted:
        found = f"{len(data)}" if len(data) < wanted else f"more than {wanted}"
        raise _corrupt(file, dimensions, f"{found} bytes for the shape {list(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _corrupt(file: Path, dimensions: int, found: str) -> ValueError:
    return ValueError(
        f"{file}: expected an idx file of uint8 with {dimensions} dimension(s), got {found}; "
        "delete it and fetch it again"
    )


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(folder / f"{part}-images-idx3-ubyte", 3)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels) or images.shape[1] != images.shape[2]:
        raise ValueError(
            f"{folder}: expected square {part} images and as many labels, got {images.shape} and "
            f"{len(labels)}; fetch the files again"
        )
    if len(labels) and labels.max() > 9:
        raise ValueError(f"{folder}: expected {part} labels from 0 to 9, got {labels.max()}")
    return images[:, None], labels.astype(np.int64)


def read_mnist(folder: Path) -> Arrays:
    """``MNIST/raw`` or ``FashionMNIST/raw``: {train,t10k}-{images-idx3,labels-idx1}-ubyte."""
    return Arrays(*_read_part(folder, "train"), *_read_part(folder, "t10k"), 10)


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
