"""A sweep from its file to its table: `python -m hiddennet.sweep SWEEP [key=value ...]`."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hiddennet.run import main_of
from hiddennet.sweep import grid, results
from hiddennet.sweep.folder import SweepFolder
from hiddennet.sweep.grid import Sweep

ENGINES = ("local", "ray")
EXAMPLE = """a sweep file:
  config: digits                      # a config: a variant here, a file beside, a name under configs/
  set: {train.epochs: 30}             # the same for all runs
  grid:                               # every combination, the last key fastest
    method.density: [0.05, 0.2, 0.5]
    seed: [0, 1, 2]
  runs:                               # or beside it: a list of maps of keys, each times the grid
    - {method.by: magnitude}
    - {config: digits-random}
Start it as often as you like, also on other hosts that share the folder: no run is run twice, and one whose
process was killed goes on from its checkpoint.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EXAMPLE, argparse.RawDescriptionHelpFormatter
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep file, or a name under configs/; family@sweep")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="for all runs; for a key of the grid: values")
    parser.add_argument("--workers", type=int, metavar="N", help="default: one a GPU, else one for each four cores")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="ray: Ray Tune, on its cluster")
    parser.add_argument("--name", metavar="NAME", help="of the sweep's folder; default: the file's name")
    parser.add_argument("--dry-run", action="store_true", help="check and list the runs, start none")


def run(
    sweep: str | Path,
    overrides: Iterable[str] = (),
    *,
    workers: int | None = None,
    engine: str = "local",
    name: str | None = None,
    bar: bool | None = None,
) -> tuple[SweepFolder, list[str]]:
    """Run all points of a sweep that nobody has run yet; return its folder and the places of runs that failed.

    workers, name: as on the command line. bar: a progress bar; None: on a terminal.

    Raises ConfigError before anything starts, Stopped after a signal with all runs saved.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {workers}")
    folder = SweepFolder(grid.load(sweep, overrides, name))
    folder.check_contents()
    if engine == "ray":
        from hiddennet.sweep import ray_tune

        ray_tune.check()
        folder.start()
        ray_tune.work(folder, workers)
    else:
        import torch

        from hiddennet.sweep.local import Local, slots

        folder.start()
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        environments = slots(folder.sweep.points, workers, gpus)
        print(f"sweep {folder.path}: {len(folder.sweep.points)} runs, {len(environments)} at a time", flush=True)
        try:
            Local(folder, environments, bar).work()
        finally:
            results.write(folder)
    results.write(folder)
    return folder, [point.place for point in folder.sweep.points if not folder.record(point)]


def listing(sweep: Sweep) -> str:
    """The points with their runs' folders and how they stand. Writes nothing."""
    folder = SweepFolder(sweep)
    folder.check()
    lines = [f"{folder.path}: {len(sweep.points)} runs"]
    for number, point in enumerate(sweep.points, start=1):
        run_folder = folder.run_folder(point)
        held, begun = run_folder.is_held(), run_folder.last.is_file()
        state = "finished" if folder.record(point) else "at work" if held else "begun" if begun else "new"
        lines.append(f"{number:4}  {state:8}  {run_folder.path}  hiddennet run {shlex.join(point.arguments)}")
    return "\n".join(lines)


def execute(arguments: argparse.Namespace) -> int:
    """Do what the arguments say; return the exit status: 1 when a run failed."""
    if arguments.dry_run:
        print(listing(grid.load(arguments.sweep, arguments.overrides, arguments.name)))
        return 0
    folder, failed = run(
        arguments.sweep,
        arguments.overrides,
        workers=arguments.workers,
        engine=arguments.engine,
        name=arguments.name,
    )
    print(f"\n{results.table(folder)}\n\n{folder.results}")
    for point in folder.sweep.points:
        if point.place in failed:
            print(f"hiddennet sweep: {point} failed; see {folder.log(point)}", file=sys.stderr)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    return main_of("sweep", __doc__, add_arguments, execute, argv)
