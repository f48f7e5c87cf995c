"""Lists of image files in class folders, and their decoding. Not for batches."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageError(ValueError):
    """A file that is no image, in one sentence: also when a worker process met it, whose whole traceback torch makes
    the message of the error that it raises again."""

    def __init__(self, said: str):
        super().__init__(said.rpartition("ImageError: ")[2].strip())


@dataclass(frozen=True)
class ImageList:
    """Image files and their labels. ``paths`` is a byte-string array, relative to ``root``: worker
    processes share it, where a list of strings would be copied into each of them bit by bit."""

    root: Path
    paths: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: np.ndarray) -> ImageList:
        return ImageList(self.root, self.paths[indices], self.labels[indices])

    def open(self, index: int):
        """The image as an RGB ``PIL.Image``. Raises ImageError (a ValueError) for a file that is none."""
        from PIL import Image

        path = self.root / os.fsdecode(self.paths[index])
        try:
            with Image.open(path) as image:
                return _eight_bits(image).convert("RGB")
        except Exception as error:  # PIL's readers answer damage, and bombs, with many types
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ImageError(f"{path}: expected an image, got {reason}; replace or delete the file") from None


def _eight_bits(image):
    """A `PIL.Image` of at most 8 bits a channel: of 16 bits the upper ones, as PIL itself takes them of colours.

    Raises ValueError for numbers whose range is not known.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        from PIL import Image

        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"numbers of 32 bits (PIL's mode {image.mode}), whose range is not known")
    return image


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders, sorted; hidden ones are none."""
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")


def image_list(root: Path, files: list[tuple[str, int]]) -> ImageList:
    """An ImageList from (path relative to ``root``, label)."""
    paths = np.array([os.fsencode(path) for path, _ in files], dtype=np.bytes_)
    return ImageList(root, paths, np.array([label for _, label in files], dtype=np.int64))


def scan(folder: Path, classes: list[str]) -> ImageList:
    """The images below ``folder/<class>/``, in the order of torchvision's ImageFolder.

    Raises ValueError for a folder that is no class, and where there is no image.
    """
    unknown = sorted(set(class_folders(folder)) - set(classes))
    if unknown:
        raise ValueError(
            f"{folder}: expected the classes of the training images, got the folder "
            f"{unknown[0]!r} besides; remove it or add it to the training images"
        )
    files: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
        for where, _, inside in sorted(os.walk(folder / name, followlinks=True)):
            relative = os.path.relpath(where, folder)
            files += [
                (os.path.join(relative, file), label) for file in sorted(inside) if file.lower().endswith(EXTENSIONS)
            ]
    if not files:
        raise ValueError(
            f"{folder}: expected images in folders named by class, got none; put <class>/<image>{EXTENSIONS[0]} there"
        )
    return image_list(folder, files)


def tiny_imagenet_validation(folder: Path, classes: list[str]) -> ImageList:
    """Tiny ImageNet's validation images: ``val/images`` listed in ``val_annotations.txt``, or
    sorted into class folders. Raises ValueError for a malformed list."""
    listing = folder / "val_annotations.txt"
    if not (listing.exists() and (folder / "images").is_dir()):
        return scan(folder, classes)
    numbers = {name: label for label, name in enumerate(classes)}
    files = []
    for i, line in enumerate(listing.read_text().splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in numbers:
            raise ValueError(
                f"{listing}: expected <image><tab><class> with a class of train/ in line {i}, got "
                f"{line[:60]!r}; unpack the archive again"
            )
        files.append((os.path.join("images", fields[0]), numbers[fields[1]]))
    return image_list(folder, files)


def decode(images: ImageList, size: int, workers: int) -> torch.Tensor:
    """All images as uint8 (N, 3, size, size), decoded by ``workers`` threads.

    Raises ValueError for an image of another size.
    """
    pixels = np.empty((len(images), 3, size, size), dtype=np.uint8)

    def place(index: int) -> None:
        image = images.open(index)
        if image.size != (size, size):
            path = images.root / os.fsdecode(images.paths[index])
            raise ValueError(
                f"{path}: expected {size}x{size} pixels, got {image.size[0]}x{image.size[1]}; "
                "use data.name=image_folder for images of any size"
            )
        pixels[index] = np.asarray(image).transpose(2, 0, 1)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for _ in pool.map(place, range(len(images))):
            pass
    return torch.from_numpy(pixels)
