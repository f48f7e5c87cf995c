"""Reads CIFAR-10 and CIFAR-100 from their Python batches (Krizhevsky 2009).

The files are pickles; nothing but NumPy arrays, lists and strings is let in. Not for downloading
them: see ``roots``.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from .arrays import Arrays

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can make NumPy arrays and nothing else that is callable."""

    def find_class(self, module: str, name: str):
        reconstruct = np.empty(0, np.uint8).__reduce__()[0]
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("_codecs", "encode"): str.encode,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"a reference to {module}.{name}")
        return allowed[module, name]


def _read_batch(path: Path, label_key: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        with open(path, "rb") as file:
            batch = _ArraysOnly(file, encoding="latin1").load()
        images = np.asarray(batch["data"])
        labels = np.asarray(batch[label_key], dtype=np.int64)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected a batch of CIFAR, got no file; unpack the archive again") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _corrupt(path, f"{type(error).__name__}: {error}") from error
    if images.dtype != np.uint8 or images.shape != (len(labels), PIXELS):
        raise _corrupt(path, f"{images.dtype} {images.shape} and {len(labels)} labels")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise _corrupt(path, f"labels from {labels.min()} to {labels.max()}")
    return images.reshape(-1, 3, SIDE, SIDE), labels


def _corrupt(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected a batch of CIFAR with uint8 images (N, {PIXELS}) and their labels, got "
        f"{found}; delete it and unpack the archive again"
    )


def _read(folder: Path, train: list[str], key: str, num_classes: int, test: str) -> Arrays:
    batches = [_read_batch(folder / file, key, num_classes) for file in train]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Arrays(images, labels, *_read_batch(folder / test, key, num_classes), num_classes)


def read_cifar10(folder: Path) -> Arrays:
    """``cifar-10-batches-py``: data_batch_1 ... data_batch_5 and test_batch."""
    return _read(folder, [f"data_batch_{i}" for i in range(1, 6)], "labels", 10, "test_batch")


def read_cifar100(folder: Path) -> Arrays:
    """``cifar-100-python``: train and test, with the 100 fine labels."""
    return _read(folder, ["train"], "fine_labels", 100, "test")
