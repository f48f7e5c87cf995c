"""The shipped configs, the tables that map the original's names to them, the original's facts."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hiddennet.config import catalog, families
from hiddennet.sweep import grid
from hiddennet.sweep.grid import Point

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PAPERS = (CONFIGS.parent / "docs" / "papers.md").read_text(encoding="utf-8")
ENTRIES = tuple(catalog.entries())


@dataclass(frozen=True)
class Row:
    """A row of a table: an original config, ours, what to add to the command line, notes."""

    original: str
    ours: str
    add: str
    notes: tuple[str, ...]


def configs(folder: str = "") -> list[str]:
    """The names of runs of all configs below a folder of configs/, such as papers/dnw/."""
    return [run_name(one) for one in ENTRIES if one.runs is None and one.name.startswith(folder)]


def sweeps(folder: str = "") -> list[str]:
    """The names of all sweeps below a folder of configs/."""
    return [run_name(one) for one in ENTRIES if one.runs is not None and one.name.startswith(folder)]


def run_name(entry: catalog.Entry) -> str:
    """What a config's runs are called: also a name of the config, and the only one before there were families."""
    return families.run_name(entry.place)


@cache
def points_of(sweep: str) -> list[Point]:
    """The points of a sweep by its name, each resolved once for all tests."""
    return grid.load(sweep).points


def table(heading: str) -> list[Row]:
    """The rows of the table of docs/papers.md below a heading that contains these words."""
    section = re.search(rf"^#+ [^\n]*{heading}[^\n]*\n(.*?)(?=^#|\Z)", PAPERS, re.M | re.S)[1]
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
