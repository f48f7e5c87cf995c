"""A user's own data set: what is registered as "data", as a set that lies on the device.

    @hn.register("data", "blobs")
    def blobs(root, seed):
        return (train_images, train_labels), (test_images, test_labels)

It is called with what its signature names of ``root``, ``seed``, ``workers``, ``download`` and ``image_size`` and
with the ``arguments`` that the config gives it, and returns the official parts, training and test. Each is a pair of
arrays or tensors, images uint8 (n, channels, height, width) and n labels from 0; or a dataset as torchvision has
them: ``len()``, and of an index an image (PIL, or uint8 as above without n) and its label. Images are square and of
one size. Attributes of it may say more: ``mean`` and ``std``, a number a channel of images in [0, 1] (else measured),
``num_classes`` (else the largest label + 1), ``classes``, their names, ``augmentation``, a
hiddennet.data.Augmentation (else none).
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .request import TOLD, Request
from .sets import NO_AUGMENTATION, Pool, SmallSet


def own_set(name: str, read: Callable[..., Any]) -> SmallSet:
    """The set that a user registered as `name`. Reading raises ValueError for anything else than what is said above."""

    def pools(request: Request) -> tuple[Pool, Pool, int]:
        named = inspect.signature(read).parameters
        told = {key: getattr(request, key) for key in TOLD if key in named}
        found = read(**told, **(request.arguments or {}))
        if not isinstance(found, tuple) or len(found) != 2:
            raise ValueError(f"data {name!r}: expected it to return (training, test), got {type(found).__name__}")
        train, test = (_pool(name, part) for part in found)
        classes = getattr(read, "num_classes", None) or 1 + int(max(train.labels.max(), test.labels.max()))
        if min(train.labels.min(), test.labels.min()) < 0 or max(train.labels.max(), test.labels.max()) >= classes:
            raise ValueError(f"data {name!r}: expected labels from 0 to {classes - 1}, got others")
        names = getattr(read, "classes", None) or getattr(found[0], "classes", None) or ()  # also torchvision's
        named = all(isinstance(name, str) for name in names)
        return replace(train, classes=tuple(names) if named else ()), test, classes

    augmentation = getattr(read, "augmentation", NO_AUGMENTATION)
    return SmallSet(pools, getattr(read, "mean", None), getattr(read, "std", None), augmentation)


def _pool(name: str, part: Any) -> Pool:
    if isinstance(part, tuple):
        images, labels = (torch.as_tensor(values) for values in part)
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"data {name!r}: expected a label for each image, got {len(labels)} for {len(images)}")
        _check(name, images[0])
        return Pool(_labels(name, labels), lambda indices: images[torch.from_numpy(indices)])
    labels = getattr(part, "targets", None)
    labels = [part[i][1] for i in range(len(part))] if labels is None else labels
    if not len(labels):
        raise ValueError(f"data {name!r}: expected images in each part, got none")
    return Pool(_labels(name, labels), lambda indices: _stacked(name, part, indices))


def _labels(name: str, labels: Any) -> np.ndarray:
    """int64 (n,), of whole numbers alone: 0.9 is no class 0."""
    found = np.asarray(labels)
    if found.dtype.kind not in "iu" or found.ndim != 1 or (found.dtype.kind == "u" and found.max() > 2**62):
        raise ValueError(f"data {name!r}: expected a whole number for each label, got {found.dtype} {found.shape}")
    return found.astype(np.int64)


def _stacked(name: str, dataset: Any, indices: np.ndarray) -> torch.Tensor:
    images = []
    for index in indices.tolist():
        image = dataset[index][0]
        if not isinstance(image, torch.Tensor | np.ndarray):  # PIL: (height, width) or (height, width, channels)
            image = np.array(image)
            image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        images.append(torch.as_tensor(image))
        _check(name, images[-1], images[0].shape)
    return torch.stack(images)


def _check(name: str, image: torch.Tensor, shape: torch.Size | None = None) -> None:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[1] != image.shape[2]:
        raise ValueError(
            f"data {name!r}: expected square images, uint8 (channels, side, side), got {image.dtype} "
            f"{tuple(image.shape)}"
        )
    if shape is not None and image.shape != shape:
        raise ValueError(f"data {name!r}: expected images of one size, got {tuple(shape)} and {tuple(image.shape)}")
