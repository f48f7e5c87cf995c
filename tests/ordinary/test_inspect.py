"""hiddennet inspect and hn.summary: what a model or a file holds."""

from __future__ import annotations

import json

import pytest
from torch import nn
from torchvision.models import shufflenet_v2_x0_5

import hiddennet as hn
from hiddennet import cli, config, models
from hiddennet.ordinary.contents import contents
from hiddennet.train import experiment


def inspected(where, capsys) -> dict:
    assert cli.main(["inspect", str(where), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def resnet() -> nn.Module:
    return hn.hide(models.build("resnet20", num_classes=5, width=0.5), hn.Generated(seed=7), hn.TopK(0.2))


MADE = {
    "drawn": resnet,
    "stored": lambda: hn.hide(models.build("resnet20", num_classes=5, width=0.5), hn.Stored(), hn.TopK(0.2)),
    "one stays dense": lambda: hn.hide(models.build("resnet20", num_classes=5, width=0.5), exclude="fc"),
    "wiring": lambda: models.build(
        "dnw_static", num_classes=4, graph={"blocks": [8, 12, 12], "outputs": 6, "density": 0.3, "kind": "dnw"}
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_file_says_what_its_model_does(name, tmp_path, capsys):
    model, path = MADE[name]().eval(), tmp_path / "net.hidden"
    hn.export(model, path, metadata={"method": "mine", "data": "digits"})
    found = inspected(path, capsys)
    mine = contents(model)
    facts = found["facts"]
    assert (found["kind"], found["bytes"]) == ("artifact", path.stat().st_size)
    assert (facts["method"], facts["metadata"]["data"]) == ("mine", "digits")
    theirs = {row["name"]: row for row in found["layers"]}
    assert theirs.keys() == {row.name for row in mine.layers}
    for row in mine.layers:
        other = theirs[row.name]
        assert other["shape"] == list(row.shape) and other["kept"] == row.kept and other["alive"] == row.alive
        assert other["bytes"] == row.bytes and other["bits"] == row.bits
    masks = hn.masks(model)
    assert all(int(mask.sum()) == theirs[key]["kept"] for key, mask in masks.items())
    assert found["total"]["bytes"] == sum(row["bytes"] for row in found["layers"]) < found["bytes"]
    if name != "wiring":
        report = {one.name: one for one in hn.analysis.layer_report(model, (3, 32, 32))}
        assert all(theirs[key]["alive"] == one.alive for key, one in report.items())
        assert found["total"]["alive"] == hn.analysis.total(list(report.values())).alive
    if name == "drawn":
        assert [source["seed"] for source in facts["sources"]] == [7] and facts["rules"][0]["density"] == 0.2
    if name == "stored":
        assert all(theirs[key]["bits"] > 32 * 0.19 for key in masks)


def test_the_table_of_a_network_that_is_not_known_here(tmp_path, capsys):
    model = hn.hide(shufflenet_v2_x0_5(num_classes=5), hn.Generated(seed=1), hn.TopK(0.3)).eval()
    hn.export(model, tmp_path / "a")
    assert cli.main(["inspect", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "alive: not known; the network is torchvision.models.shufflenetv2.ShuffleNetV2" in said
    assert "stage2.0.branch1.0" in said and "seed 1" in said and "Traceback" not in said
    alive = contents(model, (3, 64, 64)).total
    assert alive.alive is not None and 0 < alive.alive <= alive.kept
    text = hn.summary(model, (3, 64, 64)).splitlines()
    assert f"{alive.alive:,}" in text[-1]
    assert "the shape of an input is not known" in contents(model).unknown


def test_a_run_a_checkpoint_and_a_compact_file(tmp_path, capsys):
    overrides = ["model.width=0.2", "train.epochs=1", "train.device=cpu", f"runs={tmp_path}", "data.limit=64"]
    experiment.run(config.load("digits", overrides))
    folder = next(tmp_path.glob("*/*/config.yml")).parent
    capsys.readouterr()
    run, saved = (inspected(where, capsys) for where in (folder, folder / "checkpoints" / "best.pt"))
    file = inspected(folder / "artifact.safetensors", capsys)
    assert (run["kind"], saved["kind"], saved["facts"]["epoch"]) == ("run", "checkpoint", 1)
    assert run["total"] == saved["total"]
    assert {key: file["total"][key] for key in ("kept", "alive", "bytes")} == {
        key: run["total"][key] for key in ("kept", "alive", "bytes")
    }
    small = hn.compact(MADE["wiring"]().eval())
    hn.export(small, tmp_path / "small")
    found = inspected(tmp_path / "small", capsys)
    assert found["kind"] == "compact artifact" and found["total"]["kept"] == small.edges


def test_what_cannot_be_read_is_one_sentence(tmp_path, capsys):
    (tmp_path / "text").write_text("no network")
    (tmp_path / "zip").write_bytes(b"PK\x03\x04" + bytes(100))
    for name, message in {
        "nothing": "inspect: expected an artifact, a run or a checkpoint, got nothing",
        "text": "expected a safetensors file",
        "zip": "expected a complete checkpoint",
    }.items():
        assert cli.main(["inspect", str(tmp_path / name)]) == 1
        said = capsys.readouterr().err
        assert message in said and len(said.strip().splitlines()) == 1


def test_a_model_of_other_things():
    model = nn.Sequential(nn.Embedding(7, 4), hn.nn.Wiring(4, 4, 0.5).double(), nn.LSTM(4, 4))
    rows = {row.name: row for row in contents(model).layers}
    assert rows["1"].bytes is None and rows["1"].kept == 8 and contents(model).total.bytes is None
    assert rows["0"].bytes == 112 and rows["2.weight_ih_l0"].shape == (16, 4)
    sampled = hn.hide(nn.Sequential(nn.Linear(8, 8, bias=False)), rule=hn.Sampled(seed=1), score_init=0.0)
    row = contents(sampled).layers[0]
    assert (row.kept, row.bits) == (pytest.approx(32), 32.0)
