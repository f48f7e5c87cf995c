"""Files that are there in full or not at all, and locks between processes. Not what is in them."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

_TEMPORARY = ".part"


def write_atomic(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call `write` with a file that takes the place of `path` when it is complete and on disk.

    Whoever reads `path` at any moment, also after a kill or a power cut, sees the old content or
    the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # the rename itself, where the system lets folders be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as write_atomic does."""
    write_atomic(path, lambda file: file.write(text.encode()))


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left behind. The caller holds the lock of the folder."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


_locks: weakref.WeakSet[TextIO] = weakref.WeakSet()  # a closed file may stay: closing is done once


def _let_go() -> None:
    for file in list(_locks):
        file.close()


os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, or yield False when `wait` is false and another process has it.

    The lock ends with the process, however it ends: processes that it forks do not hold it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        _locks.add(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV with a header of all their keys, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def append_row(path: Path, row: Mapping[str, Any], key: str) -> None:
    """Add a row to the CSV file `path`, unless it has one with the same `row[key]`.

    Several processes may do so at once; none sees half a row, and no row is lost.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        rows: list[dict[str, Any]] = []
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        if any(old.get(key) == str(row[key]) for old in rows):
            return
        write_text(path, csv_text([*rows, dict(row)]))
