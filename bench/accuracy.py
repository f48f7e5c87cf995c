"""What the runs reach: test accuracies of the configs named in the README, beside their time.

Each config runs through `python -m hiddennet.run` in a process of its own; this file only reads
what the runs wrote. `digits` needs nothing, `mnist` and `cifar10` their data under --root. A run
that was finished before is read, not run again; --fresh runs it again.

python -m bench.accuracy [--sets digits mnist cifar10] [--root data] [--runs DIR] [--fresh]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import table
from bench.environment import ROOT
from bench.table import Benchmark, Case, Setting, Value


@dataclass(frozen=True)
class Group:
    """Configs at one budget."""

    configs: tuple[str, ...]
    bars: dict[str, float]  # test accuracy in percent
    seconds_bar: float | None = None  # for all runs together


GROUPS = {
    "digits": Group(("digits-dense", "digits-random", "digits"), {"digits": 97.0}, 60.0),
    "mnist": Group(("mnist-fc",), {"mnist-fc": 96.0}),
    "cifar10": Group(("cifar10-conv4-dense", "cifar10-conv4-random", "cifar10-conv4"), {}),
}


def run(config: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The run's record. Raises SystemExit with what the run said where it failed."""
    runs = args.runs / config
    command = [sys.executable, "-m", "hiddennet.run", config, f"runs={runs}"]
    command += [f"data.root={args.root.resolve()}", f"train.device={device.type}"]
    command += ["train.epochs=1", "data.limit=256"] if args.quick else []
    command += ["--fresh"] if args.fresh else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    records = sorted(runs.glob("*/*/run.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(records[-1].read_text())


def cases(at: Setting) -> Iterator[Case]:
    for name in at.args.sets:
        group, total = GROUPS[name], 0.0
        configs = group.configs[-1:] if at.quick else group.configs
        for config in configs:
            record = run(config, at.args, at.device)
            total += record["session_seconds"]
            note = (
                f"{record['method']}, density {record['density']:.3g}, {record['epochs']} epochs, best "
                f"by {record['selection']} accuracy; artifact {record['artifact_bytes']:,} bytes, "
                f"dense {record['dense_bytes']:,}; {record['device']}, {record['threads']} threads"
            )
            found = [
                Value("test accuracy", 100 * record["test_top1"], "%", at_least=group.bars.get(config), note=note),
                Value("run", record["session_seconds"], "s"),
            ]
            yield Case(config, values=lambda _, found=found: found)
        if len(configs) > 1:
            together = Value("runs together", total, "s", at_most=group.seconds_bar)
            yield Case(name, values=lambda _, together=together: [together])


def main() -> None:
    flags = {
        "--sets": {"nargs": "+", "choices": tuple(GROUPS), "default": ["digits"]},
        "--root": {"type": Path, "default": Path("data"), "help": "where the data sets are"},
        "--runs": {"type": lambda path: Path(path).resolve(), "default": "runs/bench", "help": "where runs go"},
        "--fresh": {"action": "store_true", "help": "run again what was finished before"},
    }
    table.main("accuracy", Benchmark(cases, grad=True), __doc__, flags)


if __name__ == "__main__":
    main()
