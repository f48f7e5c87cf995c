"""Parts of a set by seed: the validation split, stratified or by permutation, and the ``limit``. Not the official
division into training and test images, which the data sets bring along."""

import numpy as np
import torch

from .order import derived_seed

SPLITS = ("stratified", "permutation")


def stratified(labels: np.ndarray, count: int, *, seed: int, purpose: str) -> np.ndarray:
    """Picks ``count`` of ``labels``' images, each class in proportion (largest remainders first,
    ties to the lower class); int64 indices, ascending.

    A pure function of its arguments, on every machine: it draws from NumPy's legacy generator,
    whose stream is frozen. A class's picks for a smaller count are among those for a larger one.
    """
    classes, of_image = np.unique(labels, return_inverse=True)
    sizes = np.bincount(of_image, minlength=len(classes))
    exact = sizes * count  # over len(labels), kept whole so that no rounding decides a remainder
    quota, remainder = exact // len(labels), exact % len(labels)
    quota[np.argsort(-remainder, kind="stable")[: count - quota.sum()]] += 1

    shuffled = np.random.RandomState(derived_seed(seed, purpose)).permutation(len(labels))
    by_class = shuffled[np.argsort(of_image[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    rank_in_class = np.arange(len(labels)) - np.repeat(starts, sizes)
    return np.sort(by_class[rank_in_class < np.repeat(quota, sizes)]).astype(np.int64)


def permutation(num_images: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation images: the first ``num_images - count`` and the last ``count`` of
    ``torch.randperm`` from a CPU generator seeded by ``seed``; int64 indices, as they come.

    The split of Chijiwa et al. (arXiv 2106.09269) is that of 50 000 images, 5 000 held out, seed 777.
    """
    source = torch.Generator().manual_seed(seed)
    order = torch.randperm(num_images, generator=source, dtype=torch.int64).numpy()
    return order[: num_images - count], order[num_images - count :]


def validation_count(validation: float | int, num_images: int) -> int:
    """How many of ``num_images`` training images to set aside: a fraction below 1, or a count.

    Raises ValueError for what would leave no training image, or no validation image but for 0.
    """
    if isinstance(validation, bool) or not isinstance(validation, (int, float)):
        raise TypeError(f"validation: expected a fraction or a count, got {validation!r}")
    fraction = isinstance(validation, float)
    if not 0 <= validation < (1 if fraction else num_images):
        raise ValueError(
            f"validation: expected a fraction in [0, 1) or a whole count below {num_images} (the "
            f"training images), got {validation!r}"
        )
    count = round(validation * num_images) if fraction else validation
    if validation and not 0 < count < num_images:
        raise ValueError(
            f"validation: expected a fraction that leaves images on both sides, got {validation} "
            f"of {num_images} images; use 0 for no validation set"
        )
    return count
