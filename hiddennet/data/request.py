"""What a data set is asked for: the arguments of ``build``, with their defaults and what is wrong between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import hiddennet.outside  # noqa: F401  (which finds names with a colon)
from hiddennet.registry import REGISTRIES, signature_mistakes

from .order import SPLITS, Order
from .text import TEXT

DATA = REGISTRIES["data"]
TOLD = ("root", "seed", "workers", "download", "image_size")  # what a user's own set is called with
AUGMENTATIONS = ("standard", "pad_resized_crop")
Moments = tuple[float, ...]
# mean and standard deviation of each channel, by name; own: the set's
NORMALIZATIONS: dict[str, tuple[Moments, Moments] | None] = {
    "own": None,
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "peek_a_boo_cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # of Chen et al., ICLR 2022
    "peek_a_boo_cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}
LISTED = ("imagenet", "image_folder")
_OF_A_TEXT = {"split": "stratified", "split_seed": None, "augmentation": "standard", "normalization": "own"}


@dataclass(frozen=True)
class Request:
    """A data set's name and:

    root: the folder below which the sets lie in torchvision's layouts, or in ``root/<name>/...``; ``~`` is the home.

    batch_size: images a batch, on each rank; the last batch takes what is left. Of a text the columns that are read
    side by side.

    seed: draws the validation split, the order and the augmentation; the official test images are never touched.

    validation: fraction of the training images set aside, or their count; never augmented; 0: none. An
    ``image_folder`` with both val/ and test/ uses its val/, a text its valid.txt, unless 0. split: how they are chosen:
    ``stratified``, each class in proportion, or ``permutation``, the last of a random order. split_seed: draws them in
    place of ``seed``.

    augment: whether training images are augmented. augmentation: ``standard``, the set's own: crop from 4 pixels of
    padding and flip (cifar10, cifar100, fashion_mnist, tiny_imagenet), random resized crop and flip (big_cifar10,
    imagenet, image_folder); none for digits, mnist, synthetic and a user's own. Or ``pad_resized_crop``: a random
    resized crop from 4 pixels of padding and flip (arXiv 2106.09269), not for imagenet and image_folder.

    normalization: by the set's ``own`` mean and standard deviation, by those of another name of NORMALIZATIONS, or by
    two lists of a number for each channel, as of values in [0, 1].

    workers: processes that read image files (threads, for tiny_imagenet's one reading). image_size: side of the images
    given; None: their own (128 for big_cifar10, 224 for imagenet and image_folder). limit: at most so many training
    images, stratified, and as much less of the test images; of a text the first so many words. download: lets
    torchvision fetch a missing set. in_channels, num_classes: of ``synthetic`` only (3 and 10). bptt: words that a
    batch has of each column of a text, and the steps gradients go back.

    drop_last: leave the training images that fill no whole batch out of an epoch, others in each.

    classes: names of class folders by label, as a network has learned them; folders of other names are refused, those
    that lack have no images. None: the folders there are, sorted.

    arguments: further keyword arguments of a user's own set.

    rank, world_size: this process's share of every epoch; as many batches on each rank. channels_last: memory format of
    the images.
    """

    name: str
    batch_size: int
    device: torch.device
    seed: int
    root: Path = Path("data")
    validation: float | int = 0.1
    split: str = "stratified"
    split_seed: int | None = None
    augment: bool = True
    augmentation: str = "standard"
    normalization: str | Sequence[Sequence[float]] = "own"
    workers: int = 4
    image_size: int | None = None
    limit: int | None = None
    download: bool = False
    in_channels: int | None = None
    num_classes: int | None = None
    bptt: int = 35
    drop_last: bool = False
    classes: Sequence[str] | None = None
    arguments: Mapping[str, Any] | None = None
    rank: int = 0
    world_size: int = 1
    channels_last: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser())
        object.__setattr__(self, "device", torch.device(self.device))

    def order(self, num_images: int, shuffle: bool) -> Order:
        """The order of a part's images."""
        return Order(
            num_images, self.batch_size, shuffle, self.seed, self.rank, self.world_size, shuffle and self.drop_last
        )

    def check(self) -> None:
        """Raises ValueError for an unknown name, an impossible value, and what the set cannot have."""
        name, shape = self.name, {"in_channels": self.in_channels, "num_classes": self.num_classes}
        DATA.find(name)
        for mistake in argument_mistakes(name, self.arguments) if self.arguments else ():
            raise ValueError(mistake)
        for key, value in {"image_size": self.image_size, "limit": self.limit, **shape}.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{key}: expected a whole number of at least 1, got {value!r}")
            if value is not None and key in shape and name != "synthetic":
                raise ValueError(f"{key}: expected it with data.name=synthetic only, got {name}")
        if self.workers < 0:
            raise ValueError(f"workers: expected 0 or more, got {self.workers}")
        check_normalization(self.normalization)
        for key, known in (("split", SPLITS), ("augmentation", AUGMENTATIONS)):
            value = getattr(self, key)
            if value not in known:
                raise ValueError(f"{key}: expected one of {', '.join(known)}, got {value!r}")
        if name in LISTED and self.augmentation != "standard":
            raise ValueError(f"augmentation: expected standard for {name}, got {self.augmentation!r}")
        for key, only in _OF_A_TEXT.items() if name in TEXT else ():
            if getattr(self, key) != only:
                raise ValueError(f"{key}: expected {only} for {name}, got {getattr(self, key)!r}; it is of images")
        if name in TEXT and self.bptt < 1:
            raise ValueError(f"bptt: expected at least 1, got {self.bptt}")
        if self.split_seed is not None and not 0 <= self.split_seed < 2**63:
            raise ValueError(f"split_seed: expected a whole number from 0 or None, got {self.split_seed!r}")


def argument_mistakes(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """What is wrong with the further arguments of a set, one sentence each."""
    found = DATA.find(name)
    if hasattr(found, "make"):
        return [f"arguments: expected none for {name}, got {', '.join(arguments)}; they are for a set of your own"]
    return signature_mistakes(name, found, arguments, TOLD)


def check_normalization(value: Any) -> Any:
    """Return what Request.normalization may be; raises ValueError."""
    if isinstance(value, str) and value in NORMALIZATIONS:
        return value
    lists = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    if lists and all(isinstance(part, Sequence) and not isinstance(part, str) and len(part) for part in value):
        numbers = all(type(x) in (int, float) and math.isfinite(x) for part in value for x in part)
        if numbers and len(value[0]) == len(value[1]) and min(value[1]) > 0:
            return value
    known = ", ".join(NORMALIZATIONS)
    raise ValueError(
        f"normalization: expected one of {known}, or two lists of a number for each channel (mean, standard deviation "
        f"above 0), got {value!r}"
    )
