"""The data sets by name: ``build`` makes the loaders of one. Not where files are read or batches
are made."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from hiddennet.registry import register

from .augment import Augmentation
from .choices import given_moments, moments, of_training, parts
from .fingerprint import Contents, absent, of_files, of_tensors, of_text
from .order import stratified
from .own import own_set
from .request import DATA, LISTED, Request
from .resident import ResidentLoader
from .sets import IMAGENET, LISTED_SIZE, RESIZED_CROP_FLIP, SMALL, Pool, SmallSet, list_images
from .streaming import StreamingLoader
from .text import FILES, TEXT, TextLoader, locate_text, read_text

Loader = ResidentLoader | StreamingLoader | TextLoader


@dataclass(frozen=True)
class Data:
    """A data set's loaders: iterables of (images float32 (B, in_channels, image_size, image_size)
    normalised, labels int64 (B,)) on the device, with ``len()`` (batches), ``num_images`` and
    ``set_epoch(epoch)``.

    ``classes``: their names by label, of sets that name them. ``contents``: what tells these images from others, see
    fingerprint.py. ``notes``: sentences on them. ``validation`` is None where none was asked for.
    ``augmentation`` is that of the training images; ``mean`` and ``std`` of the channels are those of
    the normalisation of all.
    Of a text the batches are those of ``TextLoader``, ``num_classes`` the words of its vocabulary, and ``image_size``
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
    contents: Contents
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
    found = DATA.find(name)
    made = found.make(request) if isinstance(found, Maker) else _small(own_set(name, found), request)
    if made.num_classes < 2:
        raise ValueError(f"data {name!r}: expected images of at least two classes, got one: there is nothing to learn")
    return made


def contents(name: str, *, batch_size: int, device: str | torch.device, seed: int, **more: Any) -> Contents:
    """The ``contents`` of what ``build`` makes, without decoding image files. Raises as ``build``."""
    if name == "tiny_imagenet":
        request = Request(name, batch_size, device, seed, **more)
        request.check()
        return _of_pools(*SMALL[name].read(request)[:2])
    return build(name, batch_size=batch_size, device=device, seed=seed, **more).contents


def _of_pools(train: Pool, test: Pool) -> Contents:
    return of_files({"train": train.files, "test": test.files}, train.classes)


def _small(entry: SmallSet, request: Request) -> Data:
    train, test, num_classes = entry.read(request)
    chosen, held, tested = parts(request, train.labels, test.labels, request.validation)
    kept = np.union1d(chosen, held)
    images, test_images = train.pixels(kept), test.pixels(tested)
    labels, test_labels = torch.from_numpy(train.labels[kept]), torch.from_numpy(test.labels[tested])
    if train.files is None:
        found = of_tensors({"train": (images, labels), "test": (test_images, test_labels)}, train.classes)
    else:
        found = _of_pools(train, test)
    watched = {"validation": train.labels[held], "test": test.labels[tested]}
    channels = images.shape[1]
    size = request.image_size or entry.image_size or images.shape[-1]
    mean, std = moments(request, entry, images)
    augmentation = of_training(request, entry)
    common = partial(ResidentLoader, size=size, mean=mean, std=std, channels_last=request.channels_last)

    device = request.device
    images, test_images = images.to(device), test_images.to(device)
    labels, test_labels = labels.to(device), test_labels.to(device)

    def loader(indices: np.ndarray, shuffle: bool, augmentation: Augmentation) -> Loader:
        order = request.order(len(indices), shuffle)
        rows = torch.from_numpy(np.searchsorted(kept, indices))
        return common(images, labels, rows, order, augmentation=augmentation)

    return Data(
        name=request.name,
        num_classes=num_classes,
        in_channels=channels,
        image_size=size,
        train=loader(chosen, True, augmentation),
        validation=loader(held, False, Augmentation()) if len(held) else None,
        test=common(test_images, test_labels, torch.arange(len(tested)), request.order(len(tested), False)),
        augmentation=augmentation,
        mean=mean,
        std=std,
        contents=found,
        classes=train.classes,
        notes=_absent(watched, num_classes, train.classes),
    )


def _absent(watched: dict[str, np.ndarray], num_classes: int, classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        s for part, labels in watched.items() if len(labels) for s in absent(part, labels, num_classes, classes)
    )


def _listed(request: Request) -> Data:
    listed = list_images(request.name, request)
    own = listed.validation if request.validation else None
    validation = request.validation if own is None else 0
    chosen, held, tested = parts(request, listed.train.labels, listed.test.labels, validation)
    held_images = listed.train.subset(held) if own is None else own
    if own is not None and request.limit is not None and request.limit < len(listed.train):
        fewer = -(-len(own) * request.limit // len(listed.train))
        held_images = own.subset(stratified(own.labels, fewer, seed=request.seed, purpose="limit validation"))
    watched = {"validation": held_images.labels, "test": listed.test.labels[tested]}
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
        num_classes=len(listed.classes),
        in_channels=3,
        image_size=size,
        train=loader(listed.train.subset(chosen), True, request.augment),
        validation=loader(held_images, False, False) if len(held_images) else None,
        test=loader(listed.test.subset(tested), False, False),
        augmentation=RESIZED_CROP_FLIP if request.augment else Augmentation(),
        mean=mean,
        std=std,
        contents=of_files({"train": listed.train, "validation": own, "test": listed.test}, listed.classes),
        classes=listed.classes,
        notes=_absent(watched, len(listed.classes), listed.classes),
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
        contents=of_text({part: getattr(text, part) for part in FILES}, text.words),
    )


for _name, _entry in SMALL.items():
    register("data", _name)(Maker(partial(_small, _entry)))
for _name in LISTED:
    register("data", _name)(Maker(_listed))
for _name in TEXT:
    register("data", _name)(Maker(_text))
