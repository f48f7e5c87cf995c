"""What a user chooses of a set's images: the validation split, augmentation and normalisation."""

import numpy as np
import torch

from .augment import Augmentation
from .order import permutation, stratified, validation_count
from .request import NORMALIZATIONS, Moments, Request
from .sets import PAD_RESIZED_CROP_FLIP, SmallSet


def of_training(request: Request, entry: SmallSet) -> Augmentation:
    """What is done to training images of a set that lies on the device."""
    if not request.augment:
        return Augmentation()
    return entry.augmentation if request.augmentation == "standard" else PAD_RESIZED_CROP_FLIP


def moments(request: Request, entry: SmallSet, images: torch.Tensor) -> tuple[Moments, Moments]:
    """Mean and standard deviation of each channel, in [0, 1]; images: uint8 (n, C, H, W), the training images.

    Raises ValueError where those that were asked for are of another number of channels.
    """
    channels = images.shape[1]
    given = given_moments(request, channels)
    if given is not None:
        return given
    if entry.mean is None or entry.std is None:
        return measured(images)
    mean, std = (m * channels if len(m) == 1 else m for m in (entry.mean, entry.std))
    return mean, std


def given_moments(request: Request, channels: int) -> tuple[Moments, Moments] | None:
    """Those that were asked for by name or as numbers; None for the set's own."""
    asked = request.normalization
    found = NORMALIZATIONS[asked] if isinstance(asked, str) else tuple(tuple(map(float, part)) for part in asked)
    if found is not None and len(found[0]) != channels:
        raise ValueError(
            f"normalization: expected own, or numbers of {channels} channel(s), for {request.name}, got {asked!r}"
        )
    return found


def measured(images: torch.Tensor) -> tuple[Moments, Moments]:
    """The moments of the images themselves, exact sums of uint8."""
    values, found = torch.arange(256, dtype=torch.float64) / 255, []
    for channel in images.unbind(1):
        share = channel.flatten().bincount(minlength=256).double() / channel.numel()
        mean = float((share * values).sum())
        found.append((mean, max(1 / 255, float((share * (values - mean).square()).sum().sqrt()))))
    means, deviations = zip(*found, strict=True)
    return means, deviations


def parts(
    request: Request, train_labels: np.ndarray, test_labels: np.ndarray, validation: float | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of training and validation images (both of the training part) and of test images, each ascending.

    validation: the request's, or 0 where the set brings images of its own for it."""
    limit, seed = request.limit, request.seed
    pool, test = np.arange(len(train_labels)), np.arange(len(test_labels))
    if limit is not None and limit < len(pool):
        fewer = -(-len(test) * limit // len(pool))
        pool = stratified(train_labels, limit, seed=seed, purpose="limit train")
        test = stratified(test_labels, fewer, seed=seed, purpose="limit test")
    count = validation_count(validation, len(pool))
    split_seed = seed if request.split_seed is None else request.split_seed
    if request.split == "permutation":
        held = np.sort(pool[permutation(len(pool), count, split_seed)[1]])
    else:
        held = pool[stratified(train_labels[pool], count, seed=split_seed, purpose="validation")]
    return np.setdiff1d(pool, held), held, test
