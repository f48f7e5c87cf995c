"""The dtype of a run: what the config says, or on a CPU what was measured; kept from the beginning to the end."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import config as configs
from hiddennet import env
from hiddennet.methods import METHODS
from hiddennet.settings import yaml
from hiddennet.train import checkpoint, evaluate, experiment, heaviest, precision
from hiddennet.train.checkpoint import CheckpointError
from hiddennet.train.folder import RunFolder
from hiddennet.train.opened import open_run
from hiddennet.train.precision import Precision, decide
from hiddennet.train.signals import Stopped
from hiddennet.tuned import Measured

CPU, DIGITS = torch.device("cpu"), (1, 8)


@pytest.fixture
def auto(monkeypatch, tmp_path):
    """As without the test session's HIDDENNET_AMP; returns a function that says how fast bfloat16 is."""
    monkeypatch.delenv(precision.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Measured, "_own", {})

    def times_as_fast(ratio: float) -> list:
        asked = []

        def measured(layers, batch, channels_last):
            asked.append((layers, batch, channels_last))
            return {"float32": ratio, "bfloat16": 1.0}

        monkeypatch.setattr(precision, "measure", measured)
        return asked

    return times_as_fast


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.mark.parametrize("ratio, dtype", [(1.19, "float32"), (1.2, "bfloat16"), (0.05, "float32"), (6.0, "bfloat16")])
def test_on_a_cpu_it_is_what_was_measured(auto, make, capfd, ratio, dtype):
    asked = auto(ratio)
    record = experiment.run(make("train.epochs=1"))
    assert record["dtype"] == dtype and f"{ratio:.2g}x as fast" in record["dtype_why"]
    assert f"1 epochs on cpu in {dtype} ({record['dtype_why']})\n" in capfd.readouterr().out
    (row,) = csv.DictReader(Path(record["run"], "../../results.csv").read_text().splitlines())
    assert row["dtype"] == dtype
    (layers, batch, channels_last), *more = asked
    assert (layers[0].words, batch, channels_last, more) == ("linear 1x64 by 51x64", 32, True, [])
    experiment.run(make("train.epochs=1", "seed=1"))
    assert len(asked) == 1  # it is known by then
    assert f"digits_mlp: {dtype} (" in env.collect()["train.amp=auto 1"]


def test_what_insists(auto, make, monkeypatch):
    asked = auto(6.0)
    cuda = torch.device("cuda")
    for wish, dtype in (("float32", "float32"), ("bf16", "bfloat16")):
        assert decide(make(f"train.amp={wish}"), net(), DIGITS, CPU) == Precision(dtype, f"train.amp={wish}")
        assert decide(make(f"train.amp={wish}", "train.deterministic=true"), net(), DIGITS, cuda).dtype == dtype
    assert decide(make(), net(), DIGITS, cuda).dtype == "float32"
    assert decide(make("train.deterministic=true"), net(), DIGITS, CPU).dtype == "float32"
    monkeypatch.setenv(precision.VARIABLE, "bf16")
    assert decide(make(), net(), DIGITS, CPU) == Precision("bfloat16", "HIDDENNET_AMP=bf16")
    monkeypatch.setenv(precision.VARIABLE, "fp16")
    with pytest.raises(
        ValueError, match="HIDDENNET_AMP: expected float32 or bf16, or the variable not set, got 'fp16'"
    ):
        decide(make(), net(), DIGITS, CPU)
    assert not asked


def test_a_network_that_cannot_be_looked_at_is_float32(auto, make):
    asked = auto(6.0)

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no such thing\nat all")

    found = decide(make(), Broken(), DIGITS, CPU)
    assert found.dtype == "float32" and found.why.endswith("looked at: RuntimeError: no such thing")
    assert decide(make(), nn.Flatten(), DIGITS, CPU).why == "it has no convolution or linear layer to time"
    wired = hn.models.build("dnw_static", num_classes=10, graph={"blocks": [8, 16, 20], "outputs": 10})
    assert "wiring" in decide(make(), wired, (3, 32), CPU).why and not asked


def test_a_run_keeps_what_it_began_with(auto, make, monkeypatch, capfd, tmp_path):
    """Also on a machine where it would begin otherwise; and it ends as if it had never been stopped."""
    auto(6.0)
    whole = experiment.run(make("name=whole"))

    own = METHODS["edge_popup"].after_update

    def stopped(self, model, step):
        own(self, model, step)
        if step == 7:
            raise Stopped(15)

    with monkeypatch.context() as patch:
        patch.setattr(METHODS["edge_popup"], "after_update", stopped)
        with pytest.raises(Stopped):
            experiment.run(make())
    Measured._own.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another_machine"))
    auto(0.1)
    capfd.readouterr()
    record = experiment.run(make())
    assert "goes on with epoch 2 of 2, in bfloat16 as it began" in capfd.readouterr().out
    assert (record["dtype"], record["dtype_why"]) == (whole["dtype"], whole["dtype_why"])
    assert (
        record["test_loss"] == whole["test_loss"]
        and record["test_loss"] != experiment.run(make(), fresh=True)["test_loss"]
    )


def test_runs_of_before_go_on_as_they_were(auto, make, capfd):
    """Their checkpoints have no precision, their configs amp_on_cpu and amp: null."""
    auto(6.0)
    config = make("train.amp=float32", "train.epochs=1")
    folder = RunFolder.of(make("train.epochs=1"))
    folder.checkpoints.mkdir(parents=True)
    experiment.run(config)
    for file in RunFolder.of(config).checkpoints.glob("*.pt"):
        state = {k: v for k, v in checkpoint.load(file).items() if k not in ("precision", "format")}
        checkpoint.save(folder.checkpoints / file.name, {**state, "config": configs.digest(make("train.epochs=1"))})
    document = yaml.parse(configs.dump(make("train.epochs=1")))
    document["train"] |= {"amp": None, "amp_on_cpu": False}
    folder.config.write_text(yaml.write(document))
    assert folder.read_config() == make("train.epochs=1")
    assert open_run(folder.path).config.train.amp == "auto"
    assert evaluate.evaluate(str(folder.path))["scores"].images > 0
    assert experiment.run(make("train.epochs=1"))["dtype"] == "float32"
    assert "in float32 as it began" in capfd.readouterr().out
    old = {"device": "cuda"}
    assert [precision.of_checkpoint(old, amp).dtype for amp in ("auto", "bf16")] == ["float32", "bfloat16"]
    assert precision.of_checkpoint({"device": "cpu"}, "bf16").dtype == "float32"


@pytest.mark.parametrize("broken", [{"dtype": "int8", "why": ""}, {"dtype": "float32"}, 3, {"dtype": [], "why": ""}])
def test_a_checkpoint_of_no_precision_is_refused(make, broken):
    config = make("train.epochs=1")
    experiment.run(config)
    folder = RunFolder.of(config)
    state = checkpoint.load(folder.last)
    checkpoint.save(folder.last, {**{k: v for k, v in state.items() if k != "format"}, "precision": broken})
    folder.write_record({})
    with pytest.raises(CheckpointError, match="cannot be used"):
        experiment.run(config)


def test_the_heaviest_layers_of_a_torchvision_network():
    """Found without a change of the network or of anybody's random numbers, hidden or not."""
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(num_classes=10).train()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = heaviest.heaviest(model, torch.zeros(1, 3, 64, 64), 4)
    assert [layer.words for layer in found] == [
        "conv2d 64x16x16 by 64x64x3x3 (1, 1) (1, 1) (1, 1) 1",  # four of them
        "conv2d 128x8x8 by 128x128x3x3 (1, 1) (1, 1) (1, 1) 1",  # three
        "conv2d 256x4x4 by 256x256x3x3 (1, 1) (1, 1) (1, 1) 1",
        "conv2d 512x2x2 by 512x512x3x3 (1, 1) (1, 1) (1, 1) 1",
    ]
    assert found[0].multiply_adds == 64 * 64 * 9 * 256
    assert model.training and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    hidden = hn.hide(torchvision.models.resnet18(num_classes=10))
    torch.set_rng_state(before[0])
    assert heaviest.heaviest(hidden, torch.zeros(1, 3, 64, 64), 4) == found
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before[1:]


def test_every_kind_of_layer_can_be_timed():
    layers = [
        (nn.Conv1d(4, 6, 3, padding="same", groups=2), (4, 9)),
        (nn.Conv3d(2, 4, 3, stride=2), (2, 7, 7, 7)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2), (4, 5, 5)),
        (nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular", dilation=2), (4, 9, 9)),
        (nn.Linear(5, 7), (3, 5)),
    ]
    state = torch.get_rng_state()
    found = [heaviest.heaviest(layer, torch.zeros(1, *shape))[0] for layer, shape in layers]
    seconds = precision.measure(found, 2, channels_last=True)
    assert set(seconds) == {"float32", "bfloat16"} and min(seconds.values()) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert [layer.multiply_adds for layer in found] == [9 * 36, 27 * 8 * 27, 25 * 4 * 27, 49 * 8 * 36, 3 * 35]


def test_large_layers_are_timed_on_fewer_images():
    layer = heaviest.LayerShape("linear", (1, 4), (4, 4), (), precision.ENOUGH // 8)
    assert [precision._images(layer, batch) for batch in (4, 8, 9, 10**9)] == [4, 8, 8, 8]
    assert precision._images(layer._replace(multiply_adds=2**40), 64) == 1


def test_a_broken_choice_is_measured_again(auto, make, tmp_path):
    asked = auto(3.0)
    decide(make(), net(), DIGITS, CPU)
    file = tmp_path / "cache" / "hiddennet" / "measured.json"
    file.write_text(json.dumps(json.loads(file.read_text())).replace('"ratio": 3.0', '"ratio": "fast"'))
    Measured._own.clear()
    assert env.collect()["torch"] == torch.__version__
    assert decide(make(), net(), DIGITS, CPU).dtype == "bfloat16" and len(asked) == 2
