"""A loader for large sets: worker processes read, crop and mirror image files.

Every image's random numbers come from (seed, epoch, its index), so the batches do not depend on the
number of workers. Not for sets that fit on the device: see ``resident``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from . import augment
from .augment import CROP_AREA, CROP_ATTEMPTS, CROP_RATIO
from .folders import ImageList
from .order import ImageLoader, Order, derived_seed


def random_crop(height: int, width: int, source: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a random crop: 8 to 100 % of the area, log-uniform ratio of 3/4
    to 4/3; after ten misses the largest central crop within those ratios (arXiv 1409.4842)."""
    for _ in range(CROP_ATTEMPTS):
        area = height * width * source.uniform(*CROP_AREA)
        ratio = math.exp(source.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = source.randrange(width - w + 1), source.randrange(height - h + 1)
            return left, top, left + w, top + h
    w = min(width, max(round(height * CROP_RATIO[1]), 1))
    h = min(height, max(round(width / CROP_RATIO[0]), 1))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def central_crop(image, size: int):
    """The image with its shorter side resized to 8/7 of ``size`` (256 for 224), then its central
    ``size`` x ``size`` pixels."""
    from PIL import Image

    short = round(size * 256 / 224)
    width, height = image.size
    if width <= height:
        width, height = short, int(short * height / width)
    else:
        width, height = int(short * width / height), short
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


class _Files(Dataset):
    """(epoch, index) to (uint8 (3, size, size), label)."""

    def __init__(self, images: ImageList, size: int, seed: int, augmented: bool) -> None:
        self.images, self.size, self.seed, self.augmented = images, size, seed, augmented

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        from PIL import Image

        epoch, index = key
        image = self.images.open(index)
        if self.augmented:
            source = random.Random(derived_seed(self.seed, "augmentation", epoch, index))
            box = random_crop(image.height, image.width, source)
            flip = source.random() < 0.5
            image = image.crop(box).resize((self.size,) * 2, Image.Resampling.BILINEAR)
            if flip:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        else:
            image = central_crop(image, self.size)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels, int(self.images.labels[index])


class _Batches(Sampler):
    """Lists of (epoch, index), so that workers that outlive an epoch know which one it is."""

    def __init__(self, order: Order) -> None:
        self.order, self.epoch = order, 0

    def __len__(self) -> int:
        return self.order.num_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        indices = self.order.epoch(self.epoch).tolist()
        for part in self.order.batches():
            yield [(self.epoch, index) for index in indices[part]]


class StreamingLoader(ImageLoader):
    """Batches (images float32 (B, 3, size, size) normalised, labels int64 (B,)) on ``device``.

    With ``augmented`` a random resized crop and a flip, else the central crop. The batches of an
    epoch are a pure function of (``order.seed``, epoch), see ``set_epoch``.
    """

    def __init__(
        self,
        images: ImageList,
        order: Order,
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        workers: int,
        augmented: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__(order, mean, std, device, channels_last)
        self.device = device
        self._batches = _Batches(order)
        self._loader = DataLoader(
            _Files(images, size, order.seed, augmented),
            batch_sampler=self._batches,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            # those of the training images live on; evaluation is rare, and memory is not free
            persistent_workers=workers > 0 and order.shuffle,
            # an own generator: the global one must not depend on how often a loader was read
            generator=torch.Generator().manual_seed(order.seed),
        )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and augmentation of the next pass."""
        self._batches.epoch = epoch

    def whole(self) -> StreamingLoader:
        """The loader of all ranks' images, in batches of one rank's size; it reads them in this process."""
        found = super().whole()
        found._batches = _Batches(found.order)
        found._loader = DataLoader(self._loader.dataset, batch_sampler=found._batches)
        return found

    def _read(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The loader's batches; a mistake in a worker is the sentence without the worker's trace."""
        try:
            yield from self._loader
        except ValueError as error:
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from None

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self._read():
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            yield (
                augment.normalise(images, self.mean, self.std, channels_last=self.channels_last),
                labels,
            )
