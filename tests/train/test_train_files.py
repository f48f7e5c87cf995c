"""Files that survive kills: atomic writes, results from two processes at once, checkpoints."""

from __future__ import annotations

import csv
import errno
import multiprocessing
import os
import pickle
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from hiddennet.files import append_row, locked, put_aside, remove_temporaries, write_atomic, write_text
from hiddennet.train import checkpoint
from hiddennet.train.checkpoint import CheckpointError

FORK = multiprocessing.get_context("fork")


def in_a_process(function, *arguments) -> int:
    """Call `function` in a process of its own and return its exit code."""
    process = FORK.Process(target=function, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


def _killed_while_writing(path: Path) -> None:
    def write(file) -> None:
        file.write(b"new, and only ha")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    write_atomic(path, write)


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    assert in_a_process(_killed_while_writing, path) == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail(file) -> None:
        file.write(b"x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def _append(path: Path, first: int) -> None:
    for number in range(first, first + 20):
        append_row(path, {"id": number, "text": f"a, b\n{number}"}, key="id")


def test_rows_of_several_processes_all_arrive_once(tmp_path):
    path = tmp_path / "results.csv"
    processes = [FORK.Process(target=_append, args=(path, first)) for first in (0, 10, 40)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["id"]) for row in rows) == [*range(30), *range(40, 60)]
    assert all(row["text"] == f"a, b\n{row['id']}" for row in rows)


def test_a_new_column_joins_an_old_file(tmp_path):
    path = tmp_path / "results.csv"
    append_row(path, {"id": 1, "old": "x"}, key="id")
    append_row(path, {"id": 2, "new": "y"}, key="id")
    assert path.read_text() == "id,old,new\n1,x\n2,,y\n"


@pytest.mark.parametrize(
    "before",
    [
        b"id,text\n0,x\n",
        b"id,text\n0,x",
        b"\xef\xbb\xbfid,text\r\n0,x\r\n",
        b"mine,id,text\nz,0,x\n",
        b"id,text\n0,x,more,and more\n",
        b'id,text\n0,"a, ""b""\nc"\n',
        "id,text\n0,a\u2028b\x0c\n".encode(),
        b"id,text\n0\n\n",
    ],
)
def test_rows_of_others_stay_byte_for_byte(tmp_path, before):
    path = tmp_path / "results.csv"
    path.write_bytes(before)
    assert append_row(path, {"id": 1, "text": "a, b"}, key="id") is None
    after = path.read_bytes()
    assert after.startswith(before) and b'1,"a, b"' in after[len(before) :]
    for number in (0, 1):  # both are known
        append_row(path, {"id": number, "text": "again"}, key="id")
    assert path.read_bytes() == after
    append_row(path, {"id": 2, "text": "x", "new": "y"}, key="id")
    rest = path.read_bytes().partition(b"\n")[2]
    assert rest.startswith(after.partition(b"\n")[2])
    with open(path, newline="", encoding="utf-8-sig") as file:
        assert [row["new"] for row in csv.DictReader(file) if row["id"] == "2"] == ["y"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"a,b\n1,2\n", b"id;text\n0;x\n", b'id,text\n0,"never closed\n1,x\n']
)
def test_a_file_that_is_no_table_of_ours_is_put_aside(tmp_path, content):
    path = tmp_path / "results.csv"
    for number in (1, 2):
        path.write_bytes(content)
        assert put_aside(path, "id") == path.with_name(f"results.csv.{number}")
        assert path.with_name(f"results.csv.{number}").read_bytes() == content and not path.exists()
    path.write_bytes(content)
    assert append_row(path, {"id": 1, "text": "x"}, key="id") == path.with_name("results.csv.3")
    assert path.read_bytes() == b"id,text\n1,x\n"
    assert put_aside(path, "id") is None


def _fills_the_disk(path: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        checkpoint.save(path, {"tensor": torch.zeros(1_000_000)})
    except OSError as error:
        os._exit(7 if error.filename == str(path) and error.errno == errno.EFBIG else 1)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    assert in_a_process(_fills_the_disk, path) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert torch.equal(checkpoint.load(path)["tensor"], STATE["tensor"])


def test_temporaries_of_living_writers_stay(tmp_path):
    def write(file) -> None:
        file.write(b"new")
        remove_temporaries(tmp_path)

    write_atomic(tmp_path / "file", write)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_lock_is_held_by_one_and_ends_with_it(tmp_path):
    path = tmp_path / "lock"
    with locked(path, wait=False) as mine:
        assert mine
        with locked(path, wait=False) as another:
            assert not another
    with locked(path, wait=False) as again:
        assert again


STATE = {"numbers": [1, 2.5, None], "tensor": torch.arange(10000.0), "nested": {"a": "b"}}


def test_a_checkpoint_reads_back(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    found = checkpoint.load(path)
    assert found.pop("format") == checkpoint.FORMAT
    assert torch.equal(found.pop("tensor"), STATE["tensor"])
    assert found == {"numbers": [1, 2.5, None], "nested": {"a": "b"}}


def _killed_in_save(path: Path) -> None:
    fsync = os.fsync

    def die(descriptor: int) -> None:
        fsync(descriptor)
        os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = die
    checkpoint.save(path, {"tensor": torch.zeros(100000)})


def test_a_kill_in_the_middle_of_a_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    assert in_a_process(_killed_in_save, path) == -signal.SIGKILL
    assert torch.equal(checkpoint.load(path)["tensor"], STATE["tensor"])


def damaged(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    return {
        "truncated": data[:middle],
        "one bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
        "text": b"not a checkpoint",
    }[how]


@pytest.mark.parametrize("how", ["truncated", "one bit", "empty", "text"])
def test_damage_is_refused(tmp_path, how):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(CheckpointError, match=r"got a damaged one .*delete it, or start again with"):
        checkpoint.load(path)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "x": Harmful()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(tmp_path / "last.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(tmp_path / "old.pt")
    assert not (tmp_path / "harm").exists()


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"format": 99})
    with pytest.raises(CheckpointError, match=r"expected format 1 in .*, got 99"):
        checkpoint.load(path)


def test_random_states_come_back(tmp_path):
    path = tmp_path / "random.pt"

    def draw() -> tuple:
        return torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.rand()

    random.gauss(0, 1)
    checkpoint.save(path, {"random": checkpoint.random_state()})
    want = draw()
    assert draw() != want
    checkpoint.set_random_state(checkpoint.load(path)["random"])
    assert draw() == want


def _live(begun, told) -> None:
    begun.set()
    told.wait(60)


def test_a_lock_ends_with_its_process_though_forked_ones_live(tmp_path):
    """As a loader's workers do for seconds after a kill."""
    begun, told = FORK.Event(), FORK.Event()
    with locked(tmp_path / "lock", wait=False) as first:
        assert first
        child = FORK.Process(target=_live, args=(begun, told))
        child.start()
        assert begun.wait(60)
        with locked(tmp_path / "lock", wait=False) as second:
            assert not second
    with locked(tmp_path / "lock", wait=False) as again:
        assert again and child.is_alive()
    told.set()
    child.join(60)
