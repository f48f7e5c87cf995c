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
