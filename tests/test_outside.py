"""Models and data that nobody registered: timm's, torchvision's, and functions of a user's modules by their place."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import hiddennet as hn
from hiddennet import config, data, models, outside
from hiddennet.config import ConfigError
from hiddennet.models import libraries
from hiddennet.train.build import build_model
from tests.test_plugins import done, python, refused

# a package whose modules import one another, as people write them
NETS = """
from torch import nn
from .parts import block

class Net(nn.Sequential):
    def __init__(self, *, num_classes, in_channels, channels=8, depths=(1,)):
        layers = [block(in_channels if i == 0 else channels, channels) for i in range(sum(depths))]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))

def plain(num_classes):
    return 3
"""
PARTS = """
from torch import nn
def block(inside, outside):
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())
"""
SETS = """
import numpy as np
def read(seed, *, classes=2):
    random = np.random.RandomState(seed)
    def part(n):
        labels = np.arange(n) % classes
        return (random.randint(0, 128, (n, 1, 6, 6)) + 60 * labels[:, None, None, None]).astype(np.uint8), labels
    return part(64), part(32)
"""
CONFIG = """
model: {name: "mine.nets:Net", arguments: {channels: 6, depths: [1, 1]}}
data: {name: "sets:read", batch_size: 16, arguments: {classes: 3}}
method: {name: edge_popup, density: 0.5}
optimizer: {name: sgd, lr: 0.1}
train: {epochs: 2, device: cpu, amp: float32, save_every: 1, loggers: []}
"""


def write(folder: Path) -> Path:
    """A user's folder: a package, a module and the config that names their functions."""
    (folder / "mine").mkdir(parents=True)
    files = {"mine/__init__.py": "", "mine/nets.py": NETS, "mine/parts.py": PARTS, "sets.py": SETS, "net.yml": CONFIG}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The user's folder, the folder that the run was started in, and the run."""
    folder, elsewhere = write(tmp_path_factory.mktemp("outside") / "own"), tmp_path_factory.mktemp("elsewhere")
    done("run", str(folder / "net.yml"), cwd=elsewhere)
    (record,) = (elsewhere / "runs").rglob("run.json")
    return folder, elsewhere, record.parent


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A user's folder whose modules this process has not imported before, and has forgotten after the test."""
    monkeypatch.setattr(outside, "_homes", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield write(tmp_path / "own")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "sets")]:
        del sys.modules[name]


def test_it_is_run_and_resumed_to_the_bit(made):
    folder, elsewhere, run = made
    artifact, record = (run / "artifact.safetensors").read_bytes(), json.loads((run / "run.json").read_text())
    assert (record["model"], record["data"], record["test_top5"]) == ("mine.nets:Net", "sets:read", 1.0)
    shutil.copy(run / "checkpoints" / "epoch_0001.pt", run / "checkpoints" / "last.pt")
    (run / "run.json").unlink()
    said = done("run", str(folder / "net.yml"), cwd=elsewhere)
    assert "goes on with epoch 2 of 2" in said
    assert (run / "artifact.safetensors").read_bytes() == artifact


def test_it_is_exported_evaluated_and_reported_from_anywhere(made, tmp_path):
    folder, _, run = made
    accuracy = json.loads((run / "run.json").read_text())["test_top1"]
    artifact = tmp_path / "out.safetensors"
    commands = [["eval", str(run)], ["export", str(run), "-o", str(artifact)]]
    commands += [["report", str(run), "-o", str(tmp_path / "report")]]
    code = f"from hiddennet import cli\nassert not any([cli.main(command) for command in {commands}])"
    said = python("-c", code, cwd=tmp_path)
    assert said.returncode == 0 and f"{accuracy:.2%} top-1" in said.stdout, said.stderr
    assert artifact.read_bytes() == (run / "artifact.safetensors").read_bytes()
    assert ">1.0<" in (tmp_path / "report" / "report.html").read_text()  # a layer of the network
    trusted = ("--plugins", "mine.nets", "sets")
    assert f"{accuracy:.2%} top-1" in done("eval", str(artifact), *trusted, cwd=folder)
    trusted = ("--plugins", f"{folder}/", "mine.nets", "sets")
    assert f"{accuracy:.2%} top-1" in done("eval", str(artifact), *trusted, cwd=tmp_path)


def test_an_artifact_that_names_a_module_runs_nothing(made, tmp_path):
    """Even where the module could be imported."""
    folder, _, run = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "nets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{NETS}")
    shutil.copy(folder / "mine" / "parts.py", tmp_path / "mine")
    line = refused("eval", str(run / "artifact.safetensors"), cwd=tmp_path)
    assert "got 'mine.nets:Net'; if you trust it, give --plugins mine.nets" in line
    assert not (tmp_path / "ran").exists()


def test_identity_has_names_and_arguments_and_no_places(inside, tmp_path):
    here = config.load(inside / "net.yml")
    shutil.copytree(inside, tmp_path / "moved")
    assert here.plugins == [f"{inside}/"] and config.parse({**json.loads(here.model_dump_json()), "runs": "x"}).plugins
    for change in ("model.arguments.channels=7", "data.arguments.classes=2", "model.name=mine.nets:plain"):
        overrides = [change, *(["model={arguments: null}"] if "plain" in change else [])]
        assert config.digest(config.load(inside / "net.yml", overrides)) != config.digest(here)
    assert config.digest(config.load("digits", ["model.arguments={}"])) == config.digest(config.load("digits"))
    outside._homes.clear()
    for name in ("mine", "mine.nets", "mine.parts", "sets"):
        sys.modules.pop(name, None)
    moved = config.load(tmp_path / "moved" / "net.yml")
    assert moved.plugins == [f"{tmp_path}/moved/"] and config.digest(moved) == config.digest(here)


def test_a_sweep_names_modules_beside_it(tmp_path):
    folder = write(tmp_path / "own")
    text = "config: digits-dense\nset: {model.name: 'mine.nets:Net', train.epochs: 1, train.loggers: []}\n"
    (folder / "sweep.yml").write_text(f"{text}grid: {{model.arguments: [{{channels: 4}}, {{channels: 5}}]}}\n")
    said = done("sweep", "own/sweep.yml", "--workers", "1", cwd=tmp_path)
    assert said.count("finished, test") == 2, said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["model.name=mine.nets:plan"],
            "a function or class in mine.nets, got 'mine.nets:plan'; did you mean 'plain'?",
        ),
        (["model.name=mine.nots:Net"], "whose module raises ModuleNotFoundError: No module named 'mine.nots'"),
        (["model.name=timn:resnet18"], "got 'timn:resnet18', whose module raises"),
        (["model.name=timn:resnet18"], "did you mean 'timm'?"),
        (["model.arguments.chanels=3"], "arguments.chanels: expected one of channels, depths for mine.nets:Net, got"),
        (["model.arguments.chanels=3"], "did you mean 'channels'?"),
        (["data.arguments={kinds: 3}"], "data.arguments.kinds: expected classes for sets:read, got kinds"),
        (["data={name: digits}"], "data.arguments: expected none for digits, got classes"),
        (["model.name=torchvision:resnt18"], "of torchvision's 80 models"),
        (["model.name=torchvision:resnt18"], "got 'torchvision:resnt18'; did you mean 'resnet18'?"),
        (["model.width=0.5"], "width: expected 1.0 for mine.nets:Net, got 0.5"),
    ],
)
def test_a_mistake_is_one_sentence(inside, overrides, words):
    words = words.replace("torchvision's 80", f"torchvision's {len(libraries.names('torchvision'))}")
    with pytest.raises(ValueError) as error:
        build_model(config.load(inside / "net.yml", overrides), 3, 1, 6)
    (line,) = str(error.value).splitlines()
    assert words in line


def test_two_modules_of_a_name_are_not_mistaken_for_one_another(inside, tmp_path):
    """Two configs of a comparison, each with a module called sets beside it."""
    second = write(tmp_path / "second")
    config.load(inside / "net.yml")
    with pytest.raises(ConfigError) as error:
        config.load(second / "net.yml")
    assert f"expected one module mine.nets in a process, got those of {inside} and {second}; rename" in str(error.value)
    (inside / "json.py").write_text(SETS)  # one of Python's, which is loaded long before
    with pytest.raises(ConfigError, match="imported before; rename it"):
        config.load(inside / "net.yml", ["data.name=json:read"])


def test_torchvisions_models_are_made_of_the_section_and_loaded_from_their_artifact(tmp_path):
    made = models.build("torchvision:shufflenet_v2_x0_5", num_classes=7, batch_norm="non_affine").eval()
    assert (made.first_layer, made.last_layer) == ("conv1.0", "fc") and made.architecture["image_size"] == 224
    assert not [name for name, _ in made.named_parameters() if "conv1.1" in name]  # batch norm without scale and shift
    hn.export(hn.hide(made), tmp_path / "net.safetensors")
    again, x = hn.load(tmp_path / "net.safetensors").eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), made(x)) and again(x).shape == (2, 7)
    assert len(models.build("torchvision:googlenet", num_classes=2, arguments={"init_weights": False}).fc.bias) == 2
    assert models.build("torchvision:vit_b_32", num_classes=2, image_size=64).image_size == 64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_channels": 1}, "expected images of 3 channels"),
        ({"arguments": {"weights": "DEFAULT"}}, "expected untrained weights, got arguments.weights"),
        ({"arguments": {"groups": 5}}, "expected arguments that it takes, got num_classes=3, groups=5"),
        ({"batch_norm": "none"}, "expected model.batch_norm to be affine or non_affine"),
        ({"bias": True}, "expected model.bias=false"),
        ({"arguments": [1]}, "arguments: expected a map of keyword arguments, or None"),
    ],
)
def test_what_torchvision_cannot_do_is_said(options, words):
    with pytest.raises(ValueError, match=words):
        models.build("torchvision:resnet18", num_classes=3, **options)


def test_timms_models_where_it_is_installed(tmp_path):
    pytest.importorskip("timm")
    vit = models.build("timm:vit_tiny_patch16_224", num_classes=5, in_channels=1, image_size=32)
    assert vit(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    hn.export(hn.hide(vit).eval(), tmp_path / "net.safetensors")
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(hn.load(tmp_path / "net.safetensors").eval()(x), vit(x))
    residual = models.build("timm:resnet10t", num_classes=5, batch_norm="non_affine")  # its last scales begin at 0
    hidden = hn.hide(residual)
    hidden(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(bool(layer.scores.grad.any()) for layer in hn.hidden_layers(hidden).values())
    with pytest.raises(ValueError, match=r"expected untrained weights, got arguments.checkpoint_path"):
        models.build("timm:resnet10t", num_classes=5, arguments={"checkpoint_path": "x"})
    with pytest.raises(ValueError, match="expected the data's channels to say it, got arguments.in_chans"):
        models.build("timm:resnet10t", num_classes=5, arguments={"in_chans": 1})
    for name in ("hf-hub:someone/net", "resnet10"):
        with pytest.raises(ValueError, match=rf"expected one of timm's .* got 'timm:{name}'"):
            models.build(f"timm:{name}", num_classes=5)


def test_without_timm_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="model.name: expected timm to be installed, got none .*; pip install timm"):
        config.load("digits", ["model.name=timm:resnet18"])


def test_data_of_a_module_nobody_named_is_refused():
    with pytest.raises(ValueError, match="data: expected a module that a config or --plugins names, got 'os:listdir'"):
        data.build("os:listdir", batch_size=4, device="cpu", seed=0)
