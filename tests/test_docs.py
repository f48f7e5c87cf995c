"""The documentation site: links lead somewhere, the API's pages have every public name, notebooks run."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
from pathlib import Path

import pytest

import hiddennet as hn
from docs.site import api, notebooks, sources

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "csrc").rglob("*.md"),
        *NOTEBOOKS,
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "configs/README.md", "bench/README.md")),
    ]
)


def text_of(page: Path) -> str:
    return notebooks.page(page)[0] if page.suffix == ".ipynb" else page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text, home = text_of(page), page.relative_to(ROOT).as_posix()
    drawn = notebooks.page(page)[1] if page.suffix == ".ipynb" else {}
    assert not re.search(r"\]\(http:", text)
    for link, anchor in sources.links(text):
        if link in drawn:
            continue
        there = sources.target(link, home) if link else home
        assert there is not None, f"{home}: no file {link}"
        # MkDocs takes any file of this name for a page, and pages are named before links are read
        assert not there.endswith(".md") or not sources.address(there).startswith("files/"), f"{there} is no page"
        if anchor:
            assert anchor in sources.anchors(text_of(ROOT / there)), f"{home}: {there} has no heading {anchor}"


def test_links_are_seen_and_wrong_ones_found():
    text = "# One two\n[a](b.md#c) ![d](e.svg)\n```\n[f](g.md)\n# h\n```\n## [Three](x.md): `four`-five!\n"
    assert sources.links(text) == [("b.md", "#c"), ("e.svg", ""), ("x.md", "")]
    assert sources.anchors(text) == {"#one-two", "#three-four-five"}
    assert sources.target("b.md", "docs/papers.md") is None
    assert sources.target("../../outside.md", "docs/papers.md") is None
    assert sources.target("reproduction", "docs/papers.md") == "docs/reproduction/README.md"


def test_links_on_the_site_lead_to_pages_of_the_site():
    seen = []
    text = "[a](../configs/README.md) [b](ops.md#the-ops) [c](../examples/plugin) [d](../LICENSE) [e](https://x.org)"
    made = sources.on_the_site(text, "docs/papers.md", seen.append)
    assert made == "[a](configs.md) [b](ops.md#the-ops) [c](plugin.md) [d](files/LICENSE) [e](https://x.org)"
    assert "LICENSE" in seen
    assert sources.on_the_site("![p](docs/hidden_network.svg)", "README.md") == "![p](hidden_network.svg)"
    assert sources.on_the_site("[p](../methods.md)", "docs/notebooks/find.ipynb") == "[p](../methods.md)"


def test_the_index_of_the_api_has_every_public_name():
    index = api.index()
    for name in dir(hn):
        thing = getattr(hn, name)
        own = callable(thing) and str(getattr(thing, "__module__", "")).startswith("hiddennet")
        if not name.startswith("_") and (own or name in hn.__all__):
            assert re.search(rf"^\| \[`hn\.{name}`\]\(\w+\.md[^)]*\) \| \S", index, re.MULTILINE), name
    assert index.count("| [`hn.") == len(hn.__all__) - 1
    assert "`hn.__version__`" in index


@pytest.mark.parametrize("page", api.pages(), ids=lambda page: page.file)
def test_a_page_of_the_api_has_what_its_modules_have(page):
    text = api.markdown(page)
    for part in page.parts:
        module = importlib.import_module(part.module)
        for name in part.found():
            assert f"::: {api.place(part.module, name)}\n" in text
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert api.sentence(part.module, name), f"{part.module}.{name} says nothing of itself"
    whole = [part for part in page.parts if part.names is None]
    assert all(set(importlib.import_module(part.module).__all__) == set(part.found()) for part in whole)


def test_every_key_of_a_config_is_on_its_page():
    from hiddennet.config.reference import reference

    text = api.keys()
    rows = [line for line in reference().splitlines() if line.startswith("  ")]
    assert len(rows) > 100 and sum(line.startswith("| `") for line in text.splitlines()) == len(rows)
    assert "| `method.density` |" in text and "## method 'edge_popup'" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_what_came_of_it(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [
        output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    pictures = notebooks.page(path)[1]
    assert pictures and all(10 < len(content) < 60_000 for content in pictures.values())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    for package in (
        "nbclient",
        "ipykernel",
        "matplotlib",
        "sklearn",
        "torchvision",
        *(["onnxscript", "onnxruntime"] * (path.stem == "ship")),
    ):
        pytest.importorskip(package, reason=f"{package}, which a notebook needs, is not installed here")
    from docs.site.execute import execute

    monkeypatch.setenv("HIDDENNET_QUICK", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    execute(path, tmp_path, timeout=300)
