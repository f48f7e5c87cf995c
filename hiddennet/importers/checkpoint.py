"""Read another project's PyTorch checkpoint as data: tensors, numbers, text and plain containers.

A pickle can name any function to be called while it is read. Here only torch's own rebuilding of
tensors is admitted, and numpy scalars (learning rates that a schedule left behind), which become
Python numbers through the stand-ins below: not even numpy's code runs on the file's bytes.
Objects of classes that a project is known to leave in its files can be left out: they become Inert.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_FORMATS = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H"}
_FORMATS |= {"u4": "I", "u8": "Q", "f2": "e", "f4": "f", "f8": "d"}


class CheckpointError(ValueError):
    """A checkpoint that cannot be imported: unreadable, unsafe, or not what was announced."""


class _ScalarType:
    """Stands for `numpy.dtype` while a checkpoint is read; knows plain numbers only."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _FORMATS:
            raise pickle.UnpicklingError(f"a numpy scalar of type {code!r}")
        self.format = "<" + _FORMATS[code]

    def __setstate__(self, state: tuple) -> None:
        """state: (version, byte order, ...) as numpy writes it."""
        if state[1] == ">":
            self.format = ">" + self.format[1:]


def _scalar(scalar_type: _ScalarType, data: bytes) -> float | int | bool:
    """Stands for `numpy.core.multiarray.scalar`."""
    if type(scalar_type) is not _ScalarType or type(data) is not bytes:
        raise pickle.UnpicklingError("a numpy scalar that is not a plain number")
    return struct.unpack(scalar_type.format, data)[0]


class Inert:
    """Stands for an object of another project's class while a checkpoint is read; forgets what it was made of."""

    def __new__(cls, *_: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_ADMITTED = [
    (_ScalarType, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


def read_checkpoint(path: str | os.PathLike, *, inert: Sequence[str] = ()) -> Any:
    """Return what `torch.save` wrote to `path`, tensors on the CPU; never runs code from the file.

    inert: names ("module.Class") of classes whose objects come back as an Inert each, whatever they hold; the classes
    themselves are neither imported nor called.

    Warns of a file in torch's old format, which has no checksums.

    Raises CheckpointError when the file is missing, damaged, no checkpoint, or names anything but tensors, numbers and
    plain containers.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"import: expected a checkpoint at {path}, got no file; check the path")
    try:
        if zipfile.is_zipfile(path):
            check_members(path)
        else:
            warnings.warn(
                f"import: {path} is in torch's old format, without checksums: a changed bit would go unnoticed",
                stacklevel=2,
            )
        with torch.serialization.safe_globals([*_ADMITTED, *((Inert, name) for name in inert)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch answers a bad file with many types, all of them refusals
        raise CheckpointError(
            f"import: expected a checkpoint of tensors and plain values at {path}, got one that "
            f"cannot be read safely ({_reason(error)})"
        ) from None


def check_members(path: str | os.PathLike) -> None:
    """Refuse an archive whose members do not match their checksums, which torch.load does not compare, or unfold to
    more than the file is long."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > os.path.getsize(path):
            raise zipfile.BadZipFile("it unfolds to more than its size; torch.save does not compress")
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"{broken} does not match its checksum")


def _reason(error: Exception) -> str:
    """The telling part of torch's refusal, which is a page of advice."""
    if isinstance(error, KeyError):  # a byte that is no opcode of a pickle
        return "it is no file of torch.save"
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return f"it calls {named[1]}"
    _, marked, rest = str(error).partition("WeightsUnpickler error:")
    lines = (rest if marked else str(error)).strip().splitlines()
    return lines[0].partition(". ")[0].rstrip(".") if lines else type(error).__name__
