"""Runs as a report sees them: found in folders, set against one axis, seeds of one setting put together."""

import csv
import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiddennet import config as configs
from hiddennet.config import ConfigError
from hiddennet.config.identity import flat
from hiddennet.registry import nearest
from hiddennet.train.folder import RunError, RunFolder, read_json
from hiddennet.train.stages import before_training

AXES = ("density", "width", "epoch")


@dataclass(frozen=True)
class Run:
    """A run's folder, its config by dotted keys, its record and its metrics (a row an epoch)."""

    folder: RunFolder
    digest: str
    settings: dict[str, Any]
    record: dict[str, Any]
    metrics: list[dict[str, float]]

    @property
    def name(self) -> str:
        """The last two parts of its path: config and hash."""
        return f"{self.folder.path.parent.name}/{self.folder.path.name}"

    @property
    def finished(self) -> bool:
        return bool(self.record.get("finished"))

    @property
    def before(self) -> float | None:
        """Test accuracy before the sub-network's weights were trained, see before_training."""
        return before_training(self.record)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The stages of a run that is trained to its end at each of several densities; else none."""
        stages = self.record.get("stages") or []
        several = len({stage.get("density") for stage in stages}) > 1
        return stages if several and all(stage["name"].startswith("round") for stage in stages) else []


def folders_of(paths: Iterable[str]) -> list[Path]:
    """The run folders that paths name: run folders, the runs of sweep folders, all below others.

    Raises RunError for a path that names none.
    """
    found: list[Path] = []
    for given in (Path(path).expanduser() for path in paths):
        here = []
        if (given / "sweep.json").is_file():
            points = read_json(given / "sweep.json").get("points", [])
            runs = given.resolve().parents[1]
            here = [runs / point["run"] for point in points if (runs / point["run"] / "config.yml").is_file()]
        elif (given / "config.yml").is_file():
            here = [given]
        elif given.is_dir():
            here = sorted(file.parent for file in given.glob("**/config.yml"))
        if not here:
            raise RunError(f"report: expected the folder of a run, of a sweep or of runs, got {given}")
        found += here
    unique = {path.resolve(): path for path in reversed(found)}
    return list(reversed(unique.values()))


def read(path: Path) -> Run:
    """Return the run in a folder. Raises ConfigError or RunError."""
    folder = RunFolder(path)
    config = folder.read_config()
    rows = []
    if folder.metrics.is_file():
        with open(folder.metrics, newline="", encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    settings = flat(config.model_dump(mode="json"))
    return Run(folder, configs.digest(config), settings, folder.read_record(), rows)


def read_all(paths: Iterable[str]) -> tuple[list[Run], list[str]]:
    """Return the runs that paths name, and a sentence for each that cannot be read."""
    runs, left_out = [], []
    for path in folders_of(paths):
        try:
            runs.append(read(path))
        except (ConfigError, RunError) as error:
            left_out.append(str(error))
    return runs, left_out


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the sample (n - 1); 0 for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone, and where they stand on the axis."""

    runs: list[Run]
    x: float

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    def values(self, of: Callable[[Run], float | None]) -> list[float]:
        """What is known of the finished runs."""
        return [value for value in map(of, self.finished) if value is not None]


@dataclass
class Line:
    """One line of a plot: settings along the axis."""

    label: str
    method: str
    model: str
    data: str
    settings: list[Setting] = field(default_factory=list)

    def points(self, of: Callable[[Run], float | None]) -> list[tuple[float, float, float]]:
        """(x, mean, standard deviation over seeds) where a finished run has a value."""
        found = [(setting.x, setting.values(of)) for setting in self.settings]
        return [(x, *mean_and_std(values)) for x, values in found if values]

    def places(self, axis: str) -> list[float]:
        """Where the line has points."""
        if axis == "density" and self.method == "dense":
            return []
        return [setting.x for setting in self.settings] + [x for x, *_ in self.rounds() if axis == "density"]

    def rounds(self) -> list[tuple[float, float, float]]:
        """The same at the end of each stage, by its density, of runs that are pruned and trained in rounds."""
        found = []
        for setting in self.settings:
            for stages in zip(*(run.rounds for run in setting.finished), strict=False):
                density = statistics.fmean(stage["density"] for stage in stages)
                found.append((density, *mean_and_std([stage["test_top1"] for stage in stages])))
        return sorted(found)


def chosen(lines: Iterable[Line], which: str) -> Iterator[tuple[str, Run]]:
    """Finished runs with titles, of each setting: which = "one", "all" or "none"."""
    for line in lines:
        for setting in line.settings:
            for run in {"none": [], "one": setting.finished[:1], "all": setting.finished}[which]:
                yield f"{line.label}, seed {run.settings['seed']}, {run.folder.path.name}", run


def axis_keys(axis: str, runs: Sequence[Run]) -> set[str]:
    """The keys of a config that place a run on the axis. Raises ValueError for a key that no run has."""
    if axis == "epoch":
        return set()
    if axis == "width":
        return {"model.width"}
    known = {key for run in runs for key in run.settings}
    if axis == "density":
        return {key for key in known if key.startswith("method.") and key.endswith("density")}
    if axis not in known:
        hint = nearest(axis, [*AXES, *known])
        raise ValueError(f"--x: expected density, width, epoch or a key of the configs, got {axis!r}{hint}")
    return {axis}


def _place(axis: str, runs: Sequence[Run]) -> float:
    """Where runs that differ in their seed alone stand."""
    if axis == "epoch":
        return 0.0
    if axis == "density":
        measured = [run.record["density"] for run in runs if run.record.get("density") is not None]
        return statistics.fmean(measured) if measured else float("nan")
    value = runs[0].settings.get("model.width" if axis == "width" else axis)
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"--x: expected a key with numbers, got {axis}: {value!r}")
    return float(value)


def lines(runs: Sequence[Run], axis: str) -> list[Line]:
    """The runs as lines along an axis: one a method, and one a value of each other key they differ in."""
    beside = configs.places() | {"seed"}
    aside = axis_keys(axis, runs) | beside
    labels = _labels(runs, aside)
    found: dict[str, Line] = {}
    by_setting: dict[str, list[Run]] = {}
    for run in runs:
        rest = {key: value for key, value in run.settings.items() if key not in beside}
        by_setting.setdefault(json.dumps(rest, sort_keys=True), []).append(run)
    for same in by_setting.values():
        run = same[0]
        label = labels[id(run)]
        place = (run.settings["method.name"], run.settings["model.name"], run.settings["data.name"])
        line = found.setdefault(label, Line(label, *place))
        line.settings.append(Setting(same, _place(axis, same)))
    for line in found.values():
        line.settings.sort(key=lambda setting: setting.x)
    return sorted(found.values(), key=lambda line: _natural(line.label))


def _natural(label: str) -> list[tuple[float, str]]:
    """An order in which 10 comes after 9."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", label)
    return [(float(part), "") if index % 2 else (float("inf"), part) for index, part in enumerate(parts)]


def _labels(runs: Sequence[Run], aside: set[str]) -> dict[int, str]:
    """The method, and what tells a run from others of its method; network and data where they differ at all.

    A section that only some have, such as fine_tune, is named; its keys are as far as they differ among those.
    """
    always = [key for key in ("data.name", "model.name") if len({run.settings[key] for run in runs}) > 1]
    labels = {}
    by_method: dict[str, list[Run]] = {}
    for run in runs:
        by_method.setdefault(run.settings["method.name"], []).append(run)
    for method, same in by_method.items():
        keys = dict.fromkeys(key for run in same for key in run.settings if key not in (*aside, *always))
        sections = [key for key in keys if any(_has_section(run, key) for run in same)]
        varied = [key for key in keys if key not in sections and _differs(key, same)]
        for run in same:
            parts = [str(run.settings[key]) for key in always]
            parts += [key.rpartition(".")[2] for key in sections if _has_section(run, key)]
            parts += [f"{key.rpartition('.')[2]} {_short(run.settings[key])}" for key in varied if key in run.settings]
            labels[id(run)] = ", ".join([method, *parts])
    return labels


def _has_section(run: Run, key: str) -> bool:
    """Whether a key that is null in other runs is a map in this one."""
    return any(other.startswith(f"{key}.") for other in run.settings)


def _differs(key: str, runs: Sequence[Run]) -> bool:
    return len({json.dumps(run.settings[key]) for run in runs if key in run.settings}) > 1


def _short(value: Any) -> str:
    """A value of a config as one would say it."""
    if isinstance(value, list):
        return "+".join(map(_short, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key} {_short(item)}" for key, item in value.items())
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def default_axis(runs: Sequence[Run]) -> str:
    """Density where the runs have several, else width, else epochs."""
    densities = {round(run.record["density"], 4) for run in runs if run.finished}
    if len(densities) > 1:
        return "density"
    return "width" if _differs("model.width", runs) else "epoch"
