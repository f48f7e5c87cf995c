"""The sub-commands in one process: run, eval, export, config, keys, env."""

from __future__ import annotations

import pytest
import torch

from hiddennet import artifact, cli, run
from hiddennet.models.dnw import NotConverged
from hiddennet.settings import yaml
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


@pytest.mark.parametrize("arguments", [["run"], ["run", "x", "--colour"], ["walk"], ["keys", "x"]])
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
