"""`make demo`: its story in a screen, from runs of one epoch; the picture shows the masks; the build is quiet."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import hiddennet as hn
from hiddennet import config, demo

ROOT = Path(__file__).resolve().parents[1]


def test_the_story_is_a_screen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    load = config.load
    small = ["model.width=0.2", "train.epochs=1", "train.device=cpu", "train.amp=float32"]
    monkeypatch.setattr(config, "load", lambda name, overrides=(): load(name, [*overrides, *small]))
    assert demo.main() == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if "hiddennet " not in line]  # whose paths are of this machine
    assert len(said.splitlines()) <= 30 and max(map(len, lines)) <= 120
    rows = {line.split("  ")[0]: re.split(r"  +", line) for line in said.splitlines()}
    assert [rows[name][2] for name in ("dense", "random mask", "edge-popup")] == ["all", "all", "none"]
    assert [rows[name][1] for name in ("dense", "random mask", "edge-popup")] == ["100%", "50%", "50%"]
    assert all(re.fullmatch(r"[\d.]+ [kM]?B", rows[name][4]) for name in ("dense", "random mask", "edge-popup"))
    artifact = re.search(r"(\S+artifact.safetensors), read back", said)[1]
    picture = re.search(r"(\S+masks.png): what was kept", said)[1]
    assert Path(artifact).is_file() and Path(picture).is_file()
    assert f"read back: {rows['edge-popup'][3]} of the test images" in said
    for command in re.findall(r"^  \S*hiddennet (.*)$", said, re.MULTILINE):
        assert command.split()[0] in ("run", "report", "list")


def test_the_picture_has_the_colour_of_every_weight(tmp_path):
    from PIL import Image

    network = hn.models.build("digits_conv", num_classes=10, width=0.2)
    hn.export(hn.hide(network, rule=hn.TopK(0.3)).eval(), tmp_path / "net.safetensors")
    page = np.array(Image.open(demo.draw(tmp_path / "net.safetensors", tmp_path / "masks.png")))
    counts = [int((page == np.array(color)).all(-1).sum()) for color in demo.COLORS]
    wanted = [0, 0, 0]
    with torch.no_grad():
        for layer in hn.hidden_layers(network).values():
            weight = layer.weight.flatten(1)
            zoom = max(1, min(12, demo.SIDE // max(weight.shape)))
            for at, sign in enumerate((0, 1, -1)):
                wanted[at] += int((weight.sign() == sign).sum()) * zoom**2
    assert counts == wanted and min(wanted) > 0


def test_bytes_in_three_digits():
    assert [demo.size(n) for n in (7, 999, 38_210, 604_123, 1_134_000)] == [
        "7 B",
        "999 B",
        "38.2 kB",
        "604 kB",
        "1.13 MB",
    ]


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_build_says_is_only_shown_where_it_fails(tmp_path, fails):
    if shutil.which("make") is None:
        pytest.skip("no make here")
    ending = "false" if fails else "true"
    text = f"include Makefile\none:\n\t$(call quietly,echo SetuptoolsWarning && {ending})\n\t@echo after\n"
    (tmp_path / "own.mk").write_text(text)
    command = ["make", "-s", "-f", str(tmp_path / "own.mk"), "one", f"LOG={tmp_path}/log/make.log"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (tmp_path / "log" / "make.log").read_text() == "SetuptoolsWarning\n"
    assert ("SetuptoolsWarning" in done.stdout, "after" in done.stdout, done.returncode != 0) == (
        fails,
        not fails,
        fails,
    )
