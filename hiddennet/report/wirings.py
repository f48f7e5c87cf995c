"""The report's section on graph networks: what their wirings are made of, pictures of them, and how they changed."""

from collections.abc import Callable, Sequence

from hiddennet.analysis import wirings as analysis
from hiddennet.nn.reach import layouts
from hiddennet.nn.wiring import wirings
from hiddennet.report import graphs, page, plots
from hiddennet.report.networks import Network, of_run
from hiddennet.report.runs import Line, Run, chosen

MOST_PICTURED = 8  # runs
CURVES = {
    "wiring_running_edges": "Edges that are kept and run, after each epoch",
    "wiring_dead_nodes": "Nodes on no path of kept edges from the input to the output, after each epoch",
    "wiring_swaps": "Edges that were swapped for others in each epoch",
}
Plot = Callable[[str, bytes, str], str]  # name, PNG, caption: part of the page


def is_graph(run: Run) -> bool:
    """Whether a run's network is one of wirings, by its name."""
    return run.settings["model.name"].startswith("dnw_")


def section(
    lines: Sequence[Line], axis: str, which: str, plot: Plot, say: Callable[[str], None], *, curves: bool = True
) -> str:
    """Curves over the epochs, and wirings of one finished run a setting or of all; nothing without graph networks.

    axis: of the lines. which: one, all or none. curves: whether curves can be told apart.
    """
    every = [run for line in lines for setting in line.settings for run in setting.runs]
    parts = []
    for metric, said in CURVES.items() if curves else ():
        if any(run.metrics and metric in run.metrics[-1] for run in every):
            told = f"{said}, all wirings together: mean, and one standard deviation over seeds."
            parts.append(plot(f"{metric}_epoch", plots.over_epochs(lines, axis, metric), told))
    pictured = [(title, run) for title, run in chosen(lines, which) if is_graph(run)]
    for number, (title, run) in enumerate(pictured[:MOST_PICTURED]):
        say(f"wirings of {run.folder.path}")
        try:
            network = of_run(run.folder.path)
            parts.append(_pictures(title, network, plot, f"wiring_{number}"))
        except (ValueError, OSError, RuntimeError) as error:  # said on the page: the other runs are still shown
            parts.append(page.paragraph(f"{title}: not known: {str(error).splitlines()[0]}"))
    if len(pictured) > MOST_PICTURED:
        parts.append(page.paragraph(f"Wirings of {MOST_PICTURED} runs of {len(pictured)} are shown; report fewer."))
    if not parts:
        return ""
    said = (
        "An edge is kept where the mask of its wiring says so, and run where the graph's order lets it. Alive: on a "
        "path of such edges from the network's input to its output; a node on none is dead, also one that sends a "
        "constant. Multiply-adds: of one image, edges and nodes' convolutions; of a continuous graph, of one "
        "evaluation of its right-hand side."
    )
    return page.section("Wirings", page.paragraph(said), *parts)


def _pictures(title: str, network: Network, plot: Plot, prefix: str) -> str:
    """A run's wirings: a table, and two pictures of each."""
    model = network.model
    size = analysis.size_of(model)
    reports, alive = analysis.wiring_report(model, size), analysis.paths(model)
    held, parts = wirings(model), []
    for name, layout in layouts(model).items():
        file = f"{prefix}_{name.replace('.', '_')}"
        picture, pixel = graphs.adjacency(held[name], layout)
        said = f"Edges of {name}: a source a row, a destination a column, lines between blocks."
        said += f" A pixel is the mean of {pixel[0]} x {pixel[1]} positions." if max(pixel) > 1 else ""
        if held[name].usable is not None:
            said += " Grey: where the graph can run edges; orange: kept edges elsewhere."
        parts.append(plot(f"{file}_edges", picture, said))
        picture, _ = graphs.graph(held[name], layout, alive[name].nodes)
        order = "blocks from left to right" if layout.run == "blocks" else "nodes on a circle, clockwise from above"
        said = f"Graph of {name}: {order}. Blue edges have positive weights, orange ones negative."
        parts.append(plot(f"{file}_graph", picture, said))
    rows = [analysis.cells(report) for report in reports]
    kept, dead = sum(report.running for report in reports), sum(report.dead_nodes for report in reports)
    nodes = sum(report.nodes for report in reports)
    summary = f"{title}: {kept:,} edges run, {dead:,} of {nodes:,} nodes dead"
    return page.fold(summary, page.table(analysis.HEAD, rows, text=2), *parts)
