"""What a benchmark says: a table to read, JSON lines to keep. Measuring is harness.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.environment import environment, headline
from bench.harness import Ratio, Timing, inside

COLUMNS = ("what", "variant", "median", "spread", "min .. max", "cpu", "floor", "ratio", "bar")


@dataclass(frozen=True)
class Row:
    """One line of the table. A row holds a timing, a ratio, a value, or several of them."""

    bench: str
    what: str  # op or step, with its size
    variant: str = ""
    quick: bool = False
    median_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    spread: float | None = None  # quartile distance / median
    cpu_s: float | None = None  # median CPU time of the process
    samples: int | None = None
    calls: int | None = None
    bytes: int | None = None  # that must move, counted once
    floor_s: float | None = None  # bytes / measured copy bandwidth
    percent_of_floor: float | None = None  # 100: as fast as a copy of the same bytes
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    pair_min: float | None = None
    pair_max: float | None = None
    cpu_ratio: float | None = None
    value: float | None = None
    unit: str | None = None
    bar: str | None = None  # ">= 100" or "<= 1.05"
    holds: bool | None = None
    clear: bool | None = None  # the whole interval is on the bar's side
    note: str | None = None

    def facts(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class Report:
    """Collects rows, prints them as they come, and writes them once at the end."""

    def __init__(self, bench: str, args: argparse.Namespace, device: torch.device) -> None:
        self.bench, self.path, self.quick = bench, args.json, args.quick
        self.facts = environment(device)
        self.rows: list[Row] = []
        print(f"# {bench}: {headline(self.facts)}")
        if self.quick:
            print("# --quick: times mean nothing")

    def _add(self, what: str, variant: str, **facts: Any) -> None:
        self.rows.append(Row(self.bench, what, variant, self.quick, **facts))

    def timings(
        self,
        what: str,
        times: Mapping[str, Timing],
        *,
        bytes: Mapping[str, int] | int | None = None,
        bandwidth: float | None = None,
    ) -> None:
        """One row a variant. With bytes and bandwidth (bytes/s) each gets its floor."""
        for name, timing in times.items():
            moved = bytes.get(name) if isinstance(bytes, Mapping) else bytes
            floor = moved / bandwidth if moved and bandwidth else None
            least, most = min(timing.seconds), max(timing.seconds)
            used = sorted(timing.cpu)[len(timing.cpu) // 2]
            percent = 100 * floor / timing.median if floor else None
            clocks = {"median_s": timing.median, "min_s": least, "max_s": most, "spread": timing.spread, "cpu_s": used}
            counts = {"samples": len(timing.seconds), "calls": timing.calls}
            self._add(what, name, **clocks, **counts, bytes=moved, floor_s=floor, percent_of_floor=percent)

    def ratio(
        self, what: str, variant: str, found: Ratio, *, cpu: Ratio | None = None, note: str | None = None, **bar: Any
    ) -> None:
        """A ratio of two timings, with the bar it is held against, if any: at_least or at_most."""
        known = {"ratio": found.value, "ratio_low": found.low, "ratio_high": found.high}
        known |= {"pair_min": found.pair_min, "pair_max": found.pair_max, "cpu_ratio": cpu.value if cpu else None}
        if (text := bar_text(**bar)) and not self.quick:
            known |= {"holds": found.holds(**bar), "clear": found.clearly(**bar)}
        self._add(what, variant, **known, bar=text, note=note)

    def value(self, what: str, variant: str, value: float, unit: str, *, note: str | None = None, **bar: Any) -> None:
        """A number that is no time: bytes a weight, megabytes, an accuracy; with its bar as a ratio."""
        text = bar_text(**bar)
        holds = inside(value, value, **bar) if text and not self.quick else None
        self._add(what, variant, value=value, unit=unit, bar=text, holds=holds, note=note)

    def close(self) -> None:
        """Print the table; write the JSON lines, if asked: the environment, then one row a line."""
        print(table(self.rows))
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = [{"environment": self.facts}, *(row.facts() for row in self.rows)]
            self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def bar_text(*, at_least: float | None = None, at_most: float | None = None) -> str | None:
    """The bar as it is printed."""
    if at_least is not None:
        return f">= {at_least:g}"
    return None if at_most is None else f"<= {at_most:g}"


def seconds(value: float | None) -> str:
    """A time in the unit that suits it."""
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def cells(row: Row) -> tuple[str, ...]:
    """The row's text, column by column."""
    middle = seconds(row.median_s)
    if row.value is not None:
        middle = f"{row.value:.4g} {row.unit}"
    ratio = ""
    if row.ratio is not None:
        ratio = f"{row.ratio:.3g}x ({row.ratio_low:.3g} .. {row.ratio_high:.3g})"
        ratio += "" if row.cpu_ratio is None else f", cpu {row.cpu_ratio:.3g}x"
    verdict = ""
    if row.bar is not None:
        verdict = f"{row.bar} (quick)"
        if row.holds is not None:
            verdict = f"{row.bar} {'holds' if row.holds else 'MISSED'}"
            unsure = row.clear is False and row.holds
            verdict += ", within spread" if unsure else ""
    timed = row.median_s is not None
    return (
        row.what,
        row.variant,
        middle,
        f"{row.spread:.0%}" if timed and row.spread is not None else "",
        f"{seconds(row.min_s)} .. {seconds(row.max_s)}" if timed else "",
        seconds(row.cpu_s),
        f"{row.percent_of_floor:.0f}%" if row.percent_of_floor is not None else "",
        ratio,
        verdict,
    )


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table whose columns line up in a terminal; notes below it."""
    rows = list(rows)
    body = [COLUMNS, *(cells(row) for row in rows)]
    used = [i for i in range(len(COLUMNS)) if any(line[i] for line in body[1:]) or i == 0]
    widths = [max(len(line[i]) for line in body) for i in range(len(COLUMNS))]

    def text(line: tuple[str, ...]) -> str:
        return "| " + " | ".join(line[i].ljust(widths[i]) for i in used) + " |"

    rule = "|" + "|".join("-" * (widths[i] + 2) for i in used) + "|"
    notes = dict.fromkeys(f"{row.what}, {row.variant}: {row.note}" for row in rows if row.note)
    said = "".join(f"\n- {note}" for note in notes)
    lines = [text(body[0]), rule, *map(text, body[1:])]
    return "\n".join(lines) + ("\n" + said if said else "")
