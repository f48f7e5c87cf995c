"""Crops, flips, sizes and normalisation of whole batches of uint8 images, on their device.

The random numbers of an epoch are drawn at once on the CPU (``draw``), one row for every image, so
that they depend on the seed alone; the batches are then made without a loop over images. Not for
images of unequal sizes: see ``streaming``.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image, in this order.

    ``pad``: black pixels on every side. ``resized_crop``: a crop of 8 to 100 % of the area with an
    aspect ratio of 3/4 to 4/3, resized (Szegedy et al., arXiv 1409.4842); without it, of a padded
    image a crop of its own size. ``flip``: every second time, mirrored left to right.
    """

    pad: int = 0
    flip: bool = False
    resized_crop: bool = False

    def __bool__(self) -> bool:
        return bool(self.pad or self.flip or self.resized_crop)


def draw(augmentation: Augmentation, num_images: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """One epoch's random numbers for square images of ``side`` pixels: int64 (num_images, 5), the
    columns top, left, height, width of the crop and flip (0 or 1). Top and left count from the
    corner of the padded image."""
    top = left = torch.zeros(num_images, dtype=torch.int64)
    height = width = torch.full((num_images,), side)
    flip = top
    if augmentation.resized_crop:
        top, left, height, width = _draw_resized_crops(num_images, side + 2 * augmentation.pad, generator)
    elif augmentation.pad:
        top, left = torch.randint(0, 2 * augmentation.pad + 1, (2, num_images), generator=generator)
    if augmentation.flip:
        flip = torch.randint(0, 2, (num_images,), generator=generator)
    return torch.stack([top, left, height, width, flip], dim=1)


def _draw_resized_crops(num_images: int, side: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Crops by area and log-uniform ratio: the first of ten attempts that fits, else the whole."""
    unit = torch.rand(4, num_images, CROP_ATTEMPTS, generator=generator, dtype=torch.float64)
    area = side * side * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * unit[0])
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    ratio = (low + (high - low) * unit[1]).exp()
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    first = fits.to(torch.int8).argmax(dim=1, keepdim=True)

    def pick(values: torch.Tensor, otherwise: int) -> torch.Tensor:
        return torch.where(fits.any(1), values.gather(1, first)[:, 0], otherwise).long()

    height, width = pick(height, side), pick(width, side)
    top = (unit[2].gather(1, first)[:, 0] * (side - height + 1)).long()
    left = (unit[3].gather(1, first)[:, 0] * (side - width + 1)).long()
    return top, left, height, width


def crop_flip(images: torch.Tensor, draws: torch.Tensor, pad: int) -> torch.Tensor:
    """Crops images (B, C, H, W) out of their black border of ``pad`` pixels and mirrors them, as
    ``draws`` (B, 5) says: one gather. Same shape and dtype."""
    batch, channels, height, width = images.shape
    top, left, flip = draws[:, 0, None], draws[:, 1, None], draws[:, 4, None]
    rows = top + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device)
    columns = left + torch.where(flip.bool(), width - 1 - across, across)
    index = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).view(batch, 1, -1)
    padded = F.pad(images, (pad,) * 4).flatten(2)
    return padded.gather(2, index.expand(batch, channels, -1)).view(images.shape)


def resized_crop_flip(images: torch.Tensor, draws: torch.Tensor, size: int, pad: int = 0) -> torch.Tensor:
    """Cuts crops as ``draws`` (B, 5) says out of images in a black border of ``pad`` pixels, resizes
    each to ``size`` pixels, bilinear, with a low-pass filter where it gets smaller, and mirrors it;
    images uint8 (B, C, H, W) to float32 (B, C, size, size) in 0 ... 255.

    A pixel's neighbours are those inside the crop only, as if it had been cut out first. Two batched
    products: the filter has one matrix for the rows and one for the columns of each image.
    """
    top, left, height, width, flip = (column[:, None] for column in draws.to(torch.float32).T)
    down = _resize_matrix(top - pad, height, images.shape[2], size, pad)
    across = _resize_matrix(left - pad, width, images.shape[3], size, pad)
    across = torch.where(flip.bool()[:, :, None], across.flip(1), across)
    return down[:, None] @ images.to(torch.float32) @ across.transpose(1, 2)[:, None]


def _resize_matrix(start: torch.Tensor, length: torch.Tensor, side: int, size: int, pad: int) -> torch.Tensor:
    """What each of ``side`` pixels adds to each of ``size`` resized ones: (B, size, side). ``start``
    and ``length`` (B, 1) say where the crop lies; pixels of the border count, and add nothing."""
    device = start.device
    scale = (length / size)[:, :, None]
    pixels = torch.arange(-pad, side + pad, device=device)[None, None, :]
    centres = (torch.arange(size, device=device) + 0.5)[None, :, None] * scale + start[:, :, None]
    weights = (1 - (pixels + 0.5 - centres).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights * ((pixels >= start[:, :, None]) & (pixels < (start + length)[:, :, None]))
    return (weights / weights.sum(2, keepdim=True))[:, :, pad : pad + side]


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear with a low-pass filter where it gets smaller; (B, C, H, W) to float32
    (B, C, size, size)."""
    return F.interpolate(images.to(torch.float32), size=(size, size), mode="bilinear", antialias=True)


def normalise(
    images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, channels_last: bool = False
) -> torch.Tensor:
    """(images / 255 - mean) / std as a new float32 tensor; ``mean``, ``std``: (1, C, 1, 1)."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    scaled = images.to(torch.float32, memory_format=layout, copy=True)
    return scaled.mul_(1 / (255 * std)).sub_(mean / std)
