"""What a user chooses of a data set beside its name: the validation split, augmentation and normalisation.
Not how they are carried out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .augment import Augmentation
from .sets import IMAGENET, LISTED, PAD_RESIZED_CROP_FLIP, Moments, SmallSet
from .split import SPLITS, permutation, stratified, validation_count
from .text import TEXT

AUGMENTATIONS = ("standard", "pad_resized_crop")
NORMALIZATIONS = ("own", "imagenet")
_OF_A_TEXT = {"split": "stratified", "split_seed": None, "augmentation": "standard", "normalization": "own"}


@dataclass(frozen=True)
class Choices:
    """The arguments of ``build`` of the same names."""

    validation: float | int
    split: str
    split_seed: int | None
    augment: bool
    augmentation: str
    normalization: str

    def check(self, name: str) -> None:
        """Raises ValueError for what the set ``name`` cannot have."""
        for key, known in (("split", SPLITS), ("augmentation", AUGMENTATIONS), ("normalization", NORMALIZATIONS)):
            value = getattr(self, key)
            if value not in known:
                raise ValueError(f"{key}: expected one of {', '.join(known)}, got {value!r}")
        if name in LISTED and self.augmentation != "standard":
            raise ValueError(f"augmentation: expected standard for {name}, got {self.augmentation!r}")
        if name in TEXT:
            for key, only in _OF_A_TEXT.items():
                if getattr(self, key) != only:
                    raise ValueError(f"{key}: expected {only} for {name}, got {getattr(self, key)!r}; it is of images")
        if self.split_seed is not None and not 0 <= self.split_seed < 2**63:
            raise ValueError(f"split_seed: expected a whole number from 0 or None, got {self.split_seed!r}")

    def of_training(self, entry: SmallSet) -> Augmentation:
        """What is done to training images of a set that lies on the device."""
        if not self.augment:
            return Augmentation()
        return entry.augmentation if self.augmentation == "standard" else PAD_RESIZED_CROP_FLIP

    def moments(self, name: str, entry: SmallSet, channels: int) -> tuple[Moments, Moments]:
        """Mean and standard deviation of each of ``channels``. Raises ValueError where ImageNet's do not fit."""
        if self.normalization == "imagenet":
            if channels != len(IMAGENET[0]):
                raise ValueError(f"normalization: expected own for {name}, of {channels} channels, got 'imagenet'")
            return IMAGENET
        mean, std = (m * channels if len(m) == 1 else m for m in (entry.mean, entry.std))
        return mean, std


def parts(
    train_labels: np.ndarray, test_labels: np.ndarray, choices: Choices, limit: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of training and validation images (both of the training part) and of test images, each ascending."""
    pool, test = np.arange(len(train_labels)), np.arange(len(test_labels))
    if limit is not None and limit < len(pool):
        fewer = -(-len(test) * limit // len(pool))
        pool = stratified(train_labels, limit, seed=seed, purpose="limit train")
        test = stratified(test_labels, fewer, seed=seed, purpose="limit test")
    count = validation_count(choices.validation, len(pool))
    split_seed = seed if choices.split_seed is None else choices.split_seed
    if choices.split == "permutation":
        held = np.sort(pool[permutation(len(pool), count, split_seed)[1]])
    else:
        held = pool[stratified(train_labels[pool], count, seed=split_seed, purpose="validation")]
    return np.setdiff1d(pool, held), held, test
