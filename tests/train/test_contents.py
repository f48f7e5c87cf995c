"""Which data a run was made of: kept with it, compared when it goes on, and by class in evaluation."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from hiddennet import artifact, config, data
from hiddennet.sweep import command as sweep
from hiddennet.train import evaluate, experiment
from hiddennet.train.folder import RunError, RunFolder
from hiddennet.train.signals import Stopped
from tests.train.test_resume import stop_at_step

CLASSES = ("ant", "bee", "cat")


def images(root, classes=CLASSES, count=6, parts=("train", "val")):
    """Pictures of one brightness a class, which a small network learns at once."""
    for part in parts:
        for label, name in enumerate(classes):
            folder = root / "image_folder" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((16, 16, 3), 40 + 80 * label + i, np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.bmp")
    return root


@pytest.fixture
def folder(make, tmp_path):
    """Return the config of a run of image folders below a root."""

    def build(root, *more: str):
        keys = ("data.name=image_folder", "data.limit=null", "data.image_size=8", "data.workers=0", "data.batch_size=4")
        return make(*keys, "data.augment=false", "data.validation=0.2", f"data.root={root}", *more)

    return build


def rename(root):
    for part in ("train", "val"):
        (root / "image_folder" / part / "ant").rename(root / "image_folder" / part / "dog")


def add(root):
    at = root / "image_folder" / "train" / "ant"
    shutil.copy(at / "0.bmp", at / "9.bmp")


def enlarge(root):
    with open(root / "image_folder" / "train" / "bee" / "3.bmp", "ab") as file:
        file.write(b"\0")


CHANGES = {
    rename: r"begun with \(3 classes, 'ant' among them\), got other data below .* \(3 classes, 'dog' among them\)",
    add: r"begun with \(18 of train, 18 of test\), got other data below .* \(19 of train, 18 of test\)",
    enlarge: r"as many others, by their names, sizes or contents",
}


@pytest.mark.parametrize("finished", [False, True], ids=["stopped", "finished"])
def test_other_data_are_refused_and_the_same_elsewhere_go_on(folder, monkeypatch, tmp_path, capfd, finished):
    first, moved = images(tmp_path / "first"), tmp_path / "moved"
    if finished:
        experiment.run(folder(first))
    else:
        with monkeypatch.context() as patch:
            stop_at_step(patch, "edge_popup", 2)
            with pytest.raises(Stopped):
                experiment.run(folder(first))
    kept = RunFolder.of(folder(first)).last.read_bytes()
    for change, said in CHANGES.items():
        other = tmp_path / change.__name__
        shutil.copytree(first, other)
        change(other)
        with pytest.raises(RunError, match=said):
            experiment.run(folder(other))
    assert RunFolder.of(folder(first)).last.read_bytes() == kept
    shutil.move(first, moved)
    record = experiment.run(folder(moved))
    assert record["contents"]["classes"] == list(CLASSES)
    assert ("was finished" if finished else "goes on with epoch 1") in capfd.readouterr().out
    shutil.rmtree(moved)
    assert experiment.run(folder(moved)) == record  # what a finished run has found is still told


def test_a_sweep_takes_no_finished_run_of_other_data(folder, tmp_path, write):
    first, other = images(tmp_path / "first"), images(tmp_path / "other", ("ant", "bee", "cow"))
    experiment.run(folder(first))
    document = {"config": str(write(config.dump(folder(other)), "one.yml")), "grid": {"seed": [0]}}
    with pytest.raises(RunError, match="data: expected what"):
        sweep.run(write(document, "sweep.yml"), workers=1, bar=False)


def test_classes_are_kept_mapped_and_refused(folder, tmp_path):
    root = images(tmp_path / "first")
    record = experiment.run(folder(root, "train.epochs=4", "method={name: dense}", "optimizer.lr=0.01"))
    file = RunFolder.of(folder(root, "train.epochs=4", "method={name: dense}", "optimizer.lr=0.01")).artifact
    assert artifact.read_header(file)["metadata"]["classes"] == list(CLASSES)
    fewer = images(tmp_path / "fewer", CLASSES)
    for part in ("train", "val"):
        shutil.rmtree(fewer / "image_folder" / part / "bee")
    build = {"batch_size": 4, "device": "cpu", "seed": 0, "workers": 0, "classes": CLASSES, "root": fewer}
    assert {int(label) for _, labels in data.build("image_folder", **build).test for label in labels} == {0, 2}
    for where in (str(file), record["run"]):
        found = evaluate.evaluate(where, root=str(root), device="cpu")["scores"]
        assert (found.top1, found.images) == (record["test_top1"], 18)
        part = evaluate.evaluate(where, root=str(fewer), device="cpu")["scores"]
        assert part.images == 12
        rename(other := images(tmp_path / f"other{len(where)}"))
        with pytest.raises(ValueError, match=r"classes that the network knows \(ant, bee, cat.*the folder 'dog'"):
            evaluate.evaluate(where, root=str(other), device="cpu")


def test_what_cannot_be_learned_is_refused_and_what_cannot_be_told_is_said(folder, tmp_path, capfd):
    root = images(tmp_path / "first")
    (root / "image_folder" / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match="got none in the folder 'dog'"):
        experiment.run(folder(root))
    with pytest.raises(ValueError, match="at least two classes, got one"):
        experiment.run(folder(images(tmp_path / "one", ("ant",))))
    shutil.rmtree(images(tmp_path / "lacking") / "image_folder" / "val" / "bee")
    experiment.run(folder(tmp_path / "lacking", "data.validation=0.06", "train.epochs=0"))
    said = capfd.readouterr().out
    assert "note: the test images have no image of class 'bee'" in said
    assert "note: the validation images have no image of 2 classes, 'bee' first" in said
