"""Reads CIFAR-10 and CIFAR-100 from their Python batches (Krizhevsky 2009).

The files are pickles; uint8 arrays, lists, numbers and strings are let in, through stand-ins that run no code of
NumPy's: its own ``dtype.__setstate__`` believes a file that says that bytes are pointers. Not for downloading them: see
``roots``.
"""

import io
import pickle
import pickletools
from pathlib import Path

import numpy as np

from .readers import Arrays

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class _Bytes:
    """Stands for `_codecs.encode`: how Python 3 writes bytes into a pickle of protocol 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:
        return text.encode("latin1" if encoding == "latin1" else "ascii")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a state of bytes")


class _Type:
    """Stands for `numpy.dtype`; knows uint8 only, which has no state."""

    def __init__(self, code: str, *_: object) -> None:
        if code != "u1":
            raise pickle.UnpicklingError(f"an array of type {code!r}")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for `numpy.ndarray` and what rebuilds one: a shape and bytes, no code of numpy's is run on them."""

    values = np.empty(0, np.uint8)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _Type:
            raise pickle.UnpicklingError("an array without a type")
        data = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
        self.values = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C").copy()


_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _Bytes,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes the stand-ins above and nothing else that is callable."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"a reference to {module}.{name}")
        return _STAND_INS[module, name]


def _unpickled(data: bytes) -> dict:
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "LONG_BINPUT") and argument > len(data):  # Python makes room for so many
            raise pickle.UnpicklingError(f"a place {argument} for a value")
    return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()


def _read_batch(path: Path, label_key: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _unpickled(path.read_bytes())
        images, labels = (
            value.values if type(value) is _Array else value for value in (batch["data"], batch[label_key])
        )
        if type(labels) is list and not all(type(label) is int for label in labels):
            raise pickle.UnpicklingError("labels that are no whole numbers")
        labels = np.asarray(labels, dtype=np.int64)
        if type(images) is not np.ndarray or images.shape != (len(labels), PIXELS):
            raise pickle.UnpicklingError(f"images {np.shape(images)} and {len(labels)} labels")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: expected a batch of CIFAR, got no file; unpack the archive again") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _corrupt(path, f"{type(error).__name__}: {error}") from error
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise _corrupt(path, f"labels from {labels.min()} to {labels.max()}")
    return images.reshape(-1, 3, SIDE, SIDE), labels


def _corrupt(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected a batch of CIFAR with uint8 images (N, {PIXELS}) and their labels, got "
        f"{found}; delete it and unpack the archive again"
    )


def _read(folder: Path, train: list[str], key: str, num_classes: int, test: str) -> Arrays:
    batches = [_read_batch(folder / file, key, num_classes) for file in train]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Arrays(images, labels, *_read_batch(folder / test, key, num_classes), num_classes)


def read_cifar10(folder: Path) -> Arrays:
    """``cifar-10-batches-py``: data_batch_1 ... data_batch_5 and test_batch."""
    return _read(folder, [f"data_batch_{i}" for i in range(1, 6)], "labels", 10, "test_batch")


def read_cifar100(folder: Path) -> Arrays:
    """``cifar-100-python``: train and test, with the 100 fine labels."""
    return _read(folder, ["train"], "fine_labels", 100, "test")
