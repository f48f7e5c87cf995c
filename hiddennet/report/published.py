"""Numbers that others have published, beside which runs are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hiddennet.report.runs import Line
from hiddennet.settings import yaml


@dataclass(frozen=True)
class Published:
    """Accuracies, in [0, 1], before and after fine-tuning, and where they were read."""

    method: str
    model: str
    data: str
    density: float
    before: float | None
    after: float | None
    setting: str
    source: str


def read() -> list[Published]:
    """All of published.yml."""
    path = Path(__file__).with_name("published.yml")
    return [Published(**row) for row in yaml.parse(path.read_text(encoding="utf-8"))]


def beside(lines: Iterable[Line]) -> list[Published]:
    """What is published of the lines' networks on their data, whatever the method."""
    shown = {(line.model, line.data) for line in lines}
    return [row for row in read() if (row.model, row.data) in shown]
