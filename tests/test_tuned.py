"""Measured choices: kept by machine and between processes; a cache that cannot be used is no error."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys

import pytest
import torch

from hiddennet import env, tuned
from hiddennet.tuned import Measured


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Measured, "_own", {})
    return tmp_path / "hiddennet" / "measured.json"


def test_a_choice_is_there_in_the_next_process(cache):
    assert Measured.get("amp", "a") is None and Measured.all("amp") == {}
    Measured.put("amp", "a", {"ratio": 2.5, "layers": [1, 2]})
    Measured.put("plans", "a", {"plan": "library"})
    Measured.put("amp", "b", {"ratio": 1})
    Measured.put("amp", "b", {"ratio": 2})
    said = "import torch; torch.set_num_threads({}); from hiddennet.tuned import Measured; print(Measured.all('amp'))"

    def there(threads: int) -> str:
        command = [sys.executable, "-c", said.format(threads)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ}).stdout.strip()

    assert there(torch.get_num_threads()) == "{'a': {'ratio': 2.5, 'layers': [1, 2]}, 'b': {'ratio': 2}}"
    assert there(torch.get_num_threads() + 1) == "{}"  # which changes what pays


def test_another_machine_knows_nothing_of_it(monkeypatch):
    Measured.put("amp", "a", {"ratio": 2.5})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert Measured.get("amp", "a") is None
    Measured.put("amp", "a", {"ratio": 0.5})
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert Measured.get("amp", "a") == {"ratio": 2.5}


def test_what_is_returned_is_the_callers_own():
    Measured.put("amp", "a", {"ratio": 2.5})
    Measured.get("amp", "a")["ratio"] = 0
    assert Measured.get("amp", "a") == {"ratio": 2.5}


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "[" * 100_000, "\xff", '{"MACHINE": 3}', '{"MACHINE": {"amp": {"a": 1}}}']
)
def test_a_broken_file_is_written_anew(cache, text):
    cache.parent.mkdir()
    cache.write_bytes(text.replace("MACHINE", tuned.machine_key()).encode("latin-1"))
    assert Measured.get("amp", "a") is None and Measured.all("amp") == {}
    Measured.put("amp", "b", {"ratio": 1})
    Measured._own.clear()
    assert Measured.get("amp", "b") == {"ratio": 1}
    json.loads(cache.read_text())


def test_a_cache_that_cannot_be_written_serves_the_process(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a file where the folder would be
    Measured.put("amp", "a", {"ratio": 1})
    assert Measured.get("amp", "a") == {"ratio": 1} == Measured.all("amp")["a"]


def _put(first: int) -> None:
    for i in range(first, first + 10):
        Measured.put("amp", str(i), {"ratio": i})


def test_processes_that_write_at_once_lose_nothing():
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put, args=(first,)) for first in (0, 10, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(map(int, Measured.all("amp"))) == list(range(30))


def test_a_user_without_a_home_keeps_choices_for_the_process(monkeypatch):
    """A container that runs under a number that no user has."""

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(type(tuned.Path()), "expanduser", homeless)
    Measured.put("amp", "a", {"ratio": 2.5})
    assert Measured.get("amp", "a") == {"ratio": 2.5} and Measured.get("amp", "b") is None
    assert env.collect()["measured here"] == "nowhere: this user has no home"


def test_the_file_holds_the_newest_choices_alone(cache, monkeypatch):
    monkeypatch.setattr(tuned, "LIMIT", 3)
    for i in range(5):
        Measured.put("amp", f"{i}", {"ratio": i})
    monkeypatch.setattr(Measured, "_own", {})
    assert Measured.all("amp") == {f"{i}": {"ratio": i} for i in (2, 3, 4)}
