"""What tells a data set from another of the same name: names and sizes of files, or what they hold; classes, counts.

Not where it lies: the same files elsewhere are the same data.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .folders import ImageList

Contents = dict[str, Any]  # digest, classes, and the number of images (of a text: words) of each part


def _contents(digest: Any, counts: Mapping[str, int], classes: Sequence[str]) -> Contents:
    for name in classes:
        digest.update(os.fsencode(name) + b"\n")
    return {"digest": digest.hexdigest()[:24], **counts, "classes": list(classes)}


def of_files(parts: Mapping[str, ImageList | None], classes: Sequence[str]) -> Contents:
    """Those of lists of image files: their names, labels and sizes in bytes; no file is opened."""
    found, digest = {part: images for part, images in parts.items() if images is not None}, hashlib.sha256()
    for part, images in found.items():
        root = os.fsencode(images.root)
        sizes = [os.stat(os.path.join(root, path)).st_size for path in images.paths.tolist()]
        digest.update(part.encode() + b"\n".join(images.paths.tolist()))
        digest.update(images.labels.tobytes() + np.array(sizes, dtype=np.int64).tobytes())
    return _contents(digest, {part: len(images) for part, images in found.items()}, classes)


def of_tensors(parts: Mapping[str, tuple[torch.Tensor, ...]], classes: Sequence[str] = ()) -> Contents:
    """Those of tensors on the CPU, of equal length in a part, to the bit."""
    digest = hashlib.sha256()
    for part, tensors in parts.items():
        digest.update(part.encode())
        for tensor in tensors:
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy())
    return _contents(digest, {part: len(tensors[0]) for part, tensors in parts.items()}, classes)


def of_text(parts: Mapping[str, torch.Tensor], words: Sequence[str]) -> Contents:
    """Those of numbered words; `vocabulary` tells their meaning."""
    found = of_tensors({part: (numbers,) for part, numbers in parts.items()}, words)
    return found | {"classes": [], "vocabulary": hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]}


def difference(before: Contents, now: Contents) -> tuple[str, str] | None:
    """Words for what differs: then, now. None where the two are of the same data."""
    if before.get("digest") == now["digest"]:
        return None
    ours, theirs = before.get("classes", []), now["classes"]
    if ours != theirs:
        return _classes(ours, theirs), _classes(theirs, ours)
    counts = [{k: v for k, v in found.items() if isinstance(v, int)} for found in (before, now)]
    if counts[0] != counts[1]:
        old, new = (", ".join(f"{count:,} of {part}" for part, count in found.items()) for found in counts)
        return old, new
    return "its images or texts", "as many others, by their names, sizes or contents"


def _classes(names: Sequence[str], beside: Iterable[str]) -> str:
    alone = sorted(set(names) - set(beside))
    return f"{len(names)} classes" + (f", {alone[0]!r} among them" if alone else "")


def absent(part: str, labels: np.ndarray, num_classes: int, classes: Sequence[str]) -> list[str]:
    """A sentence where a part has no image of some class."""
    missing = np.setdiff1d(np.arange(num_classes), labels)
    if not len(missing):
        return []
    first = repr(classes[missing[0]]) if classes else str(missing[0])
    said = f"no image of class {first}" if len(missing) == 1 else f"no image of {len(missing)} classes, {first} first"
    return [f"the {part} images have {said}; they cannot tell how well it is known"]
