"""Every benchmark, one after another, each in its own process; one JSON and one table for all.

python -m bench [--device cpu|cuda] [--only NAME ...] [--out DIR] [--quick]

writes <out>/<device>.json and <out>/<device>.md; with --only the names are part of the files'.
The accuracy of runs belongs to it on a CPU, of `digits` unless --sets says more. A benchmark that
fails or runs out of time is named at the end and makes the exit status 1; the others are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

from bench.environment import ROOT, headline
from bench.harness import device_of, parser
from bench.report import Row, table

# in this order; those that are no module bench.NAME are of bench.ops
NAMES = (
    "topk_mask",
    "masked_weight",
    "step",
    "step_search",
    "step_psg",
    "step_bf16",
    "step_dnw_mobilenet",
    "step_dnw",
    "eval_dnw",
    "eval_hidden",
    "memory",
    "artifact",
    "masked_conv",
    "generate_weight",
    "rerandomize",
    "strike_out",
    "score_step",
    "bop_step",
    "quantize_codes",
    "code_weight_gradient",
    "sparse_conv",
    "dense_weight_gradient",
    "fused_maps",
    "wired_sum",
    "filter_nodes",
    "pruning",
    "accuracy",
)


# what a machine for the kernels alone may lack
NEEDS = {"step_search": "pydantic", "accuracy": "pydantic"}


def has(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def words(name: str) -> list[str]:
    """The module of a benchmark, and its name there if it is one of several."""
    return [f"bench.{name}"] if (ROOT / "bench" / f"{name}.py").is_file() else ["bench.ops", name]


@dataclass
class Results:
    """What all benchmarks said so far."""

    command: str
    environment: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)  # of a check that benchmarks end
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def read(self, path: Path) -> None:
        """Add a benchmark's JSON lines."""
        first, *rest = map(json.loads, path.read_text().splitlines())
        known = {f.name for f in fields(Row)}
        self.environment = self.environment or first["environment"]
        self.rows += [Row(**{k: v for k, v in row.items() if k in known}) for row in rest]

    def markdown(self) -> str:
        """The file to read: where, stages, a section a benchmark, what failed."""
        device = self.environment.get("device", "nothing: no benchmark ran")
        parts = [f"# Measured on {device}", f"`{self.command}`: {headline(self.environment)}"]
        parts.append(f"{self.verdict()}")
        if self.stages:
            names = ("stage", "status", "seconds", "said")
            lines = [f"| {' | '.join(str(s.get(n, '')) for n in names)} |" for s in self.stages]
            head = [f"| {' | '.join(names)} |", "|---|---|---|---|"]
            parts.append("\n".join([*head, *lines]))
        for name in dict.fromkeys(row.bench for row in self.rows):
            parts += [f"## {name}", table(row for row in self.rows if row.bench == name)]
        parts += [f"FAILED {failure}" for failure in self.failures]
        parts += [f"skipped {name}" for name in self.skipped]
        return "\n\n".join(parts) + "\n"

    def verdict(self) -> str:
        """How many bars hold, and those missed by name."""
        held = [row for row in self.rows if row.holds is not None]
        missed = [f"{row.what}: {row.variant}, {row.bar}" for row in held if not row.holds]
        text = f"{len(held) - len(missed)} of {len(held)} bars hold"
        return text + "".join(f"\n- missed: {line}" for line in missed)

    def write(self, folder: Path, stem: str) -> Path:
        """Write both files; return the path without its suffix."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "command": self.command,
            "environment": self.environment,
            "stages": self.stages,
            "failures": self.failures,
            "skipped": self.skipped,
            "rows": [row.facts() for row in self.rows],
        }
        (folder / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n")
        (folder / f"{stem}.md").write_text(self.markdown())
        return folder / stem


def run(name: str, args: argparse.Namespace, device: str, path: Path, left: float) -> str | None:
    """Run one benchmark with its table on our output; return what went wrong, or None."""
    limit = min(args.timeout, left)
    if limit <= 0:
        return f"{name}: not begun, no time left of {args.deadline:g} s"
    command = [sys.executable, "-m", *words(name), "--device", device, "--json", str(path)]
    command += ["--quick"] if args.quick else []
    command += ["--threads", str(args.threads)] if args.threads else []
    if name == "accuracy":
        command += ["--fresh", "--runs", str(path.parent / "runs")]
        command += ["--root", str(args.root.resolve()), "--sets", *args.sets]
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"{name}: not done after {limit:.0f} s"
    return f"{name}: exit status {done.returncode}" if done.returncode else None


def stem_of(args: argparse.Namespace, environment: dict[str, Any], device: str) -> str:
    """The files' name: the device's in small letters, and what ran if that was not all."""
    name = re.sub(r"[^a-z0-9]+", "-", str(environment.get("device", device)).lower()).strip("-")
    return "-".join([name, *(args.only or []), *(["quick"] if args.quick else [])])


def main() -> int:
    flags = parser(__doc__, json=False)
    flags.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME")
    flags.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    flags.add_argument("--timeout", type=float, default=600, help="seconds for one benchmark")
    flags.add_argument("--deadline", type=float, default=inf, help="seconds for all of them")
    flags.add_argument("--stages", type=Path, help="JSON lines of what ran before, to be kept too")
    flags.add_argument("--sets", nargs="+", default=["digits"], help="of the accuracy benchmark")
    flags.add_argument("--root", type=Path, default=Path("data"), help="where its data sets are")
    args = flags.parse_args()
    device = device_of(args).type
    results = Results(" ".join(["python -m bench", *sys.argv[1:]]))
    if args.stages is not None:
        results.stages = [json.loads(line) for line in args.stages.read_text().splitlines()]
    begun = time.perf_counter()
    written = args.out
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only or [n for n in NAMES if n != "accuracy" or device == "cpu"]:
            path = Path(folder) / f"{name}.jsonl"
            if name in NEEDS and not has(NEEDS[name]):
                results.skipped.append(f"{name}: it needs {NEEDS[name]}, which is not installed here")
                print(f"skipped {results.skipped[-1]}", flush=True)
            else:
                failure = run(name, args, device, path, args.deadline - (time.perf_counter() - begun))
                if failure:
                    results.failures.append(failure)
                if path.is_file():
                    results.read(path)
            # after each one: what is measured is kept whatever comes next
            written = results.write(args.out, stem_of(args, results.environment, device))
    spent = time.perf_counter() - begun
    print(f"wrote {written}.json and .md in {spent:.0f} s; {results.verdict()}")
    for failure in results.failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
