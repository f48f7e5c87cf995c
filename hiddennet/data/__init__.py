"""Data sets by name: normalised batches on the device, with an honest validation split."""

from .augment import Augmentation
from .build import Data, build, contents, names
from .fingerprint import difference
from .resident import ResidentLoader
from .streaming import StreamingLoader
from .text import TEXT, TextLoader

__all__ = [
    "TEXT",
    "Augmentation",
    "Data",
    "ResidentLoader",
    "StreamingLoader",
    "TextLoader",
    "build",
    "contents",
    "difference",
    "names",
]
