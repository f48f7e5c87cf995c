"""From a sweep file to its points, each a config that has been checked. Not where or how they are run."""

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml as pyyaml

from hiddennet import config as configs
from hiddennet import outside, plugins
from hiddennet.config import Config, ConfigError, families
from hiddennet.config.load import is_sweep, overrides_document
from hiddennet.registry import nearest
from hiddennet.settings import yaml

KEYS = ("name", "config", "set", "grid", "runs")


@dataclass(frozen=True)
class Point:
    """One run of a sweep: what the sweep sets there, the arguments of `hiddennet run`, the resolved config."""

    values: dict[str, Any]
    arguments: tuple[str, ...]
    config: Config

    @property
    def digest(self) -> str:
        """The digest of the config, which names the run's folder."""
        return configs.digest(self.config)

    @property
    def place(self) -> str:
        """The run's folder, below the folder of all runs."""
        return f"{self.config.name}/{self.digest}"

    def __str__(self) -> str:
        return " ".join(f"{key}={text(value)}" for key, value in self.values.items()) or self.config.name


@dataclass(frozen=True)
class Sweep:
    """All points of a sweep file, in the order in which they are run."""

    name: str
    points: list[Point]
    runs: Path  # the folder of all runs
    columns: list[str]  # the keys that points set, those of the grid last


def text(value: Any) -> str:
    """A value as it is written behind `key=` on the command line; YAML reads the same value back."""
    if isinstance(value, str):
        with contextlib.suppress(pyyaml.YAMLError):
            if yaml.parse(value) == value:
                return value
    return json.dumps(value, ensure_ascii=False)


def load(sweep: str | Path, overrides: Iterable[str] = (), name: str | None = None) -> Sweep:
    """Return the sweep of a file or of a name under configs/, all of its points resolved and checked.

    overrides: `key=value` for every point; for a key of the grid the values it takes instead, one or
    a list. name: of the sweep, in place of the file's.

    Raises ConfigError with the first mistake.
    """
    path = configs.find(sweep)
    document = configs.read(path)
    source = str(sweep)
    known = families.names(path, "sweeps") if path.is_file() else []
    if known and not is_sweep(document):
        _refuse(source, families.unknown("", known))
    _check(document, source)
    grid = {key: list(values) for key, values in (document.get("grid") or {}).items()}
    listed = document.get("runs") or [{}]
    fixed = dict(document.get("set") or {})
    if "plugins" in fixed:  # files lie beside the sweep's, not where it is started
        fixed["plugins"] = plugins.located(fixed["plugins"], path.parent)
    beside = {"plugins": fixed.get("plugins", [])}
    for part in (fixed, *({key: value} for key, values in grid.items() for value in values), *listed):
        for key in ("model", "data"):
            beside[key] = part.get(key, {"name": part.get(f"{key}.name")})
        outside.note_homes(beside, path.parent)
    if beside["plugins"]:
        fixed["plugins"] = beside["plugins"]
    for key, value in _parsed(overrides):
        _override(key, value, grid, listed, fixed, source)
    homes = list(_homes(path))
    points = []
    for number, values in enumerate(_product(grid, listed), start=1):
        points.append(_resolve(values, fixed, document, homes, f"{source}, point {number}"))
    _check_apart(points, source)
    name = _name(name or document.get("name") or families.run_name(path), source)
    runs = Path(points[0].config.runs).expanduser()
    return Sweep(name, points, runs, list(dict.fromkeys([*itertools.chain(*listed), *grid])))


def _check(document: Mapping[str, Any], source: str) -> None:
    for key in document:
        if key not in KEYS:
            hint = "; a config is run by `hiddennet run`" if key in Config.model_fields else nearest(key, KEYS)
            _refuse(source, f"{key}: expected a key of a sweep ({', '.join(KEYS)}), got {key}{hint}")
    if not document.get("grid") and "runs" not in document:
        _refuse(source, "expected grid, a map from keys to lists of values, or runs, a list of maps, got neither")
    for key in ("set", "grid"):
        value = document.get(key)
        if value is not None and not isinstance(value, Mapping):
            _refuse(source, f"{key}: expected a map of keys, got {value!r}")
    for key, values in (document.get("grid") or {}).items():
        if not isinstance(values, list) or not values:
            _refuse(source, f"grid.{key}: expected a list of at least one value, got {values!r}")
    listed = document.get("runs", [{}])
    if not isinstance(listed, list) or not listed or not all(isinstance(point, Mapping) for point in listed):
        _refuse(source, f"runs: expected a list of at least one map of keys, got {listed!r}")
    parts = [document.get("set") or {}, document.get("grid") or {}, *listed]
    strange = next((key for part in parts for key in part if not isinstance(key, str)), None)
    if strange is not None:
        _refuse(source, f"expected keys such as method.density, got {strange!r}")
    twice = next((key for point in listed for key in point if key in (document.get("grid") or {})), None)
    if twice is not None:
        _refuse(source, f"{twice}: expected it in grid or in runs, got it in both")


def _refuse(source: str, mistake: str) -> None:
    raise ConfigError(source, [mistake])


def _name(name: Any, source: str) -> str:
    if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set("/\\\0\n"):
        _refuse(source, f"name: expected the name of a folder, without '/', got {name!r}")
    return name


def _parsed(overrides: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for override in overrides:
        value: Any = overrides_document([override])
        key = override.partition("=")[0].strip()
        for part in key.split("."):
            value = value[part]
        yield key, value


def _override(
    key: str,
    value: Any,
    grid: dict[str, list],
    listed: Sequence[Mapping[str, Any]],
    fixed: dict[str, Any],
    source: str,
) -> None:
    """Take an override of the command line. None may be lost below what a point sets."""
    if key in grid:
        grid[key] = value if isinstance(value, list) else [value]
        if not grid[key]:
            _refuse(source, f"grid.{key}: expected a list of at least one value, got []")
        return
    set_by_points = [*grid, *(path for point in listed for path in point)]
    for path in set_by_points:
        if path == key or path.startswith(f"{key}.") or key.startswith(f"{path}."):
            _refuse(source, f"{key}: expected a key that the points leave alone, got {key}, where they set {path}")
    for path in [path for path in fixed if path == key or path.startswith(f"{key}.")]:
        del fixed[path]
    fixed[key] = value


def _product(grid: Mapping[str, list], listed: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for point in listed:
        for values in itertools.product(*grid.values()):
            yield {**point, **dict(zip(grid, values, strict=True))}


def _homes(path: Path | None) -> Iterator[Path]:
    """The sweep and those it extends."""
    while path is not None:
        yield path
        path, _ = families.layers(path)


def _resolve(
    values: dict[str, Any], fixed: Mapping[str, Any], document: Mapping[str, Any], homes: list[Path], where: str
) -> Point:
    settings = {**fixed, **values}
    name = settings.pop("config", document.get("config"))
    if not isinstance(name, str):
        _refuse(where, f"config: expected the name or the path of a config, got {name!r}")
    path = configs.find(name, homes)
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    arguments = (str(path), *(f"{key}={text(value)}" for key, value in settings.items()))
    shown = " ".join(f"{key}={text(value)}" for key, value in values.items())
    try:
        return Point(values, arguments, configs.load(path, arguments[1:]))
    except ConfigError as error:
        raise ConfigError(f"{where} ({shown})", error.mistakes) from None


def _check_apart(points: Sequence[Point], source: str) -> None:
    """Two points of one folder would be one run under two names."""
    seen: dict[str, int] = {}
    for number, point in enumerate(points, start=1):
        other = seen.setdefault(point.digest, number)
        if other != number:
            _refuse(
                source,
                f"expected points with a run of their own each, got points {other} ({points[other - 1]}) and "
                f"{number} ({point}), which are one and the same run {point.place}; take one of them out",
            )
    folders = {point.config.runs for point in points}
    if len(folders) > 1:
        _refuse(source, f"runs: expected one folder for all points, got {', '.join(sorted(folders))}")
