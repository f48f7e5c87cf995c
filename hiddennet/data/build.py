"""The data sets by name: ``build`` makes the loaders of one. Not where files are read or batches
are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from hiddennet.registry import register

from .augment import Augmentation
from .choices import given_moments, moments, of_training, parts
from .own import own_set
from .request import DATA, LISTED, Request
from .resident import ResidentLoader
from .sets import IMAGENET, LISTED_SIZE, RESIZED_CROP_FLIP, SMALL, SmallSet, list_images
from .split import stratified
from .streaming import StreamingLoader
from .text import TEXT, TextLoader, locate_text, read_text

Loader = ResidentLoader | StreamingLoader | TextLoader


@dataclass(frozen=True)
class Data:
    """A data set's loaders: iterables of (images float32 (B, in_channels, image_size, image_size)
    normalised, labels int64 (B,)) on the device, with ``len()`` (batches), ``num_images`` and
    ``set_epoch(epoch)``.

    ``validation`` is None where none was asked for. ``augmentation`` is that of the training
    images; ``mean`` and ``std`` of the channels are those of the normalisation of all. Of a text the
    batches are those of ``TextLoader``, ``num_classes`` the words of its vocabulary, and ``image_size``
    the words a batch has of each of its columns (``in_channels`` is 1, and there are no moments).
    """

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    train: Loader
    validation: Loader | None
    test: Loader
    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Maker:
    """How one of our own sets is made into loaders; what a user registers is called for its images, see own.py."""

    make: Callable[[Request], Data]


def names() -> list[str]:
    """The names ``build`` knows, sorted."""
    return sorted(DATA)


def build(name: str, *, batch_size: int, device: str | torch.device, seed: int, **more: Any) -> Data:
    """Makes the loaders of the data set ``name``, one of ``names()``; the arguments are those of Request.

    Raises ValueError for an impossible argument or a damaged file, FileNotFoundError for missing
    files, TypeError for an unknown argument.
    """
    request = Request(name, batch_size, device, seed, **more)
    request.check()
    found = DATA[name]
    return found.make(request) if isinstance(found, Maker) else _small(own_set(name, found), request)


def _small(entry: SmallSet, request: Request) -> Data:
    train, test, num_classes = entry.read(request)
    chosen, held, tested = parts(request, train.labels, test.labels, request.validation)
    kept = np.union1d(chosen, held)
    images, test_images = train.pixels(kept), test.pixels(tested)
    channels = images.shape[1]
    size = request.image_size or entry.image_size or images.shape[-1]
    mean, std = moments(request, entry, images)
    augmentation = of_training(request, entry)
    common = partial(ResidentLoader, size=size, mean=mean, std=std, channels_last=request.channels_last)

    device = request.device
    images, test_images = images.to(device), test_images.to(device)
    labels = torch.from_numpy(train.labels[kept]).to(device)
    test_labels = torch.from_numpy(test.labels[tested]).to(device)

    def rows(indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.searchsorted(kept, indices))

    def loader(indices: np.ndarray, shuffle: bool, augmentation: Augmentation) -> Loader:
        order = request.order(len(indices), shuffle)
        return common(images, labels, rows(indices), order, augmentation=augmentation)

    return Data(
        name=request.name,
        num_classes=num_classes,
        in_channels=channels,
        image_size=size,
        train=loader(chosen, True, augmentation),
        validation=loader(held, False, Augmentation()) if len(held) else None,
        test=common(
            test_images,
            test_labels,
            torch.arange(len(tested)),
            request.order(len(tested), False),
        ),
        augmentation=augmentation,
        mean=mean,
        std=std,
    )


def _listed(request: Request) -> Data:
    listed = list_images(request.name, request)
    own = listed.validation if request.validation else None
    validation = request.validation if own is None else 0
    chosen, held, tested = parts(request, listed.train.labels, listed.test.labels, validation)
    if own is None:
        held_images = listed.train.subset(held)
    elif request.limit is not None and request.limit < len(listed.train):
        fewer = -(-len(own) * request.limit // len(listed.train))
        part = stratified(own.labels, fewer, seed=request.seed, purpose="limit validation")
        held_images = own.subset(part)
    else:
        held_images = own
    size = request.image_size or LISTED_SIZE
    mean, std = given_moments(request, 3) or IMAGENET

    def loader(images, shuffle: bool, augmented: bool) -> Loader:
        return StreamingLoader(
            images,
            request.order(len(images), shuffle),
            size=size,
            mean=mean,
            std=std,
            device=request.device,
            workers=request.workers,
            augmented=augmented,
            channels_last=request.channels_last,
        )

    return Data(
        name=request.name,
        num_classes=listed.num_classes,
        in_channels=3,
        image_size=size,
        train=loader(listed.train.subset(chosen), True, request.augment),
        validation=loader(held_images, False, False) if len(held_images) else None,
        test=loader(listed.test.subset(tested), False, False),
        augmentation=RESIZED_CROP_FLIP if request.augment else Augmentation(),
        mean=mean,
        std=std,
    )


def _text(request: Request) -> Data:
    text = read_text(locate_text(request.root))
    share = 1.0 if request.limit is None else min(1.0, request.limit / len(text.train))

    def loader(words: torch.Tensor) -> TextLoader:
        return TextLoader(
            words[: math.ceil(share * len(words))],
            batch_size=request.batch_size,
            bptt=request.bptt,
            device=request.device,
            rank=request.rank,
            world_size=request.world_size,
        )

    return Data(
        name=request.name,
        num_classes=len(text.words),
        in_channels=1,
        image_size=request.bptt,
        train=loader(text.train),
        validation=loader(text.validation) if request.validation else None,
        test=loader(text.test),
        augmentation=Augmentation(),
        mean=(),
        std=(),
    )


for _name, _entry in SMALL.items():
    register("data", _name)(Maker(partial(_small, _entry)))
for _name in LISTED:
    register("data", _name)(Maker(_listed))
for _name in TEXT:
    register("data", _name)(Maker(_text))
