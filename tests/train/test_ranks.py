"""Two processes over gloo: the same masks on both, one writer, the run that one would make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiddennet import config
from hiddennet.settings import yaml
from hiddennet.train import checkpoint, experiment
from hiddennet.train.build import build_data
from hiddennet.train.folder import RunFolder
from hiddennet.train.ranks import Ranks

HERE = Path(__file__).resolve().parent


METHODS = [
    (),
    ("method.name=iterand", "method.period=2", "method.rate=0.5"),
    (
        "method.name=dnw",
        "method.density=0.2",
        "model.name=dnw_static",
        "model.graph={blocks: [8, 30], outputs: 10}",
        "model.width=1",
        "data.image_size=16",
    ),
    ("method.name=peek_a_boo", "method.pruner=snip", "method.adaptivity_rate=0.1"),
]


@pytest.mark.parametrize("method", METHODS, ids=["edge_popup", "iterand", "dnw", "peek_a_boo"])
def test_two_processes_learn_the_same_and_what_one_learns(write, make, tmp_path, method):
    document = yaml.parse(config.dump(make("train.accumulate=2", "data.limit=205", *method)))
    path = write(document, "small.yml")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, str(HERE / "rank_worker.py"), str(path), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{i}.json").read_text()) for i in (0, 1)]
    assert ranks[0]["masks"] == ranks[1]["masks"]
    assert ranks[0]["best"] == ranks[1]["best"]
    assert ranks[0]["test_top1"] == ranks[1]["test_top1"]
    assert [sum(seen["images"]) for seen in ranks] == [93, 92]
    for seen in ranks:
        assert seen["world"] == 2
        assert "expected the same parameters on all 2 processes" in seen["refused"]
    assert done.stdout.count("epoch 2/2") == 1
    assert len((tmp_path / "runs" / "results.csv").read_text().splitlines()) == 2

    alone = config.parse({**document, "runs": str(tmp_path / "alone")})
    experiment.run(alone)
    one = checkpoint.load(RunFolder.of(alone).last)
    two = checkpoint.load(RunFolder.of(config.parse(document)).last)
    assert one["progress"]["step"] == two["progress"]["step"]
    for a, b in zip(one["progress"]["history"], two["progress"]["history"], strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.02)
    first = [checkpoint.load(RunFolder.of(c).first)["model"] for c in (alone, config.parse(document))]
    for key, value in first[0].items():
        if torch.is_tensor(value):
            assert torch.equal(value, first[1][key]), key


def test_the_batch_is_shared_out_evenly_or_refused(make, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match=r"data.batch_size: expected a multiple of the 3 processes"):
        build_data(make(), torch.device("cpu"), Ranks())
    data = build_data(make("data.batch_size=30"), torch.device("cpu"), Ranks())
    assert [len(labels) for _, labels in data.train][:-1] == [10] * (len(data.train) - 1)


def launched(*arguments: str) -> subprocess.CompletedProcess:
    """Two processes over gloo."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*launch, *arguments], capture_output=True, text=True, env=environment, timeout=300)


def counts(settings) -> list[dict[str, float]]:
    """What was counted of the training images, epoch by epoch."""
    history = checkpoint.load(RunFolder.of(settings).last)["progress"]["history"]
    return [{key: value for key, value in row.items() if key.startswith("train_")} for row in history]


def test_two_processes_stopped_and_started_again_count_the_same(write, make, tmp_path):
    """Every process has its own sums; the state of a text's columns, too."""
    (tmp_path / "words").mkdir()
    for file in ("train.txt", "valid.txt", "test.txt"):
        text = "one two three four five six\ntwo four six one three five\n" * 20
        (tmp_path / "words" / file).write_text(text)
    image = make("data.limit=205", "train.epochs=3", "name=image")
    text = config.parse(
        {
            "name": "text",
            "runs": str(tmp_path / "runs"),
            "model": {"name": "lstm_lm", "width": 0.02, "dropout": 0.1},
            "data": {"name": "text_folder", "root": str(tmp_path / "words"), "batch_size": 4, "bptt": 7},
            "method": {"name": "edge_popup"},
            "train": {"epochs": 2, "device": "cpu", "log_every": 2},
        }
    )
    paths = []
    for settings in (image, text, *(one.model_copy(update={"name": f"{one.name}-left"}) for one in (image, text))):
        paths.append(str(write(config.dump(settings), f"{settings.name}.yml")))
    done = launched(str(HERE / "rank_resume_worker.py"), *paths)
    assert done.returncode == 0, done.stderr
    for settings in map(config.load, paths):
        whole = config.load(write(config.dump(settings)), [f"runs={settings.runs}-whole"])
        if settings.name.endswith("left"):
            experiment.run(settings)
            for one, two in zip(counts(settings), counts(whole), strict=True):
                assert one["train_loss"] == pytest.approx(two["train_loss"], rel=0.05)
            images = counts(settings)[1]["train_top1"] * 185
            assert "text" in settings.name or images == pytest.approx(round(images), abs=1e-9)
        else:
            assert counts(settings) == counts(whole), settings.name


def test_where_a_process_dies_the_other_says_so_in_a_sentence(write, make, tmp_path):
    path = write(config.dump(make("train.epochs=100000")))
    code = (
        "import os, sys; from hiddennet import run; from hiddennet.methods import METHODS; from hiddennet.train import "
        "ranks\n"
        "def die(self, model, step):\n"
        "    if step == 4 and os.environ['RANK'] == '1': os._exit(9)\n"
        "METHODS['edge_popup'].after_update = die\n"
        "ranks.leave(run.main([sys.argv[1]]))\n"
    )
    (tmp_path / "dies.py").write_text(code)
    done = launched(str(tmp_path / "dies.py"), str(path))
    said = [line for line in done.stderr.splitlines() if line.startswith("hiddennet run: ")]
    assert len(said) == 1 and "another process of the run has ended" in said[0], done.stderr
    assert "goes on from the last checkpoint" in said[0] and "gloo/transport" not in done.stderr.replace(said[0], "")
