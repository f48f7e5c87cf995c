"""The sub-commands in one process: run, eval, export, config, keys, env."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hiddennet import artifact, cli, config, run
from hiddennet.models.dnw import NotConverged
from hiddennet.settings import yaml
from hiddennet.train import experiment
from hiddennet.train.folder import RunFolder


@pytest.fixture
def finished(write, tmp_path, capsys) -> tuple[str, dict]:
    """The folder of a finished run and its record."""
    assert cli.main(["run", str(write()), "--device", "cpu", "seed=1"]) == 0
    capsys.readouterr()
    (record,) = (tmp_path / "runs").rglob("run.json")
    return str(record.parent), RunFolder(record.parent).read_record()


def test_eval_and_export_agree_with_the_run(finished, tmp_path, capsys):
    folder, record = finished
    file = str(tmp_path / "net.safetensors")
    assert cli.main(["export", folder, "-o", file]) == 0
    ours, theirs = artifact.load(file), artifact.load(record["artifact"])
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(ours(images), theirs(images))
    capsys.readouterr()
    for where in (folder, file, record["artifact"]):
        assert cli.main(["eval", where]) == 0
        text = capsys.readouterr().out
        assert f"{record['test_top1']:.2%} top-1" in text
        assert f"density      {record['density']:.4f}" in text
        assert f"{record['dense_bytes']:,} in float32" in text
        assert f"{record['artifact_bytes']:,} as an artifact" in text


def test_a_network_without_a_compact_form_is_refused(finished, tmp_path, capsys):
    file = tmp_path / "net.safetensors"
    assert cli.main(["export", finished[0], "--compact", "-o", str(file)]) == 1
    said = capsys.readouterr().err
    assert "expected one of MobileNetGraph, StaticGraph, DiscreteGraph, got" in said and "leave out --compact" in said
    assert not file.exists()


def test_eval_on_the_validation_split(finished, capsys):
    folder, record = finished
    assert cli.main(["eval", folder, "--split", "validation", "--batch-size", "7"]) == 0
    assert f"{record['validation_top1']:.2%} top-1" in capsys.readouterr().out


def test_eval_on_other_data_is_refused_where_it_does_not_fit(finished, capsys):
    assert cli.main(["eval", finished[0], "--data", "synthetic"]) == 1
    assert "expected images of 1 channels as the network takes, got 3" in capsys.readouterr().err


def test_config_prints_what_reads_back(write, capsys):
    assert cli.main(["config", str(write()), "optimizer.lr=0.25", "--amp", "bf16"]) == 0
    found = yaml.parse(capsys.readouterr().out)
    assert (found["optimizer"]["lr"], found["train"]["amp"]) == (0.25, "bf16")


def test_options_may_stand_anywhere(write, capsys):
    path = str(write())
    for arguments in (
        [path, "--device", "cpu", "seed=3"],
        ["--device", "cpu", path, "seed=3"],
        [path, "seed=3", "--device", "cpu"],
    ):
        assert cli.main(["config", *arguments]) == 0
        found = yaml.parse(capsys.readouterr().out)
        assert (found["seed"], found["train"]["device"]) == (3, "cpu")
    assert run.main([path, "--device", "cpu", "seed=3", "train.epochs=0"]) == 0


@pytest.mark.parametrize("arguments", [["run"], ["run", "x", "--colour"], ["walk"], ["keys", "data", "x"]])
def test_arguments_that_do_not_parse(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


def test_keys_and_env(capsys):
    assert cli.main(["keys"]) == 0
    assert "method.density (number above 0 and at most 1; default 0.5)" in capsys.readouterr().out
    assert cli.main(["env"]) == 0
    assert torch.__version__ in capsys.readouterr().out


def test_errors_of_ours_are_a_sentence_and_others_keep_their_traceback(monkeypatch, capsys):
    def raising(error: Exception):
        def action() -> int:
            raise error

        return action

    assert run.guarded(raising(ValueError("x: expected y")), "hiddennet") == 1
    assert run.guarded(raising(torch.OutOfMemoryError("CUDA out of memory\nand")), "hiddennet") == 1
    assert run.guarded(raising(NotConverged("the ODE: expected z")), "hiddennet") == 1
    first, second, third = capsys.readouterr().err.splitlines()
    assert third == "hiddennet: the ODE: expected z"
    assert first == "hiddennet: x: expected y"
    assert second.startswith("hiddennet: the GPU's memory is full (CUDA out of memory); raise train.")
    with pytest.raises(RuntimeError, match="a bug"):
        run.guarded(raising(RuntimeError("a bug")), "hiddennet")
    monkeypatch.setenv("HIDDENNET_TRACEBACK", "1")
    with pytest.raises(ValueError, match="x"):
        run.guarded(raising(ValueError("x")), "hiddennet")


def test_home_is_found_in_every_path(make, write, monkeypatch, tmp_path, capsys):
    """The shell does not see ~ behind a = or in a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write({"extends": "~/small.yml", "train": {"epochs": 1}}, "sub/own.yml")
    write()
    record = experiment.run(config.load("~/sub/own.yml", ["runs=~/runs", "name=own"]))
    run = f"~/{Path(record['run']).relative_to(tmp_path)}"
    assert cli.main(["export", run, "-o", "~/out/net"]) == 0 and (tmp_path / "out" / "net").is_file()
    assert cli.main(["eval", "~/out/net", "--root", "~"]) == 0 and cli.main(["eval", run, "--device", "cpu"]) == 0
    assert cli.main(["report", run, "-o", "~/out/page", "--layers", "none"]) == 0
    assert (tmp_path / "out" / "page" / "report.html").is_file()
    for where in (run, "~/out/net"):
        imported = make(f"method={{name: prune_at_init, stage: train, subnet: {where}}}", "train.epochs=0")
        experiment.run(imported)
    assert not (tmp_path / "~").exists() and not Path("~").exists()


@pytest.mark.parametrize("override", ["name=", "seed=", "runs=", "plugins=", "model=", "model.name="])
def test_a_key_without_a_value_is_named(write, override, capsys):
    assert cli.main(["config", str(write()), override]) == 1
    said = capsys.readouterr().err
    assert f"{override.rstrip('=')}: expected" in said and "mistakes" not in said, said


def test_no_config_at_all(capsys):
    assert cli.main(["run", ""]) == 1
    assert capsys.readouterr().err.startswith("hiddennet run: '': expected a config file or a name under configs/")


def test_epochs_that_never_come_are_said(make, capsys):
    late = ("schedule={name: multistep, milestones: [1, 2, 9]}", "train.save_epochs=[2, 3]")
    experiment.run(make(*late))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert said == [
        "note: train.save_epochs: epoch 3 of 2 is never reached",
        "note: schedule.milestones of search: epoch 2 of 2 is never reached",
        "note: schedule.milestones of search: epoch 9 of 2 is never reached",
    ]
