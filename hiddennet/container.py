"""The artifact as a file: named tensors and a JSON header, written whole, refused when damaged.

What the header and the tensors mean is not known here; see layers.py and network.py.

Layout: one safetensors file whose metadata has the single key `hiddennet`, the header as JSON. The
header's first entry is `checksum`: the SHA-256 of the whole file with these 64 hex digits read as
zeros, so that a changed bit is found wherever it is, also in the header itself. In a file that hiddennet.runtime reads
the header has a `graph`, and there may be tensors `graph.N`, which are that graph's alone.
"""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from hiddennet.files import write_atomic

FORMAT_VERSION = 3  # the newest that is read; 2 has masks that are coded, 3 a graph
GRAPH_TENSORS = "graph."  # prefix of the tensors that only the graph reads

_KEY = "hiddennet"
_NO_CHECKSUM = b"0" * 64
_PREFIX_BYTES = 8  # safetensors opens with the length of its header: 64 bits, little endian


class ArtifactError(ValueError):
    """An artifact that cannot be used: damaged, of a newer format, or of another architecture."""


def write(path: str | os.PathLike, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write header and tensors to `path` in one step: readers see the old file or the new one.

    header: JSON-able; `checksum` is added here, and `format_version`, the newest, where it has none.
    tensors: contiguous, on the CPU.

    Raises ValueError for an infinity or a NaN in the header, TypeError for what is no JSON, and writes nothing then.
    """
    document = {"checksum": _NO_CHECKSUM.decode(), "format_version": FORMAT_VERSION, **header}
    try:
        metadata = {_KEY: json.dumps(document, separators=(",", ":"), allow_nan=False)}
    except ValueError as error:
        raise ValueError(
            f"artifact: expected finite numbers in the header, got what JSON does not have ({error}); write it as text"
        ) from None
    data = bytearray(safetensors.save(tensors, metadata))
    at = data.index(_NO_CHECKSUM)
    data[at : at + len(_NO_CHECKSUM)] = hashlib.sha256(data).hexdigest().encode()
    write_atomic(Path(path).expanduser(), lambda file: file.write(data))


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return (header, tensors) of the artifact at `path`, without a graph's tensors; nothing is unpickled.

    Raises ArtifactError when the file is missing, not an artifact, truncated, changed, or of a
    newer format.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ArtifactError(f"artifact: expected a file at {path}, got none; check the path")
    data = path.read_bytes()
    header = _header(path, data)
    digest = str(header.get("checksum", "")).encode()
    at = data.find(digest, _PREFIX_BYTES) if len(digest) == len(_NO_CHECKSUM) else -1
    if at < 0 or _digest_without(data, at) != digest:
        raise ArtifactError(
            f"artifact: expected the contents of {path} to match its checksum, got a changed or "
            "truncated file; export it again or fetch a fresh copy"
        )
    try:
        tensors = safetensors.load(data)
    except SafetensorError as error:
        raise ArtifactError(f"artifact: expected readable tensors in {path}, got {error}") from None
    return header, {name: tensor for name, tensor in tensors.items() if not name.startswith(GRAPH_TENSORS)}


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """The parsed header; checks everything that must hold before the checksum can be looked at."""
    size = struct.unpack("<Q", data[:_PREFIX_BYTES])[0] if len(data) >= _PREFIX_BYTES else 0
    text = data[_PREFIX_BYTES : _PREFIX_BYTES + size]
    if size < 2 or len(text) < size or text[:1] != b"{":
        raise ArtifactError(
            f"artifact: expected a safetensors file at {path}, got something else or a truncated "
            "one; artifacts are written by `hiddennet export`"
        )
    try:
        header = json.loads(json.loads(text)["__metadata__"][_KEY])
        version = header["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ArtifactError(
            f"artifact: expected a hiddennet header in {path}, got a safetensors file without a "
            "readable one; it was changed, or not written by `hiddennet export`"
        ) from None
    if type(version) is not int or version > FORMAT_VERSION:
        raise ArtifactError(
            f"artifact: expected format version {FORMAT_VERSION} or older in {path}, got "
            f"{version}; upgrade hiddennet to read it"
        )
    return header


def _digest_without(data: bytes, at: int) -> bytes:
    """SHA-256 of `data` with the checksum's own digits, which start at `at`, read as zeros."""
    hasher = hashlib.sha256(memoryview(data)[:at])
    hasher.update(_NO_CHECKSUM)
    hasher.update(memoryview(data)[at + len(_NO_CHECKSUM) :])
    return hasher.hexdigest().encode()
