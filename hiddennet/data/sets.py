"""The data sets: where each lies, how it is read, its normalisation and its augmentation. Not for
splits and loaders: see ``build``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from . import folders
from .augment import Augmentation
from .cifar import read_cifar10, read_cifar100
from .folders import ImageList
from .readers import Arrays, make_synthetic, read_digits, read_mnist
from .request import NORMALIZATIONS, Moments, Request
from .roots import locate

IMAGENET = NORMALIZATIONS["imagenet"]
CIFAR10 = ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
CIFAR100 = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
TINY_IMAGENET = ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821))
MNIST = ((0.1307,), (0.3081,))
FASHION_MNIST = ((0.2860,), (0.3530,))
DIGITS = ((0.3053,), (0.3760,))
NO_AUGMENTATION = Augmentation()
CROP_FLIP = Augmentation(pad=4, flip=True)
RESIZED_CROP_FLIP = Augmentation(resized_crop=True, flip=True)
PAD_RESIZED_CROP_FLIP = Augmentation(pad=4, resized_crop=True, flip=True)
TINY_IMAGENET_SIDE = 64
SYNTHETIC_IMAGES, SYNTHETIC_TEST_IMAGES = 1024, 256


@dataclass(frozen=True)
class Pool:
    """One official part of a set: its labels, int64 (N,), and its square images, fetched by index
    as uint8 (n, C, H, W). ``files``: where they are read from, if they are image files."""

    labels: np.ndarray
    pixels: Callable[[np.ndarray], torch.Tensor]
    classes: tuple[str, ...] = ()
    files: ImageList | None = None


@dataclass(frozen=True)
class SmallSet:
    """A set that lies on the device. ``image_size``: what the loaders give by default (None: the
    images' own size). ``mean``, ``std``: None: measured on the training images."""

    read: Callable[[Request], tuple[Pool, Pool, int]]
    mean: Moments | None = None
    std: Moments | None = None
    augmentation: Augmentation = NO_AUGMENTATION
    image_size: int | None = None


@dataclass(frozen=True)
class Listed:
    """A set of image files. ``validation``: where the set brings its own, else None."""

    train: ImageList
    validation: ImageList | None
    test: ImageList
    classes: tuple[str, ...]


def _array_pool(images: np.ndarray, labels: np.ndarray) -> Pool:
    return Pool(labels, lambda indices: torch.from_numpy(images[indices]))


def _pools(arrays: Arrays) -> tuple[Pool, Pool, int]:
    train = _array_pool(arrays.train_images, arrays.train_labels)
    return train, _array_pool(arrays.test_images, arrays.test_labels), arrays.num_classes


@dataclass(frozen=True)
class Files:
    """Where torchvision's class ``torchvision`` puts its files (``layout``, below the root or below
    root/folder for one of ``folders``, the set's name first), what the user puts there, and their
    reader."""

    layout: str
    folders: tuple[str, ...]
    contents: str
    torchvision: str
    read: Callable[[Path], Arrays]

    def __call__(self, request: Request) -> tuple[Pool, Pool, int]:
        folder = locate(
            self.folders[0],
            request.root,
            [self.layout, *(f"{folder}/{self.layout}" for folder in self.folders)],
            remedy=f"put {self.contents} there",
            torchvision=self.torchvision,
            download=request.download,
        )
        return _pools(self.read(folder))


def _synthetic(request: Request) -> tuple[Pool, Pool, int]:
    arrays = make_synthetic(
        channels=request.in_channels or 3,
        size=request.image_size or 32,
        num_classes=request.num_classes or 10,
        num_train=SYNTHETIC_IMAGES,
        num_test=SYNTHETIC_TEST_IMAGES,
        seed=request.seed,
    )
    return _pools(arrays)


def _tiny_imagenet(request: Request) -> tuple[Pool, Pool, int]:
    train = locate(
        "tiny_imagenet",
        request.root,
        ["tiny-imagenet-200/train", "tiny_imagenet/tiny-imagenet-200/train", "tiny_imagenet/train"],
        remedy="unpack tiny-imagenet-200.zip there",
        download=request.download,
    )
    classes = _classes(train, request)
    lists = (
        _training(train, classes, request),
        folders.tiny_imagenet_validation(_beside(train, "tiny_imagenet", ["val"]), classes),
    )

    def pool(images: ImageList) -> Pool:
        def pixels(indices: np.ndarray) -> torch.Tensor:
            return folders.decode(images.subset(indices), TINY_IMAGENET_SIDE, request.workers)

        return Pool(images.labels, pixels, tuple(classes), images)

    return pool(lists[0]), pool(lists[1]), len(classes)


def _beside(train: Path, name: str, names: list[str]) -> Path:
    return locate(name, train.parent, names, remedy="put the held-out images there")


def list_images(name: str, request: Request) -> Listed:
    """The image files of ``imagenet`` (train/ and val/) or of an ``image_folder`` (train/ and val/
    or test/; with both, val/ is the validation set)."""
    train = locate(
        name,
        request.root,
        [f"{name}/train", "train"],
        remedy="put the training images there, in a folder for each class",
        download=request.download,
    )
    classes = _classes(train, request)
    validation = None
    if name == "imagenet":
        test = _beside(train, name, ["val"])
    else:
        test = _beside(train, name, ["test", "val"])
        if test.name == "test" and (train.parent / "val").is_dir():
            validation = folders.scan(train.parent / "val", classes)
    return Listed(_training(train, classes, request), validation, folders.scan(test, classes), tuple(classes))


def _training(folder: Path, classes: list[str], request: Request) -> ImageList:
    """The training images. Raises ValueError where a class has none, unless the request names the classes."""
    images = folders.scan(folder, classes)
    empty = np.setdiff1d(np.arange(len(classes)), images.labels)
    if len(empty) and request.classes is None:
        raise ValueError(
            f"{folder}: expected training images of every class, got none in the folder {classes[empty[0]]!r}; "
            "remove the folder or put images there"
        )
    return images


def _classes(train: Path, request: Request) -> list[str]:
    """The names of the class folders, by label: those that the request gives, or what there is."""
    found = folders.class_folders(train)
    unknown = [name for name in found if name not in (request.classes or found)]
    if unknown:
        raise ValueError(
            f"{train}: expected classes that the network knows ({', '.join(request.classes[:4])}, ...), got the folder "
            f"{unknown[0]!r} besides; give it the name that it had in training, or remove it"
        )
    return list(request.classes or found)


_IDX = "its four idx files"
_MNIST = Files("MNIST/raw", ("mnist",), _IDX, "MNIST", read_mnist)
_FASHION = Files("FashionMNIST/raw", ("fashion_mnist",), _IDX, "FashionMNIST", read_mnist)
_CIFAR10 = Files(
    "cifar-10-batches-py",
    ("cifar10",),
    "the batches of cifar-10-python.tar.gz",
    "CIFAR10",
    read_cifar10,
)
_BIG_CIFAR10 = replace(_CIFAR10, folders=("big_cifar10", "cifar10"))
_CIFAR100 = Files(
    "cifar-100-python",
    ("cifar100",),
    "the files of cifar-100-python.tar.gz",
    "CIFAR100",
    read_cifar100,
)

SMALL: dict[str, SmallSet] = {
    "digits": SmallSet(lambda request: _pools(read_digits()), *DIGITS),
    "mnist": SmallSet(_MNIST, *MNIST),
    "fashion_mnist": SmallSet(_FASHION, *FASHION_MNIST, CROP_FLIP),
    "cifar10": SmallSet(_CIFAR10, *CIFAR10, CROP_FLIP),
    "cifar100": SmallSet(_CIFAR100, *CIFAR100, CROP_FLIP),
    "big_cifar10": SmallSet(_BIG_CIFAR10, *IMAGENET, RESIZED_CROP_FLIP, image_size=128),
    "tiny_imagenet": SmallSet(_tiny_imagenet, *TINY_IMAGENET, CROP_FLIP),
    "synthetic": SmallSet(_synthetic, (0.5,), (0.25,)),
}
LISTED_SIZE = 224
