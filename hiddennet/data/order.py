"""Which images come when: seeds, the order of an epoch, batches, and the share of each rank.

Everything here is drawn on the CPU from the seed, so that it is the same on every device. Not for
the images themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

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
