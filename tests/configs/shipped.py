"""The shipped configs, the tables that map the original's names to them, the original's facts."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hiddennet import config
from hiddennet.sweep import grid
from hiddennet.sweep.grid import Point

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
README = (CONFIGS / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Row:
    """A row of a table: an original config, ours, what to add to the command line, notes."""

    original: str
    ours: str
    add: str
    notes: tuple[str, ...]


@cache
def is_sweep(path: Path) -> bool:
    """Whether a file is a sweep: it has a grid, or a list of runs where a config has their folder."""
    document = config.read(path)
    return "grid" in document or isinstance(document.get("runs"), list)


def runnable_files() -> list[Path]:
    """Every config and every sweep; the pieces in base/ folders are neither."""
    return sorted(path for path in CONFIGS.rglob("*.yml") if path.parent.name != "base")


def config_files() -> list[Path]:
    """Every config that can be run."""
    return [path for path in runnable_files() if not is_sweep(path)]


def sweep_files() -> list[Path]:
    """Every sweep."""
    return [path for path in runnable_files() if is_sweep(path)]


@cache
def points_of(sweep: str) -> list[Point]:
    """The points of a sweep by its name, each resolved once for all tests."""
    return grid.load(sweep).points


def name_of(path: Path) -> str:
    """A config's name on the command line."""
    return str(path.relative_to(CONFIGS).with_suffix(""))


def table(heading: str) -> list[Row]:
    """The rows of the README's table below a heading that contains these words."""
    section = re.search(rf"^#+ [^\n]*{heading}[^\n]*\n(.*?)(?=^#|\Z)", README, re.M | re.S)[1]
    rows = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].endswith((".yml", ".yaml")):
            original, ours, add, notes = cells
            rows.append(Row(original, ours, add.strip("`"), tuple(notes.split(", ") if notes else ())))
    return rows


def facts() -> dict[str, dict[str, str]]:
    """What each original config asks for, by its name."""
    path = Path(__file__).with_name("original_configs.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return {row.pop("original"): row for row in csv.DictReader(file)}
