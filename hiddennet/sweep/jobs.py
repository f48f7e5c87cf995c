"""One job: a process of its own that runs one point, and what its end means. Not which job comes next."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hiddennet.run import HELD
from hiddennet.sweep.folder import SweepFolder
from hiddennet.sweep.grid import Point


def begin(
    folder: SweepFolder, point: Point, environment: Mapping[str, str], here: Path | None = None
) -> subprocess.Popen:
    """Start `python -m hiddennet.run` on the point, its words into the point's log.

    A process of its own, so that a crash ends one job; in a session of its own, so that Ctrl-C
    reaches it once, through us. environment: added to ours. here: its working folder.
    """
    log = folder.log(point)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as words:
        return subprocess.Popen(
            [sys.executable, "-m", "hiddennet.run", *point.arguments],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=here,
            start_new_session=True,
        )


def verdict(folder: SweepFolder, point: Point, status: int) -> str:
    """What a job's exit status (negative: the signal) means: finished, held, killed or failed.

    held: another process is at work on the point. killed: by a signal, saved or not; the run can go
    on. A failure is noted in the sweep's folder.
    """
    if folder.record(point):
        folder.forget_failure(point)
        return "finished"
    if status == HELD:
        return "held"
    if status < 0 or status > 128:
        return "killed"
    folder.note_failure(point, status)
    return "failed"
