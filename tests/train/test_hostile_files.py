"""Configs, records and tables that are broken or made to do harm: one sentence before the first step."""

from __future__ import annotations

import os
import shutil

import pytest

from hiddennet import cli, config
from hiddennet.config import ConfigError
from hiddennet.train import experiment
from hiddennet.train.folder import RunError, RunFolder

ALIASES = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)) + "optimizer: *a40\n"
TEXTS = {
    "aliases": (ALIASES, "aliases that unfold to more"),
    "itself": ("a: &a [*a]\n", "aliases that unfold to more"),
    "levels": ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
    "maps": ("a: " + "{a: " * 3000 + "}" * 3000, "nested too deeply"),
    "a list as a key": ("? [1, 2]\n: 3\n", r"expected text as a key in line 1, got \[1, 2\]"),
    "a number as a key": ("train: {1: 2}\n", "expected text as a key in line 1, got 1"),
    "no key": ("null: 3\n", "expected text as a key"),
    "5,000 digits": ("seed: " + "9" * 5000, "4300 digits"),
    "no month": ("seed: 2020-13-01\n", "month must be in"),
    "a device": ("extends: /dev/zero\n", "readable text file, got a folder, pipe or device"),
    "a pipe": ("extends: pipe\n", "readable text file, got a folder, pipe or device"),
    "large": ("#" * 2**23, "expected at most 4194304 bytes"),
    "a list as a name": ("method: {name: [a]}\n", r"method\.name: expected one of"),
    "a long value": ("optimizer: " + "x" * 10**6, "optimizer: expected a map of keys"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_config_is_refused_in_a_sentence(tmp_path, name):
    text, said = TEXTS[name]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bad.yml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        config.load(tmp_path / "bad.yml")
    assert all("\n" not in mistake and len(mistake) < 2000 for mistake in caught.value.mistakes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def run(make, finished):
    """A finished run's folder, its own to change, and its config."""
    made = make("train.epochs=1")
    if not (finished / "runs").is_dir():
        experiment.run(make("train.epochs=1"), bar=False)
        shutil.copytree(RunFolder.of(made).path.parents[1], finished / "runs")
    shutil.rmtree(RunFolder.of(made).path.parents[1], ignore_errors=True)
    shutil.copytree(finished / "runs", RunFolder.of(made).path.parents[1])
    return RunFolder.of(made), made


BROKEN = {"empty": b"", "half": b'{"finished": "2026-', "no map": b"[1, 2]", "bytes": b"\xff\xfe", "deep": b"[" * 10**5}


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_record(run, content):
    folder, made = run
    folder.record.write_bytes(BROKEN[content])
    with pytest.raises(RunError, match=r"run\.json, got a broken file; delete it"):
        experiment.run(made, bar=False)


def test_a_record_without_results(run):
    folder, made = run
    folder.write_record({"finished": "2026-11-30", "device": "cpu", "density": "x"})
    with pytest.raises(RunError, match=r"expected the record of a finished run in .*run\.json.*delete it"):
        experiment.run(made, bar=False)
    folder.record.unlink()
    assert experiment.run(made, bar=False)["finished"]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_config_of_a_run(run, content, capsys):
    folder, _ = run
    folder.config.write_bytes(BROKEN[content])
    assert cli.main(["eval", str(folder.path)]) == 1
    said = capsys.readouterr().err
    assert "config.yml" in said and "Traceback" not in said and said.count("\n") <= 5


def test_results_that_cannot_be_read_are_put_aside_before_the_first_step(make, tmp_path, capsys):
    results = tmp_path / "runs" / "results.csv"
    results.parent.mkdir()
    results.write_bytes(b"\xff\xfe")
    left = results.parent / ".results.csv.1-ab.part"
    left.touch()
    experiment.run(make("train.epochs=0"), bar=False)
    said = capsys.readouterr().out
    assert f"note: {results} could not be read" in said and said.index("note:") < said.index("run ")
    assert results.with_name("results.csv.1").read_bytes() == b"\xff\xfe"
    assert len(results.read_text().splitlines()) == 2 and not left.exists()
