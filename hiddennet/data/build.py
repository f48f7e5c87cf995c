"""The data sets by name: ``build`` makes the loaders of one. Not where files are read or batches
are made."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .augment import Augmentation
from .choices import Choices, parts
from .order import Order
from .resident import ResidentLoader
from .sets import IMAGENET, LISTED, LISTED_SIZE, RESIZED_CROP_FLIP, SMALL, Source, list_images
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
class _Loading:
    """What all loaders of a set have in common."""

    batch_size: int
    device: torch.device
    seed: int
    rank: int
    world_size: int
    channels_last: bool

    def order(self, num_images: int, shuffle: bool) -> Order:
        return Order(num_images, self.batch_size, shuffle, self.seed, self.rank, self.world_size)


def names() -> list[str]:
    """The names ``build`` knows, sorted."""
    return sorted([*SMALL, *LISTED, *TEXT])


def build(
    name: str,
    *,
    root: str | Path = "data",
    batch_size: int,
    device: str | torch.device,
    seed: int,
    validation: float | int = 0.1,
    split: str = "stratified",
    split_seed: int | None = None,
    augment: bool = True,
    augmentation: str = "standard",
    normalization: str = "own",
    workers: int = 4,
    image_size: int | None = None,
    limit: int | None = None,
    download: bool = False,
    in_channels: int | None = None,
    num_classes: int | None = None,
    bptt: int = 35,
    rank: int = 0,
    world_size: int = 1,
    channels_last: bool = False,
) -> Data:
    """Makes the loaders of the data set ``name``, one of ``names()``.

    Args:
        root: the folder below which the sets lie in torchvision's layouts, or in
            ``root/<name>/...``.
        batch_size: images a batch, on each rank; the last batch takes what is left. Of a text the
            columns that are read side by side.
        seed: draws the validation split, the order and the augmentation; the official test images
            are never touched.
        validation: fraction of the training images set aside, or their count; never augmented; 0:
            none. An ``image_folder`` with both val/ and test/ uses its val/, a text its valid.txt,
            unless 0.
        split: how they are chosen: ``stratified``, each class in proportion, or ``permutation``, the
            last of a random order.
        split_seed: draws the validation split in place of ``seed``.
        augment: whether training images are augmented.
        augmentation: ``standard``, the set's own: crop from 4 pixels of padding and flip
            (cifar10, cifar100, fashion_mnist, tiny_imagenet), random resized crop and flip
            (big_cifar10, imagenet, image_folder); none for digits, mnist and synthetic. Or
            ``pad_resized_crop``: a random resized crop from 4 pixels of padding and flip (arXiv
            2106.09269), not for imagenet and image_folder.
        normalization: by the set's ``own`` mean and standard deviation, or by those of ``imagenet``,
            for images of 3 channels.
        workers: processes that read image files (threads, for tiny_imagenet's one reading).
        image_size: side of the images given; None: their own (128 for big_cifar10, 224 for
            imagenet and image_folder).
        limit: at most so many training images, stratified, and as much less of the test images; of a
            text the first so many words.
        download: lets torchvision fetch a missing set.
        in_channels, num_classes: of ``synthetic`` only (3 and 10).
        bptt: words that a batch has of each column of a text, and the steps gradients go back.
        rank, world_size: this process's share of every epoch; as many batches on each rank.
        channels_last: memory format of the images.

    Raises ValueError for an impossible argument or a damaged file, FileNotFoundError for missing
    files.
    """
    _check(name, image_size, limit, workers, in_channels, num_classes)
    choices = Choices(validation, split, split_seed, augment, augmentation, normalization)
    choices.check(name)
    source = Source(Path(root), seed, workers, download, image_size, in_channels, num_classes, limit)
    loading = _Loading(batch_size, torch.device(device), seed, rank, world_size, channels_last)
    if name in TEXT:
        return _text(name, source, loading, choices, bptt)
    make = _listed if name in LISTED else _small
    return make(name, source, loading, choices)


def _check(
    name: str,
    image_size: int | None,
    limit: int | None,
    workers: int,
    in_channels: int | None,
    num_classes: int | None,
) -> None:
    if name not in names():
        near = difflib.get_close_matches(str(name).lower(), names(), n=1, cutoff=0.0)
        raise ValueError(f"data: expected one of {', '.join(names())}, got {name!r}; did you mean {near[0]!r}?")
    shape = {"in_channels": in_channels, "num_classes": num_classes}
    for key, value in {"image_size": image_size, "limit": limit, **shape}.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{key}: expected a whole number of at least 1, got {value!r}")
        if value is not None and key in shape and name != "synthetic":
            raise ValueError(f"{key}: expected it with data.name=synthetic only, got {name}")
    if workers < 0:
        raise ValueError(f"workers: expected 0 or more, got {workers}")


def _small(name: str, source: Source, loading: _Loading, choices: Choices) -> Data:
    entry = SMALL[name]
    train, test, num_classes = entry.read(source)
    chosen, held, tested = parts(train.labels, test.labels, choices, source.limit, source.seed)
    kept = np.union1d(chosen, held)
    images, test_images = train.pixels(kept), test.pixels(tested)
    channels = images.shape[1]
    size = source.image_size or entry.image_size or images.shape[-1]
    mean, std = choices.moments(name, entry, channels)
    augmentation = choices.of_training(entry)
    common = partial(ResidentLoader, size=size, mean=mean, std=std, channels_last=loading.channels_last)

    device = loading.device
    images, test_images = images.to(device), test_images.to(device)
    labels = torch.from_numpy(train.labels[kept]).to(device)
    test_labels = torch.from_numpy(test.labels[tested]).to(device)

    def rows(indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.searchsorted(kept, indices))

    def loader(indices: np.ndarray, shuffle: bool, augmentation: Augmentation) -> Loader:
        order = loading.order(len(indices), shuffle)
        return common(images, labels, rows(indices), order, augmentation=augmentation)

    return Data(
        name=name,
        num_classes=num_classes,
        in_channels=channels,
        image_size=size,
        train=loader(chosen, True, augmentation),
        validation=loader(held, False, Augmentation()) if len(held) else None,
        test=common(
            test_images,
            test_labels,
            torch.arange(len(tested)),
            loading.order(len(tested), False),
        ),
        augmentation=augmentation,
        mean=mean,
        std=std,
    )


def _listed(name: str, source: Source, loading: _Loading, choices: Choices) -> Data:
    listed = list_images(name, source)
    own = listed.validation if choices.validation else None
    chosen, held, tested = parts(
        listed.train.labels,
        listed.test.labels,
        choices if own is None else replace(choices, validation=0),
        source.limit,
        source.seed,
    )
    if own is None:
        held_images = listed.train.subset(held)
    elif source.limit is not None and source.limit < len(listed.train):
        fewer = -(-len(own) * source.limit // len(listed.train))
        part = stratified(own.labels, fewer, seed=source.seed, purpose="limit validation")
        held_images = own.subset(part)
    else:
        held_images = own
    size = source.image_size or LISTED_SIZE
    mean, std = IMAGENET

    def loader(images, shuffle: bool, augmented: bool) -> Loader:
        return StreamingLoader(
            images,
            loading.order(len(images), shuffle),
            size=size,
            mean=mean,
            std=std,
            device=loading.device,
            workers=source.workers,
            augmented=augmented,
            channels_last=loading.channels_last,
        )

    return Data(
        name=name,
        num_classes=listed.num_classes,
        in_channels=3,
        image_size=size,
        train=loader(listed.train.subset(chosen), True, choices.augment),
        validation=loader(held_images, False, False) if len(held_images) else None,
        test=loader(listed.test.subset(tested), False, False),
        augmentation=RESIZED_CROP_FLIP if choices.augment else Augmentation(),
        mean=mean,
        std=std,
    )


def _text(name: str, source: Source, loading: _Loading, choices: Choices, bptt: int) -> Data:
    if bptt < 1:
        raise ValueError(f"bptt: expected at least 1, got {bptt}")
    text = read_text(locate_text(source.root))
    share = 1.0 if source.limit is None else min(1.0, source.limit / len(text.train))

    def loader(words: torch.Tensor) -> TextLoader:
        return TextLoader(
            words[: math.ceil(share * len(words))],
            batch_size=loading.batch_size,
            bptt=bptt,
            device=loading.device,
            rank=loading.rank,
            world_size=loading.world_size,
        )

    return Data(
        name=name,
        num_classes=len(text.words),
        in_channels=1,
        image_size=bptt,
        train=loader(text.train),
        validation=loader(text.validation) if choices.validation else None,
        test=loader(text.test),
        augmentation=Augmentation(),
        mean=(),
        std=(),
    )
