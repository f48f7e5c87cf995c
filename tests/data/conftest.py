"""Writers of tiny data sets in the standard layouts, for the tests of this folder."""

from __future__ import annotations

import gzip
import pickle
from types import SimpleNamespace

import numpy as np
import pytest


def write_cifar(root, *, classes=10, per_batch=20, num_test=20, seed=0):
    """CIFAR-10's or CIFAR-100's Python batches; returns the arrays that were written."""
    random = np.random.RandomState(seed)
    ten = classes == 10
    folder = root / ("cifar-10-batches-py" if ten else "cifar-100-python")
    folder.mkdir(parents=True)
    train = [f"data_batch_{i}" for i in range(1, 6)] if ten else ["train"]
    test = "test_batch" if ten else "test"
    written = {}
    for file in [*train, test]:
        count = num_test if file == test else per_batch
        images = random.randint(0, 256, (count, 3072)).astype(np.uint8)
        labels = [i % classes for i in range(count)]
        batch = {"data": images, "labels" if ten else "fine_labels": labels}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
        written[file] = images.reshape(-1, 3, 32, 32), np.array(labels)
    images, labels = (np.concatenate(parts) for parts in zip(*map(written.get, train), strict=True))
    return SimpleNamespace(
        folder=folder,
        train=train,
        train_images=images,
        train_labels=labels,
        test=test,
        test_images=written[test][0],
        test_labels=written[test][1],
    )


def write_mnist(folder, *, num_train=40, num_test=20, packed=False, seed=0, side=28):
    """The four idx files of MNIST, gzipped where ``packed``; returns the arrays."""
    random = np.random.RandomState(seed)
    folder.mkdir(parents=True)
    arrays = []
    for part, count in (("train", num_train), ("t10k", num_test)):
        images = random.randint(0, 256, (count, side, side)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            name, content = f"{part}-{kind}-ubyte", head + array.tobytes()
            if packed:
                name, content = name + ".gz", gzip.compress(content)
            (folder / name).write_bytes(content)
        arrays += [images[:, None], labels.astype(np.int64)]
    return arrays


def write_images(folder, files, *, side=64, seed=0):
    """Random RGB pictures ``files`` (names below ``folder``; PNG content); returns name -> pixels.

    ``side``: a number, or a function of the random generator that gives (height, width).
    """
    from PIL import Image

    random = np.random.RandomState(seed)
    pictures = {}
    for name in files:
        shape = side(random) if callable(side) else (side, side)
        pixels = random.randint(0, 256, (*shape, 3)).astype(np.uint8)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format="PNG")
        pictures[name] = pixels
    return pictures


@pytest.fixture
def write():
    """The writers: ``write.cifar``, ``write.mnist``, ``write.images``."""
    return SimpleNamespace(cifar=write_cifar, mnist=write_mnist, images=write_images)
