"""Every benchmark, one after another, each in its own process; one JSON and one table for all.

python -m bench [--device cpu|cuda] [--only NAME ...] [--out DIR] [--quick] [--timeout S]

writes <out>/<device>.json and <out>/<device>.md. A benchmark that fails or runs out of time is
named at the end and makes the exit status 1; the others' results are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.environment import ROOT, headline
from bench.harness import device_of, parser
from bench.report import Row, table

MODULES = {
    "topk_mask": "bench.ops.bench_topk_mask",
    "masked_weight": "bench.ops.bench_masked_weight",
    "generate_weight": "bench.ops.bench_generate_weight",
    "masked_conv": "bench.ops.bench_masked_conv",
    "step": "bench.step",
    "memory": "bench.memory",
    "artifact": "bench.artifact",
    "accuracy": "bench.accuracy",
}


def run(name: str, args: argparse.Namespace, device: str, path: Path) -> str | None:
    """Run one benchmark with its table on our output; return what went wrong, or None."""
    command = [sys.executable, "-m", MODULES[name], "--device", device, "--json", str(path)]
    command += ["--quick"] if args.quick else []
    command += ["--threads", str(args.threads)] if args.threads else []
    command += ["--fresh", "--runs", str(path.parent / "runs")] if name == "accuracy" else []
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=args.timeout)
    except subprocess.TimeoutExpired:
        return f"{name}: not done after {args.timeout} s"
    return f"{name}: exit status {done.returncode}" if done.returncode else None


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """(environment, rows) of a benchmark's JSON lines."""
    first, *rest = map(json.loads, path.read_text().splitlines())
    known = {field.name for field in fields(Row)}
    return first["environment"], [Row(**{k: v for k, v in r.items() if k in known}) for r in rest]


def markdown(facts: dict[str, Any], rows: list[Row], failures: list[str], command: str) -> str:
    """The file to read: where, then a section a benchmark, then what failed."""
    parts = [f"# Measured on {facts['device']}", f"`{command}`: {headline(facts)}"]
    for name in dict.fromkeys(row.bench for row in rows):
        parts += [f"## {name}", table(row for row in rows if row.bench == name)]
    parts += [f"FAILED {failure}" for failure in failures]
    return "\n\n".join(parts) + "\n"


def verdict(rows: list[Row]) -> str:
    """One line: bars that hold, and those missed by name."""
    held = [row for row in rows if row.holds is not None]
    missed = [f"{row.what}: {row.variant} {row.bar}" for row in held if not row.holds]
    text = f"{len(held) - len(missed)} of {len(held)} bars hold"
    return text + "".join(f"\n  missed {line}" for line in missed)


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--only", nargs="+", choices=tuple(MODULES), default=list(MODULES))
    flags.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    flags.add_argument("--timeout", type=float, default=600, help="seconds for one benchmark")
    args = flags.parse_args()
    device = device_of(args).type
    failures: list[str] = []
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            path = Path(folder) / f"{name}.jsonl"
            failure = run(name, args, device, path)
            if failure:
                failures.append(failure)
            if path.is_file():
                here, found = read(path)
                facts, rows = facts or here, rows + found
    if not rows:
        print("\n".join(failures), file=sys.stderr)
        return 1
    facts["seconds"] = round(time.perf_counter() - begun)
    stem = re.sub(r"[^a-z0-9]+", "-", str(facts["device"]).lower()).strip("-")
    stem += "-quick" if args.quick else ""
    args.out.mkdir(parents=True, exist_ok=True)
    document = {"environment": facts, "failures": failures, "rows": [r.facts() for r in rows]}
    (args.out / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n")
    command = " ".join(["python -m bench", *sys.argv[1:]])
    (args.out / f"{stem}.md").write_text(markdown(facts, rows, failures, command))
    print(f"wrote {args.out / stem}.json and .md in {facts['seconds']} s; {verdict(rows)}")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
