"""Values that the original systems computed, by name: README.md says whose, how, and what each array is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
BESIDE = HERE.parents[2] / "shared" / "golden"  # fuller files, where a development checkout has them


class Golden(Mapping[str, np.ndarray]):
    """The arrays of one original: those shipped here and what lies beside; asking for another skips the test.

    Each access gives an array of its own.
    """

    def __init__(self, name: str) -> None:
        files = [np.load(path) for path in (BESIDE / f"{name}.npz", HERE / f"{name}.npz") if path.is_file()]
        self._file = {key: file for file in files for key in file.files}

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._file:
            pytest.skip(f"{key} is not among the originals' values here")
        return self._file[key][key]

    def __contains__(self, key: object) -> bool:
        return key in self._file

    def get(self, key: str, default: Any = None) -> Any:
        return self._file[key][key] if key in self._file else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose keys begin so, by the rest of the key; without any the test is skipped."""
        found = {key.removeprefix(prefix): self[key] for key in self if key.startswith(prefix)}
        return found or pytest.skip(f"{prefix}* is not among the originals' values here")
