"""Reports of runs: plots, tables, one HTML page: `python -m hiddennet.report RUN... [--connect A B]`."""

import argparse
import datetime
import shlex
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from hiddennet import plugins
from hiddennet.files import csv_text, write_atomic, write_text
from hiddennet.run import main_of
from hiddennet.tables import aligned

MOST_CURVES = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="*", help="folders of runs, of a sweep, or of all runs")
    parser.add_argument("-o", "--output", metavar="DIR", help="default: report/ in the folder given, else here")
    parser.add_argument(
        "--x", metavar="AXIS", help="density, width, epoch or a key of the configs; default: what varies"
    )
    parser.add_argument("--layers", choices=("one", "all", "none"), default="one", help="runs a setting; default: one")
    parser.add_argument(
        "--connect", nargs=2, metavar=("A", "B"), help="two of RUN, RUN@STAGE such as RUN@search, ARTIFACT"
    )
    parser.add_argument("--points", type=int, default=21, metavar="N", help="networks from A to B")
    parser.add_argument("--draws", type=int, default=1, metavar="N", help="orders in which coordinates change sides")
    parser.add_argument("--batches", type=int, default=10, metavar="N", help="of training images, from A to B")
    parser.add_argument("--keep-statistics", action="store_true", help="interpolate batch norm's, take none anew")
    parser.add_argument("--root", metavar="DIR", help="folder of the data sets; default: the run's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; from A to B")
    parser.add_argument("--open", action="store_true", help="show the page")
    plugins.add_argument(parser)


class _Report:
    """The page as it grows, and its files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts: list[str] = []

    def plot(self, name: str, png: bytes, said: str) -> str:
        """Write a plot beside the page and return it as part of the page."""
        from hiddennet.report import page

        write_atomic(self.folder / f"{name}.png", lambda file: file.write(png))
        return page.image(png, said)

    def write(self, subtitle: str) -> Path:
        """Write the page in one go."""
        from hiddennet.report import page

        path = self.folder / "report.html"
        write_text(path, page.page("hiddennet report", subtitle, self.parts))
        return path


def report(
    runs: Sequence[str],
    output: str | Path,
    *,
    axis: str | None = None,
    layers: str = "one",
    connection: Callable[[], object] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the report of runs, and of a connection, into a folder; return the path of the page.

    runs, axis, layers: as on the command line. connection: makes a Connection. say: is told what is done.

    Raises RunError or ValueError for paths without runs and for an axis that there is not.
    """
    made = _Report(Path(output).expanduser())
    count = 0
    if runs:
        count = _runs(made, runs, axis, layers, say)
    if connection is not None:
        _connection(made, connection())
    from hiddennet._version import __version__
    from hiddennet.report import page

    typed = sys.argv[1:] if sys.argv[1:2] == ["report"] else ["report", *sys.argv[1:]]
    made.parts.append(page.section("This page", page.code(shlex.join(["hiddennet", *typed]))))
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    return made.write(f"{count} runs, {now}, hiddennet {__version__}" if count else f"{now}, hiddennet {__version__}")


def _runs(made: _Report, paths: Sequence[str], axis: str | None, which: str, say: Callable[[str], None]) -> int:
    from hiddennet.report import graphs, page, plots, sections
    from hiddennet.report import runs as found_runs

    runs, left_out = found_runs.read_all(paths)
    if not runs:
        raise ValueError(f"report: expected a run that can be read, got none: {'; '.join(left_out)}")
    for sentence in left_out:
        say(f"left out: {sentence}")
    axis = axis or found_runs.default_axis(runs)
    lines = found_runs.lines(runs, axis)
    beside = sections.published_beside(lines)
    head, rows = sections.settings_table(lines, axis)
    say(aligned([head, *rows]))
    parts = []
    if axis != "epoch":
        png = plots.along(lines, axis, beside)
        said = f"Test accuracy against {axis}: mean and standard deviation over seeds."
        parts.append(made.plot(f"accuracy_{axis.replace('.', '_')}", png, said))
    metric, curves = plots.metric_of(runs), sum(len(line.settings) for line in lines)
    if curves > MOST_CURVES:
        parts.append(page.paragraph(f"Epoch by epoch: {curves} settings are too many for one plot; report fewer."))
    elif metric is not None:
        said = "Accuracy after each epoch: mean, and one standard deviation over seeds."
        parts.append(made.plot("accuracy_epoch", plots.over_epochs(lines, axis, metric), said))
    flips = [run for run in runs if run.metrics and "flips" in run.metrics[0]]
    if flips and curves <= MOST_CURVES:
        said = "Signs flipped in each epoch, all layers together: mean, and one standard deviation over seeds."
        parts.append(made.plot("flips_epoch", plots.over_epochs(lines, axis, "flips"), said))
    said = "Means and standard deviations (n - 1) over seeds, at the epoch that each run chose."
    made.parts.append(page.section("Accuracy", *parts, page.table(head, rows, caption=said)))
    labels = sections.labels_of(lines)
    made.parts += [
        sections.stages(runs, labels),
        sections.published(beside),
        sections.layers(lines, which, say),
        graphs.section(lines, axis, which, made.plot, say, curves=curves <= MOST_CURVES),
        sections.costs(lines),
        page.section("Runs", sections.runs_table(runs, labels), page.items([f"Left out: {s}" for s in left_out])),
        sections.commands(runs),
    ]
    return len(runs)


def _connection(made: _Report, found) -> None:
    from hiddennet.report import page, plots

    write_text(made.folder / "connection.csv", csv_text(found.rows()))
    png = plots.connection(found.rows(), found.distance)
    head = ("path", "draw", "t", "distance", "training loss", "training top-1", "test loss", "test top-1")
    rows = []
    for s in found.samples:
        accuracies = (f"{s.train_loss:.4f}", f"{s.train_top1:.2%}", f"{s.test_loss:.4f}", f"{s.test_top1:.2%}")
        rows.append((s.kind, str(s.draw), f"{s.t:.3g}", f"{s.distance:.4f}", *accuracies))
    made.parts.append(
        page.section(
            "From one network to another",
            page.items([f"A: {found.a}", f"B: {found.b}", f"Hamming distance of the masks: {found.distance:.4f}"]),
            made.plot("connection", png, "Accuracy and loss of the networks between A (t = 0) and B (t = 1)."),
            page.items(found.notes),
            page.fold("All numbers", page.table(head, rows)),
        )
    )


def _output(arguments: argparse.Namespace) -> Path:
    if arguments.output:
        return Path(arguments.output)
    one = len(arguments.runs) == 1 and Path(arguments.runs[0]).expanduser().is_dir()
    return Path(arguments.runs[0]) / "report" if one else Path("report")


def execute(arguments: argparse.Namespace) -> int:
    """Make the report that the arguments ask for; return the exit status."""
    if not arguments.runs and not arguments.connect:
        raise ValueError("report: expected at least one RUN, or --connect A B, got neither")
    plugins.load_named(arguments)
    path = report(
        arguments.runs,
        _output(arguments),
        axis=arguments.x,
        layers=arguments.layers,
        connection=(lambda: _connect(arguments)) if arguments.connect else None,
        say=lambda sentence: print(sentence, flush=True),
    )
    print(path)
    if arguments.open:
        webbrowser.open(path.resolve().as_uri())
    return 0


def _connect(arguments: argparse.Namespace):
    from hiddennet.report.connect import connect
    from hiddennet.report.networks import open_network
    from hiddennet.train import machine

    a, b = map(open_network, arguments.connect)
    print(f"from {a.where} to {b.where}: {arguments.points} networks", flush=True)
    return connect(
        a,
        b,
        points=arguments.points,
        draws=arguments.draws,
        batches=arguments.batches,
        reestimate=not arguments.keep_statistics,
        device=machine.choose_device(arguments.device),
        root=arguments.root,
    )


def main(argv: Sequence[str] | None = None) -> int:
    return main_of("report", __doc__, add_arguments, execute, argv)
