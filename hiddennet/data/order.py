"""Which images come when: seeds, the order of an epoch, batches, the share of each rank; and parts of a set by seed:
the validation split, stratified or by permutation, and the ``limit``.

Everything here is drawn on the CPU from the seed, so that it is the same on every device. Not for
the images themselves, nor the official division into training and test images.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


def derived_seed(*parts: int | str) -> int:
    """A 32-bit seed from ``parts``, the same on every machine; other parts, another seed."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def generator(*parts: int | str) -> torch.Generator:
    """An own CPU generator seeded by ``parts``; the global one stays untouched."""
    return torch.Generator().manual_seed(derived_seed(*parts))


@dataclass(frozen=True)
class Order:
    """The order of ``num_images`` images, by ``seed`` and epoch, and one rank's share of it.

    Position i of the epoch belongs to rank ``i % world_size``, so the ranks' batches with the same
    number make up the batch that one process would take at ``world_size`` times the batch size.
    Every rank takes the same number of batches and every image is taken once: the last batch takes
    what is left, at times one image more than ``batch_size``. With ``drop_last`` there are whole batches only, and
    the last images of an epoch's order are left out of it.
    """

    num_images: int
    batch_size: int
    shuffle: bool
    seed: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: expected 0 to {self.world_size - 1}, got {self.rank}")
        if self.num_images < self.world_size:
            raise ValueError(
                f"world_size: expected at most one rank an image, got {self.world_size} ranks for "
                f"{self.num_images} images; use fewer ranks or more images"
            )

        if self.drop_last and self.num_batches == 0:
            raise ValueError(
                f"drop_last: expected at least one whole batch of {self.batch_size * self.world_size} images, got "
                f"{self.num_images} images; use a smaller batch_size"
            )

    def whole(self) -> Order:
        """The order of all ranks' images together, in batches of one rank's size."""
        return dataclasses.replace(self, rank=0, world_size=1)

    @property
    def num_batches(self) -> int:
        """Batches of an epoch, equal on every rank."""
        if self.drop_last:
            return self.num_images // (self.world_size * self.batch_size)
        return -(-(self.num_images // self.world_size) // self.batch_size)

    @property
    def last_batch(self) -> int:
        """Images of an epoch's last batch, over all ranks."""
        whole = self.batch_size * self.world_size
        return whole if self.drop_last else self.num_images - (self.num_batches - 1) * whole

    def epoch(self, epoch: int) -> torch.Tensor:
        """This rank's images in ``epoch``, in order; int64 on the CPU."""
        if not self.shuffle:
            return self.share(torch.arange(self.num_images))
        order = torch.randperm(self.num_images, generator=generator(self.seed, "order", epoch), dtype=torch.int64)
        return self.share(order)

    def share(self, of_epoch: torch.Tensor) -> torch.Tensor:
        """This rank's rows of a tensor that has one row for every position of the epoch."""
        return of_epoch[self.rank :: self.world_size]

    def batches(self) -> Iterator[slice]:
        """The slices of ``epoch(...)`` that make up the batches."""
        taken = len(range(self.rank, self.num_images, self.world_size))
        for i in range(self.num_batches):
            last = i == self.num_batches - 1 and not self.drop_last
            yield slice(i * self.batch_size, taken if last else (i + 1) * self.batch_size)


class ImageLoader:
    """What loaders of images share: their order, and what images are normalised by."""

    def __init__(
        self, order: Order, mean: Sequence[float], std: Sequence[float], device: torch.device, channels_last: bool
    ) -> None:
        self.order, self.channels_last = order, channels_last
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1) for values in (mean, std)
        )

    @property
    def num_images(self) -> int:
        """Images of an epoch, over all ranks."""
        return self.order.num_images

    def __len__(self) -> int:
        return self.order.num_batches

    def whole(self) -> ImageLoader:
        """The loader of all ranks' images, in batches of one rank's size."""
        found = copy.copy(self)
        found.order = self.order.whole()
        return found


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
