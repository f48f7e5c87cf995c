"""Files that are there in full or not at all, and locks between processes. Not what is in them."""

import contextlib
import csv
import fcntl
import io
import itertools
import os
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

_TEMPORARY = ".part"


class _Raw(io.FileIO):
    """A file that remembers why a write failed: libraries answer that with errors of their own."""

    failure: OSError | None = None

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _create(path: Path) -> _Raw:
    """A new file at `path`, locked for as long as it is open: whoever finds it unlocked knows its writer is dead."""
    while True:
        file = _Raw(path, "x")
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # not swept away before it was locked
            return file
        file.close()


def write_atomic(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call `write` with a file that takes the place of `path` when it is complete and on disk.

    Whoever reads `path` at any moment, also after a kill or a power cut, sees the old content or
    the new one. Raises OSError that names `path` when the disk is full or the like, whatever `write` made of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
    raw = None
    try:
        raw = _create(temporary)
        with io.BufferedWriter(raw) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        failure = error if raw is None or raw.failure is None else raw.failure
        if isinstance(failure, OSError) and failure.errno is not None:
            raise OSError(failure.errno, os.strerror(failure.errno), str(path)) from None
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
    """Delete what killed writers left behind; files that are being written stay."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def append_row(path: Path, row: Mapping[str, Any], key: str) -> Path | None:
    """Add a row to the CSV file `path`, unless it has one with the same `row[key]`; other rows stay byte for byte.

    Several processes may do so at once; none sees half a row, and no row is lost. A file that cannot be read, or that
    has no column `key`, is put aside (put_aside); returns where, else None.
    """
    aside = put_aside(path, key)
    with locked(_lock_of(path)):
        text = path.read_bytes().decode("utf-8") if path.is_file() else ""
        columns, rows, header_lines = _table(text)
        if any(dict(zip(columns, old, strict=False)).get(key) == str(row[key]) for old in rows):
            return aside
        lines = list(io.StringIO(text, newline=""))
        end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
        new = [name for name in row if name not in columns]
        if new:
            head = "".join(lines[:header_lines]).rstrip("\r\n")
            head += ("," if columns else "") + _line(new, end)
            lines[:header_lines] = [head]
        if not lines[-1].endswith(("\n", "\r")):
            lines[-1] += end
        lines.append(_line([row.get(name, "") for name in (*columns, *new)], end))
        write_text(path, "".join(lines))
    return aside


def put_aside(path: Path, key: str) -> Path | None:
    """Rename the CSV file `path` where it cannot be read or has no column `key`, to the first free of <name>.1, .2, ...

    Returns its new name; None where nothing was wrong. Also deletes what killed writers left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock_of(path)):
        remove_temporaries(path.parent)
        try:
            text = path.read_bytes().decode("utf-8")
            if not text or key in _table(text)[0]:
                return None
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, csv.Error):
            pass
        number = next(n for n in itertools.count(1) if not path.with_name(f"{path.name}.{n}").exists())
        return path.rename(path.with_name(f"{path.name}.{number}"))


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _table(text: str) -> tuple[list[str], list[list[str]], int]:
    """The columns, the rows and how many lines the columns take. Raises csv.Error."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    columns = next(reader, [])
    header_lines = reader.line_num
    return columns, list(reader), header_lines


def _line(values: list[Any], end: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerow(values)
    return text.getvalue()
