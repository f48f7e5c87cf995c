"""The README and docs/: their Python runs as it stands; configs, commands and tables name what is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hiddennet import cli, config, data, methods, ops
from hiddennet.registry import REGISTRIES
from hiddennet.sweep import grid

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, kind: str = "") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Every line `hiddennet ...` of a block without a language, and the page it stands on."""
    lines = [(page, line) for page in PAGES for block in blocks(page) for line in block.splitlines()]
    return [(page.name, line) for page, line in lines if line.startswith("hiddennet ")]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_the_python_runs(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    for registry in REGISTRIES.values():  # what a page registers is gone after it
        monkeypatch.setattr(registry, "_things", dict(registry._things))
    names: dict = {}
    for code in blocks(page, "python"):
        exec(compile(code, page.name, "exec"), names)
    if page == README:
        assert capsys.readouterr().out.startswith("0.3")
        x = names["torch"].randn(2, 3, 64, 64)
        assert names["torch"].equal(names["again"].eval()(x), names["model"].eval()(x))


def test_the_readme_is_one_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 90


def test_every_page_is_linked_from_the_readme():
    text = README.read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in text


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_are_understood(page, line):
    words = shlex.split(line, comments=True)[1:]
    arguments, rest = cli._parser().parse_known_args(words)
    assert all("=" in word and not word.startswith("-") for word in rest), line
    if arguments.command in ("run", "config"):
        config.load(arguments.config, [*arguments.overrides, *rest])
    elif arguments.command == "compare":
        names = [word for word in arguments.configs if "=" not in word]
        assert [config.load(name).name for name in names]
    elif arguments.command == "sweep":
        assert grid.load(arguments.sweep, [*arguments.overrides, *rest]).points


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks(page, "yaml")])
def test_the_yaml_is_a_family_of_configs(code, tmp_path):
    (tmp_path / "my.yml").write_text(code)
    (tmp_path / "base.yml").write_text("method: {name: iterand}\n")
    for name in re.findall(r"^  (\w+): \{", code.partition("sweeps:")[0], re.MULTILINE):
        assert config.load(f"{tmp_path}/my.yml@{name}").name == f"my-{name}"
    assert len(grid.load(f"{tmp_path}/my.yml@seeds").points) == 9


def test_the_tables_name_all_there_is():
    def text(name: str) -> str:
        return (ROOT / "docs" / name).read_text(encoding="utf-8")

    def lacking(page: str, names) -> list[str]:
        return [name for name in names if not re.search(rf"`[^`]*\b{name}\b", text(page))]

    (choices,) = [action.choices for action in cli._parser()._actions if action.dest == "command"]
    assert not lacking("commands.md", [f"hiddennet {name}" for name in choices])
    assert not lacking("methods.md", [*methods.METHODS, *(name for name in data.names() if name[:3] in ("cif", "mni"))])
    functions = [name for name in ops.__all__ if name[0].islower()]
    assert not lacking("ops.md", functions)


def test_benchmarks_that_are_named_are_there():
    from bench.__main__ import NAMES
    from bench.ops.__main__ import BENCHMARKS

    pages = [*PAGES, ROOT / "bench/README.md", *(ROOT / "csrc").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = " ".join(re.findall(r"-m bench --only ((?:[a-z]\w* ?)+)", text)).split()
    assert named and not set(named) - set(NAMES)
    assert not set(re.findall(r"-m bench\.ops (\w+)", text)) - {*BENCHMARKS, "NAME"}
    assert all(
        (ROOT / "bench" / f"{name}.py").is_file()
        for name in re.findall(r"-m bench\.(\w+)\b(?! \w)", text)
        if name != "ops"
    )
