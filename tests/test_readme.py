"""The README's Python example runs as it stands, and its links and commands name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchvision")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("0.3")
    x = names["torch"].randn(2, 3, 64, 64)
    assert names["torch"].equal(names["again"].eval()(x), names["model"].eval()(x))


def test_every_path_it_names_is_there():
    linked = re.findall(r"\]\(([\w./-]+)\)", README)
    assert linked
    for path in (*linked, "bench/gpu_check.sh", "csrc/README.md", "configs/README.md", "bench/README.md"):
        assert (ROOT / path).exists(), path


def test_the_configs_it_names_are_there():
    from hiddennet import config

    for name in re.findall(r"(?:hiddennet run|hiddennet\.run) ([a-z][\w/-]+)", README):
        assert config.load(name, []).name
