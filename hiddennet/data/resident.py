"""A loader for small sets: all images lie on the device as uint8 and batches are made there.

No worker processes, no copies to the device in an epoch but its order. Not for sets that do not fit
beside the network: see ``streaming``.
"""

from collections.abc import Iterator, Sequence

import torch

from . import augment
from .augment import Augmentation
from .order import ImageLoader, Order, generator


class ResidentLoader(ImageLoader):
    """Batches (images float32 (B, C, size, size) normalised, labels int64 (B,)) on the device.

    ``images`` uint8 (N, C, H, W), square, and ``labels`` int64 (N,) lie on the device already and
    may be shared by several loaders; ``indices`` picks this loader's. The batches of an epoch are
    a pure function of (``order.seed``, epoch), see ``set_epoch``.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        indices: torch.Tensor,
        order: Order,
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__(order, mean, std, images.device, channels_last)
        self.images, self.labels, self.indices = images, labels, indices
        self.size, self.augmentation, self.epoch = size, augmentation or Augmentation(), 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order and augmentation of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        device, side = self.images.device, self.images.shape[-1]
        rows = self.indices[self.order.epoch(self.epoch)].to(device)
        draws = None
        if self.augmentation:
            source = generator(self.order.seed, "augmentation", self.epoch)
            draws = augment.draw(self.augmentation, self.num_images, side, source)
            draws = self.order.share(draws).to(device)
        for part in self.order.batches():
            taken = rows[part]
            images = self.images.index_select(0, taken)
            images = self._transform(images, None if draws is None else draws[part])
            yield images, self.labels.index_select(0, taken)

    def _transform(self, images: torch.Tensor, draws: torch.Tensor | None) -> torch.Tensor:
        if draws is not None:
            if self.augmentation.resized_crop:
                images = augment.resized_crop_flip(images, draws, self.size, self.augmentation.pad)
            else:
                images = augment.crop_flip(images, draws, self.augmentation.pad)
        if images.shape[-1] != self.size:
            images = augment.resize(images, self.size)
        return augment.normalise(images, self.mean, self.std, channels_last=self.channels_last)
