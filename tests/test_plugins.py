"""What lives outside the package: methods, models, data and more of a user's own, from run to report."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hiddennet import config
from hiddennet.config import ConfigError

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "plugin"
KINDS = ("rule", "source", "init")
SMALL = ("train.device=cpu", "data.limit=200", "train.epochs=2", "train.save_every=1")


def python(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess:
    """Python outside the checkout, with its package."""
    known = os.pathsep.join(map(str, [ROOT, *([path] if path else [])]))
    environment = {**os.environ, "PYTHONPATH": known, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def done(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """What `hiddennet` with these arguments says."""
    found = python("-m", "hiddennet.cli", *arguments, cwd=cwd, path=path)
    assert found.returncode == 0, found.stderr
    return found.stdout


def refused(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """The one sentence with which `hiddennet` refuses these arguments."""
    found = python("-m", "hiddennet.cli", *arguments, cwd=cwd, path=path)
    assert found.returncode == 1, found.stdout + found.stderr
    (line,) = found.stderr.splitlines()
    return line


def ran(folder: Path, name: str) -> tuple[Path, str]:
    """The run of a config file in a folder, and what it said."""
    started = python("-m", "hiddennet.run", name, *SMALL, cwd=folder)
    assert started.returncode == 0, started.stderr
    (record,) = (folder / "runs").rglob("run.json")
    return record.parent, started.stdout


@pytest.fixture(scope="module", params=["agreement", "shapes"])
def example(request, tmp_path_factory):
    """A copy of the example outside the checkout, run for two epochs: its folder, the run's, what was said, a name."""
    folder = tmp_path_factory.mktemp("outside") / "own"
    shutil.copytree(EXAMPLE, folder)
    return folder, *ran(folder, f"{request.param}.yml"), request.param


def test_it_is_run_and_resumed_to_the_bit(example):
    folder, run, said, name = example
    assert "epoch 2/2" in said and (run / "artifact.safetensors").is_file()
    before = {file: (run / file).read_bytes() for file in ("artifact.safetensors",)}
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    shutil.copy(run / "checkpoints" / "epoch_0001.pt", run / "checkpoints" / "last.pt")
    (run / "run.json").unlink()
    started = python("-m", "hiddennet.run", str(folder / f"{name}.yml"), *SMALL, f"runs={folder}/runs", cwd=run)
    assert started.returncode == 0 and "goes on with epoch 2 of 2" in started.stdout, started.stderr
    assert {file: (run / file).read_bytes() for file in before} == before
    with open(run / "metrics.csv", newline="") as file:
        again = list(csv.DictReader(file))
    timed = ("seconds", "images_per_second", "peak_memory_bytes")
    assert [{k: v for k, v in row.items() if k not in timed} for row in again] == [
        {k: v for k, v in row.items() if k not in timed} for row in rows
    ]
    if name == "shapes":  # its own logger, schedule and optimiser
        lines = (run / "lines.txt").read_text().splitlines()
        assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 2"]
        assert [float(row["lr"]) for row in rows] == pytest.approx([0.002, 0.002])
    else:
        assert float(rows[-1]["density"]) == pytest.approx(0.2, abs=0.01) and float(rows[-1]["agreement"]) > 0


def test_it_is_evaluated_exported_and_reported_from_anywhere(example, tmp_path):
    folder, run, _, name = example
    accuracy = json.loads((run / "run.json").read_text())["test_top1"]
    root, artifact = ("--device", "cpu"), tmp_path / "out.safetensors"
    commands = [
        ["eval", str(run), *root],
        ["export", str(run), "-o", str(artifact)],
        ["report", str(run), "-o", str(tmp_path / "report")],
    ]
    code = f"from hiddennet import cli\nassert not any([cli.main(command) for command in {commands}])"
    said = python("-c", code, cwd=tmp_path)  # one process: nothing but the run's config tells it of the plugin
    assert said.returncode == 0 and f"{accuracy:.2%} top-1" in said.stdout, said.stderr
    assert artifact.read_bytes() == (run / "artifact.safetensors").read_bytes()
    page = (tmp_path / "report" / "report.html").read_text()
    assert {"agreement": "agreement", "shapes": "features.2"}[name] in page
    if name == "shapes":  # the artifact names a model and data that are not the package's
        assert "model" in refused("eval", str(artifact), *root, cwd=tmp_path)
        said = done("eval", str(artifact), *root, "--plugins", str(folder / "shapes.py"), cwd=tmp_path)
        assert f"{accuracy:.2%} top-1" in said
        ends = ("--connect", str(artifact), str(run), "--points", "2", "--plugins", str(folder / "shapes.py"))
        assert "report.html" in done("report", *ends, *root, "-o", str(tmp_path / "way"), cwd=tmp_path)


def test_its_keys_are_listed_and_checked(example):
    folder, _, _, name = example
    said = done("keys", "--plugins", f"{name}.py", cwd=folder)
    wanted = {
        "agreement": [
            "method 'agreement': the weights are kept that are large and whose gradients agree",
            "  method.density (number above 0 and at most 1; default 0.2): fraction of each layer's weights",
        ],
        "shapes": [
            "optimizer 'rmsprop': RMSprop, Hinton's lecture 6e",
            "  schedule.name (square_root; required)",
            "bars",
        ],
    }
    for words in wanted[name]:
        assert words in said
    assert "method 'edge_popup'" in said
    wrong, sentence = {
        "agreement": ("method.densty=0.3", "got densty: 0.3; did you mean 'density'?"),
        "shapes": ("optimizer.alpha=2", "optimizer.alpha: expected a number, at least 0 and below 1, got 2"),
    }[name]
    assert sentence in refused("config", f"{name}.yml", wrong, cwd=folder)


def test_a_sweep_of_ones_own_method(tmp_path):
    """The sweep's file, its config and the plugin lie in one folder; the sweep is started in another."""
    shutil.copytree(EXAMPLE, tmp_path / "own")
    text = "config: digits-dense\nset: {plugins: [agreement.py], method.name: agreement, train.epochs: 1}\n"
    (tmp_path / "own" / "sweep.yml").write_text(f"{text}grid: {{method.density: [0.1, 0.5]}}\n")
    said = done("sweep", "own/sweep.yml", "--workers", "1", cwd=tmp_path)
    assert said.count("finished, test") == 2, said


def test_plugins_of_a_base_and_of_the_command_line_add_up(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "base")
    (tmp_path / "mine.py").write_text(
        "import hiddennet as hn\nfrom hiddennet.methods.dense import Dense\n\n\n"
        "@hn.register('method', 'mine')\nclass Mine(Dense):\n    pass\n"
    )
    (tmp_path / "mine.yml").write_text("extends: base/shapes.yml\nmethod: {name: mine}\n")
    assert "expected one of" in refused("config", "mine.yml", cwd=tmp_path)
    said = done("config", "mine.yml", "plugins=[mine.py]", cwd=tmp_path)
    assert f"- {tmp_path}/base/shapes.py" in said and f"- {tmp_path}/mine.py" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('no luck\\ntoday')", "broken.py, which raises RuntimeError: no luck today"),
        ("import nowhere", "broken.py, which raises ModuleNotFoundError: No module named 'nowhere'"),
        (
            "import hiddennet as hn\n\n@hn.register('method', 'dense')\nclass Mine: ...",
            "which raises ValueError: register: expected a method name that is free, got 'dense'",
        ),
        (
            "import hiddennet as hn\n\n@hn.register('method', 'mine')\nclass Mine: ...",
            "ValueError: register: expected method 'mine' to be a section of hiddennet.settings, or a class with one",
        ),
        (None, "broken.py, which raises FileNotFoundError: there is no such file"),
    ],
)
def test_a_broken_plugin_is_one_sentence(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError) as error:
        config.load("digits", ["plugins=[broken.py]"])
    (line,) = str(error.value).splitlines()
    assert words in line and "plugins: expected a module or .py file that can be loaded" in line


def test_an_installed_package_announces_its_plugins(tmp_path):
    """As pip leaves it: a module, and beside it the package's entry points."""
    shutil.copy(EXAMPLE / "agreement.py", tmp_path / "their_method.py")
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hiddennet.plugins]\nagreement = their_method\n")
    assert "method 'agreement': the weights are kept" in done("keys", cwd=ROOT, path=tmp_path)
    said = done("config", "digits-dense", "method={name: agreement, density: 0.3}", cwd=ROOT, path=tmp_path)
    assert "density: 0.3" in said and "plugins: []" in said
    (tmp_path / "their_method.py").write_text("1 / 0")
    line = refused("config", "digits", cwd=ROOT, path=tmp_path)
    assert "their_method of the package their-package, which raises ZeroDivisionError: division by zero" in line


def test_rules_sources_and_initialisations_load_too(tmp_path):
    """Whatever the kind: a plugin registers it, twice if it is imported twice."""
    bases = {"rule": "hn.nn.Rule", "source": "hn.nn.Source"}
    text = [f"@hn.register({k!r}, 'mine')\nclass {k.title()}({bases.get(k, 'object')}): ..." for k in KINDS]
    (tmp_path / "kinds.py").write_text("\n\n".join(["import hiddennet as hn", *text]))
    code = (
        "from pathlib import Path\nfrom hiddennet import plugins\nfrom hiddennet.registry import REGISTRIES\n"
        "names = plugins.located(['kinds.py'], Path.cwd())\nplugins.load(names)\nplugins.load(names)\n"
        f"print([REGISTRIES[kind]['mine'].__name__ for kind in {KINDS}])"
    )
    assert python("-c", code, cwd=tmp_path).stdout.strip() == "['Rule', 'Source', 'Init']"


def test_a_model_that_asks_for_an_unknown_option_is_refused(monkeypatch):
    from hiddennet import models
    from hiddennet.models.registry import MODELS

    monkeypatch.setattr(MODELS, "find", lambda name: lambda *, classes: None)
    with pytest.raises(ValueError, match=r"model 'mine': expected arguments among num_classes, .*got 'classes'"):
        models.build("mine", num_classes=3)
