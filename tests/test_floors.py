"""The floors of the house: who may import whom, by every kind of import: of modules, in functions, for types alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up: a package or module imports only what stands on a lower line, and what is in itself.
FLOORS = [
    "_version _start registry files tables trace plugins runtime",
    "settings container loggers outside tuned _load",
    "ops",
    "header trackers",
    "nn",
    "optim",
    "models analysis data",
    "pruning compaction",
    "artifact",
    "importers",
    "methods",
    "config",
    "train",
    "ordinary",
    "run env listing inspect",
    "compare sweep report",
    "demo",
    "cli",
    "__main__",
]
# hiddennet/__init__.py imports what users ask for, some of it when they ask (__getattr__); nothing imports it.
ABOVE_ALL = "hiddennet"


def modules() -> dict[str, Path]:
    """All modules of the package by their dotted names, but for its __init__."""
    found = {}
    for path in sorted((ROOT / "hiddennet").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    del found[ABOVE_ALL]
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports anywhere in its text."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= (inner & known.keys()) | ({base} if inner - known.keys() else set())
    return {one for one in found if one == ABOVE_ALL or one in known} - {name}


KNOWN = modules()
IMPORTS = {name: imports(name, path, KNOWN) for name, path in KNOWN.items()}


def floor_of(name: str) -> int:
    room = name.split(".")[1]
    (found,) = [number for number, floor in enumerate(FLOORS) if room in floor.split()]
    return found


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """A circle of the graph, or nothing."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            found = walk(other, [*way, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_no_module_imports_itself_by_way_of_others():
    assert circle_in(IMPORTS) == []


def test_no_package_imports_itself_by_way_of_others():
    rooms: dict[str, set[str]] = {}
    for name, others in IMPORTS.items():
        room = name.split(".")[1]
        rooms.setdefault(room, set()).update(other.split(".")[1] for other in others if other != ABOVE_ALL)
        rooms[room].discard(room)
    assert circle_in(rooms) == []


def test_each_floor_imports_only_lower_ones():
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if other == ABOVE_ALL or (other.split(".")[1] != name.split(".")[1] and floor_of(other) >= floor_of(name))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "import hiddennet.b",
        "from hiddennet import b",
        "from hiddennet.b import something",
        "from . import b",
        "from .b import something",
        "def f():\n    from hiddennet import b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hiddennet.b import Something",
    ],
)
def test_every_kind_of_import_counts(tmp_path, text):
    path = tmp_path / "a.py"
    path.write_text(text)
    assert imports("hiddennet.a", path, {"hiddennet.a": path, "hiddennet.b": path}) == {"hiddennet.b"}
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
