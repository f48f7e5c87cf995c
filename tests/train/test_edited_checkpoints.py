"""last.pt and best.pt, edited or of another kind, their checksums right: one sentence, and no run goes on wrongly."""

from __future__ import annotations

import copy

import pytest
import torch

from hiddennet.train import checkpoint, experiment
from hiddennet.train.checkpoint import CheckpointError
from hiddennet.train.folder import RunFolder
from hiddennet.train.opened import open_run


def change(*way, to=None, gone=False):
    """An edit of the value at the end of `way`."""

    def edit(state):
        for key in way[:-1]:
            state = state[key]
        if gone:
            del state[way[-1]]
        else:
            state[way[-1]] = to(state[way[-1]]) if callable(to) else to

    edit.__name__ = ".".join(map(str, way))
    return edit


EDITS = [
    *(change(key, gone=True) for key in ("config", "progress", "architecture", "model", "method", "optimizer")),
    *(change(key, gone=True) for key in ("meter", "carried", "random", "device", "world")),
    *(change(key, to=3) for key in ("config", "progress", "architecture", "model", "optimizer", "meter", "random")),
    change("world", to=0),
    change("progress", "epoch", to=99),
    change("progress", "epoch", to=-1),
    change("progress", "epoch", to=1.0),
    change("progress", "batch", to=10**9),
    change("progress", "step", to=7),
    change("progress", "stage", to=1),
    change("progress", "seconds", to=float("nan")),
    change("progress", "history", to=[]),
    change("progress", "history", to=lambda rows: [{}]),
    change("progress", "history", to=lambda rows: [{**rows[0], "validation_top1": "x"}]),
    change("progress", "best", to={"epoch": 1}),
    change("progress", "stages", to=[]),
    change("progress", "colour", to="red"),
    change("model", to={}),
    change("model", to=lambda model: {key: torch.zeros(2) for key in model}),
    change("optimizer", to={"state": {}, "param_groups": []}),
    change("optimizer", "state", 0, "momentum_buffer", to=torch.zeros(2)),
    change("random", "torch", to=torch.zeros(2)),
    change("random", "numpy", to=[1]),
    change("random", "python", to="x"),
]


@pytest.fixture
def begun(make, tmp_path_factory, monkeypatch):
    """A run that was killed after its first of two epochs, and its checkpoint."""
    made = make()
    kept = checkpoint.save

    def save(path, state):
        kept(path, state)
        if path.name == "last.pt" and state["progress"]["epoch"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(made, bar=False)
    monkeypatch.setattr(checkpoint, "save", kept)
    return made, RunFolder.of(made), checkpoint.load(RunFolder.of(made).last)


def test_edited(begun):
    made, folder, state = begun
    for edit in EDITS:
        edited = copy.deepcopy(state)
        edit(edited)
        checkpoint.save(folder.last, edited)
        with pytest.raises(CheckpointError, match=r"checkpoint: expected .*last\.pt.*--fresh") as caught:
            experiment.run(made, bar=False)
        assert "\n" not in str(caught.value), edit.__name__
    checkpoint.save(folder.last, state)
    assert experiment.run(made, bar=False)["finished"]


def test_of_another_kind(begun):
    made, folder, state = begun
    for other in (torch.load(folder.best, weights_only=True), {"format": 1}, {"format": 1, "config": state["config"]}):
        checkpoint.save(folder.last, other)
        with pytest.raises(CheckpointError, match=r"last\.pt.*--fresh"):
            experiment.run(made, bar=False)


def test_a_best_epoch_that_was_edited(begun):
    made, folder, _ = begun
    experiment.run(made, bar=False)
    best = checkpoint.load(folder.best)
    for key, value in (("model", {}), ("architecture", {}), ("architecture", {"name": "x"}), ("progress", None)):
        checkpoint.save(folder.best, {**best, key: value})
        with pytest.raises(CheckpointError, match=r"best\.pt"):
            open_run(folder.path)
    checkpoint.save(folder.best, best)
    assert open_run(folder.path).finished
