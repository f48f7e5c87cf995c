"""A sweep's folder: which points it has, what each job said, which failed, how each run stands."""

import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiddennet.config import ConfigError
from hiddennet.files import locked, remove_temporaries, write_text
from hiddennet.sweep.grid import Point, Sweep
from hiddennet.train.folder import RunError, RunFolder, commit, read_json

LAST_LINES = 12


class SweepFolder:
    """<runs>/sweeps/<name>/ and its files."""

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.path = sweep.runs / "sweeps" / sweep.name
        self.description = self.path / "sweep.json"
        self.results = self.path / "sweep.csv"

    def start(self) -> None:
        """Write the points down, or see that those here are the same. Raises ConfigError for another grid."""
        self.check()
        with locked(self.path / ".lock"):
            for folder in (self.path, self.path / "failed"):
                remove_temporaries(folder)
            self.check()
            if not self.description.is_file():
                write_text(self.description, json.dumps(self._document(), indent=2) + "\n")

    def check(self) -> None:
        """Raise ConfigError when the folder belongs to another grid. Changes nothing."""
        if not self.description.is_file():
            return
        points = read_json(self.description).get("points")
        if not isinstance(points, list) or not all(
            isinstance(p, dict) and isinstance(p.get("run"), str) for p in points
        ):
            raise RunError(f"sweep: expected the points of a sweep in {self.description}, got none; delete it")
        here = [point["run"] for point in points]
        ours = [point.place for point in self.sweep.points]
        if sorted(here) != sorted(ours):
            mistake = (
                f"expected the grid of {len(here)} points that {self.path} was started with, got one of {len(ours)} "
                f"points, {len(set(ours) & set(here))} of them the same; give this one a name of its own with --name "
                "(runs that are finished are not run again)"
            )
            raise ConfigError(self.sweep.name, [mistake])

    def _document(self) -> dict[str, Any]:
        points = [
            {"values": point.values, "config": point.digest, "run": point.place, "arguments": list(point.arguments)}
            for point in self.sweep.points
        ]
        return {
            "name": self.sweep.name,
            "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "commit": commit(),
            "command": sys.argv,
            "points": points,
        }

    def run_folder(self, point: Point) -> RunFolder:
        """Where the point's run has its place."""
        return RunFolder.of(point.config)

    def record(self, point: Point) -> dict[str, Any]:
        """What the point's run.json says, or nothing when its run is not finished."""
        record = self.run_folder(point).read_record()
        return record if record.get("finished") else {}

    def check_contents(self) -> None:
        """Raise RunError when a run that is finished was one of other data."""
        from hiddennet.train.build import check_contents, contents

        known: dict[Any, Any] = {}
        for point in self.sweep.points:
            before, config = self.record(point).get("contents"), point.config
            asked = config.data, config.seed
            if before is not None:
                known[asked] = known[asked] if asked in known else contents(config)
                check_contents(config, before, known[asked])

    def log(self, point: Point) -> Path:
        """What the point's jobs print, all of them one after the other."""
        return self.path / "logs" / f"{point.digest}.log"

    def failure(self, point: Point) -> dict[str, Any]:
        """How the point's last job failed; nothing when it did not, or a later one has finished."""
        path = self._failure(point)
        if not path.is_file() or self.record(point):
            return {}
        return read_json(path)

    def note_failure(self, point: Point, status: int) -> dict[str, Any]:
        """Keep the exit status of the point's job and the last lines that it printed."""
        lines = self.log(point).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        found = {"point": point.values, "run": point.place, "status": status, "lines": lines}
        write_text(self._failure(point), json.dumps(found, indent=2) + "\n")
        return found

    def forget_failure(self, point: Point) -> None:
        """The point has finished after all."""
        self._failure(point).unlink(missing_ok=True)

    def _failure(self, point: Point) -> Path:
        return self.path / "failed" / f"{point.digest}.json"


def last_line(lines: Sequence[str]) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
