"""A sweep's results: a line a point, the mean over seeds, the same as CSV. Not plots: hiddennet.report."""

import statistics
from collections.abc import Sequence
from typing import Any

from hiddennet.files import csv_text, write_text
from hiddennet.sweep.folder import SweepFolder
from hiddennet.sweep.grid import text
from hiddennet.tables import aligned, mean_and_spread
from hiddennet.train.stages import before_training

_MEASURED = ("density", "validation_top1", "test_top1", "test_loss", "best_epoch", "seconds", "device")


def rows(folder: SweepFolder) -> list[dict[str, Any]]:
    """One row a point: its values, how it stands, what was measured."""
    found = []
    for point in folder.sweep.points:
        record = folder.record(point)
        state = "finished" if record else "failed" if folder.failure(point) else "unfinished"
        row = {key: text(point.values[key]) if key in point.values else "" for key in folder.sweep.columns}
        row |= {"run": point.place, "state": state, "before_top1": before_training(record)}
        found.append(row | {name: record.get(name) for name in _MEASURED})
    return found


def write(folder: SweepFolder) -> None:
    """Write sweep.csv: the rows, empty where nothing was measured."""
    cleaned = [{key: "" if value is None else value for key, value in row.items()} for row in rows(folder)]
    write_text(folder.results, csv_text(cleaned))


def table(folder: SweepFolder) -> str:
    """The points as a table, and a second one of means over seeds where the sweep has several."""
    found, columns = rows(folder), folder.sweep.columns
    staged = any(row["before_top1"] is not None for row in found)
    before = ["before training"] if staged else []
    lines = [[*columns, "density", *before, "test top-1", "state"]]
    for row in found:
        density = "-" if row["density"] is None else f"{row['density']:.4f}"
        accuracies = [mean_and_spread([row[key]]) for key in (("before_top1",) if staged else ()) + ("test_top1",)]
        lines.append([*(row[key] for key in columns), density, *accuracies, row["state"]])
    parts = [aligned(lines)]
    if len({row.get("seed") for row in found}) > 1:
        parts.append(_over_seeds(found, columns, staged))
    return "\n\n".join(parts)


def _over_seeds(found: Sequence[dict], columns: Sequence[str], staged: bool) -> str:
    others = [key for key in columns if key != "seed"]
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        groups.setdefault(tuple(row[key] for key in others), []).append(row)
    before = ["before training"] if staged else []
    lines = [[*others, "seeds", "density", *before, "test top-1, mean ± std"]]
    for values, group in groups.items():
        done = [row for row in group if row["state"] == "finished"]
        density = f"{statistics.fmean(row['density'] for row in done):.4f}" if done else "-"
        shown = [mean_and_spread([row["before_top1"] for row in done])] if staged else []
        shown.append(mean_and_spread([row["test_top1"] for row in done]))
        lines.append([*values, f"{len(done)} of {len(group)}", density, *shown])
    return aligned(lines)
