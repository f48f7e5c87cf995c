"""What there is, a line each: `hiddennet list models|methods|data|configs [PATTERN]`."""

import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from hiddennet.registry import nearest
from hiddennet.tables import aligned

# of our sets, which are files read by one function
_DATA = {
    "cifar10": "60 000 colour images of 32 pixels, 10 classes",
    "cifar100": "60 000 colour images of 32 pixels, 100 classes",
    "big_cifar10": "CIFAR-10 enlarged to 128 pixels",
    "mnist": "70 000 grey digits of 28 pixels",
    "fashion_mnist": "70 000 grey images of clothes of 28 pixels, 10 classes",
    "digits": "1797 grey digits of 8 pixels, which come with scikit-learn",
    "synthetic": "random images that can be learned, for tests and benchmarks",
    "tiny_imagenet": "110 000 colour images of 64 pixels, 200 classes",
    "imagenet": "1.3 million photographs, 1000 classes: folders train/ and val/",
    "image_folder": "images in a folder for each class: train/ and val/ or test/",
    "text": "any folder with train.txt, valid.txt and test.txt, word by word",
}


def listing(what: str, pattern: str = "*") -> str:
    """A line for each thing whose name has `pattern` in it, or matches it where it has a * or ?.

    what: of WHAT. Of models, `timm:PATTERN` and `torchvision:PATTERN` list those of the libraries.

    Raises ValueError where none does.
    """
    if what == "configs":
        from hiddennet.config import catalog

        return catalog.listing(pattern)
    library, colon, inner = pattern.partition(":")
    known = dict(_of_library(library) if what == "models" and colon else _LISTED[what]())
    wanted = inner if colon else pattern
    glob = wanted if set("*?[") & set(wanted) else f"*{wanted}*"
    found = [(name, said) for name, said in known.items() if fnmatchcase(name.rpartition(":")[2], glob)]
    if not found:
        raise ValueError(f"list {what}: expected a part of a name, got {pattern!r}{nearest(wanted, known)}")
    return aligned(found)


def _of_library(library: str) -> Iterator[tuple[str, str]]:
    from hiddennet.models import libraries
    from hiddennet.outside import LIBRARIES

    if library not in LIBRARIES["model"]:
        known = " or ".join(f"{name}:PATTERN" for name in LIBRARIES["model"])
        raise ValueError(f"list models: expected {known}, got {library!r}{nearest(library, LIBRARIES['model'])}")
    for name in libraries.names(library):
        yield f"{library}:{name}", ""


def _models() -> Iterator[tuple[str, str]]:
    from hiddennet import models
    from hiddennet.models.registry import MODELS, Entry, entry_of

    for name in sorted(MODELS):
        entry, ours = entry_of(name), isinstance(MODELS[name], Entry)
        images = f"{entry.in_channels} x {entry.image_size} x {entry.image_size}"
        thing = models.dnw.NETWORKS[name][0] if name in models.GRAPHS else _inner(entry.make)
        said = sys.modules[thing.__module__] if ours else thing
        yield name, f"{'text' if name in models.TEXT else images:<13}  {_sentence(said)}"


def _methods() -> Iterator[tuple[str, str]]:
    from hiddennet.config.schema import METHODS

    for name in METHODS:
        yield name, (METHODS[name].__doc__ or "").strip().partition("\n")[0].partition(": ")[2]


def _data() -> Iterator[tuple[str, str]]:
    from hiddennet import data
    from hiddennet.data.request import DATA

    for name in sorted(DATA):
        yield name, _DATA.get("text" if name in data.TEXT else name) or _sentence(_inner(DATA[name]))


def _inner(thing: Any) -> Any:
    return _inner(thing.func) if isinstance(thing, partial) else thing


def _sentence(thing: Any) -> str:
    """The first sentence of a docstring, short."""
    return textwrap.shorten(
        re.split(r"[.](?:\s|$)", " ".join((thing.__doc__ or "").split()))[0], 100, placeholder=" ..."
    )


_LISTED: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {"models": _models, "methods": _methods, "data": _data}
WHAT = (*_LISTED, "configs")
