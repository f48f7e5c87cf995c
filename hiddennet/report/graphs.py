"""The report's section on graph networks: what their wirings are made of, how they changed, and pictures of them: the
adjacency matrix, and the graph itself."""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiddennet.analysis import wirings as analysis
from hiddennet.nn.reach import GraphLayout, layouts
from hiddennet.nn.wiring import Wiring, wirings
from hiddennet.report import graphs, page, plots
from hiddennet.report.networks import Network, of_run
from hiddennet.report.paint import COLORS
from hiddennet.report.plots import INK, figure
from hiddennet.report.runs import Line, Run, chosen

MOST_PIXELS = 800  # a side of an adjacency matrix
MOST_EDGES = 2000  # lines in a graph


def pooled(matrix: Tensor, most: int = MOST_PIXELS) -> tuple[np.ndarray, tuple[int, int]]:
    """Means over rectangles of a matrix, [rows, columns], so that no side is longer than `most`; and their size.

    Rectangles at the end are cut off where the matrix ends; float64.
    """
    values = matrix.cpu().numpy()
    size = math.ceil(values.shape[0] / most), math.ceil(values.shape[1] / most)
    rows, columns = (np.arange(0, n, step) for n, step in zip(values.shape, size, strict=True))
    sums = np.add.reduceat(values, rows, axis=0, dtype=np.int64 if values.dtype == bool else np.float64)
    sums = np.add.reduceat(sums, columns, axis=1)
    heights, widths = (np.diff(np.append(start, n)) for start, n in zip((rows, columns), values.shape, strict=True))
    return sums / np.outer(heights, widths), size


def strongest(weight: Tensor, running: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """At most `most` of the running edges, those of the largest |weight|: their rows, columns and weights."""
    rows, columns = running.nonzero(as_tuple=True)
    values = weight[rows, columns]
    order = values.abs().sort(descending=True, stable=True).indices[:most]
    return rows[order], columns[order], values[order]


@torch.no_grad()
def adjacency(wiring: Wiring, layout: GraphLayout) -> tuple[bytes, tuple[int, int]]:
    """The kept edges as an image, a source a row, blocks set apart; and how many rows and columns a pixel is.

    Blue: edges that run. Orange: kept ones that never do. Grey ground: where edges may be. Of several positions in a
    pixel: the root of the kept fraction, the fullest pixel at full strength.
    """
    mask, running = wiring.mask().cpu().t(), wiring.running().cpu().t()
    usable = torch.ones_like(mask) if wiring.usable is None else wiring.usable.cpu().t()
    ground, size = pooled(usable)
    image = np.zeros((*ground.shape, 4))
    _paint(image, INK, 0.16 * ground)
    run, lost = pooled(running)[0], pooled(mask & ~running)[0]
    fullest = max(run.max(), lost.max(), 1e-12)
    _paint(image, COLORS[1], np.sqrt(lost / fullest))
    _paint(image, COLORS[0], np.sqrt(run / fullest))
    sources, destinations = mask.shape
    first = layout.nodes - destinations
    height = min(9.0, max(2.6, 7.0 * sources / destinations + 0.9))
    with figure(8.4, height) as (drawn, axes):
        axes.grid(False)
        edges = (first - 0.5, layout.nodes - 0.5, sources - 0.5, -0.5)
        smooth = "antialiased" if min(image.shape[:2]) > 400 else "nearest"
        axes.imshow(image, extent=edges, aspect="auto", interpolation=smooth)
        for border in np.cumsum(layout.blocks)[:-1]:
            if first < border < layout.nodes:
                axes.axvline(border - 0.5, color=INK, linewidth=0.7)
            if 0 < border < sources:
                axes.axhline(border - 0.5, color=INK, linewidth=0.7)
        axes.set_xlabel("to node")
        axes.set_ylabel("from node")
        return _small_png(drawn), size


def _small_png(drawn: Any) -> bytes:
    """The figure as a PNG file of 256 colours: thousands of pixels and lines by themselves compress badly."""
    from PIL import Image  # matplotlib needs it

    drawn.set_dpi(110)
    drawn.canvas.draw()
    picture = Image.fromarray(np.asarray(drawn.canvas.buffer_rgba()))
    buffer = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _paint(image: np.ndarray, color: str, alpha: np.ndarray) -> None:
    """Lay a colour over an RGBA image, [rows, columns, 4], in place."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    under = image[..., 3] * (1 - alpha)
    total = alpha + under
    mixed = rgb * alpha[..., None] + image[..., :3] * under[..., None]
    image[..., :3] = np.where(total[..., None] > 0, mixed / np.maximum(total, 1e-12)[..., None], 0)
    image[..., 3] = total


def places(layout: GraphLayout) -> np.ndarray:
    """Where each node is drawn, [nodes, 2]: blocks as columns, left to right; on a circle where all send to all."""
    if layout.run == "blocks":
        found = []
        for index, n in enumerate(layout.blocks):
            heights = 1 - (np.arange(n) + 0.5) / n
            found.append(np.stack([np.full(n, float(index)), heights], axis=1))
        where = np.concatenate(found)
        if layout.outputs < layout.blocks[-1]:  # the others of their block may send to them
            where[-layout.outputs :, 0] += 0.5
        return where
    angles = math.pi / 2 - 2 * math.pi * np.arange(layout.nodes) / layout.nodes
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@torch.no_grad()
def graph(wiring: Wiring, layout: GraphLayout, alive: Tensor, most: int = MOST_EDGES) -> tuple[bytes, int]:
    """The nodes and the strongest edges, at most `most`; and how many edges are drawn.

    alive: bool [nodes]. Edges: blue for positive weights, orange for negative, the stronger the larger the weight.
    Nodes: filled with what they hold from outside, are read out, or neither; hollow: dead.
    """
    from matplotlib.collections import LineCollection

    rows, columns, values = (t.cpu() for t in strongest(wiring.effective_weight(), wiring.running(), most))
    where = places(layout)
    first = layout.nodes - wiring.n_destinations
    lines = np.stack([where[columns.numpy()], where[rows.numpy() + first]], axis=1)
    strength = values.abs().double().numpy()
    alpha = 0.08 + 0.5 * strength / max(strength.max(initial=0.0), 1e-12)
    signs = np.where(values.numpy() > 0, 0, 1)
    circle = layout.run != "blocks"
    with figure(8.4, 8.4 if circle else 5.2) as (drawn, axes):
        from matplotlib.colors import to_rgba

        colors = [to_rgba(COLORS[sign], a) for sign, a in zip(signs, alpha, strict=True)]
        axes.add_collection(LineCollection(list(lines), colors=colors, linewidths=0.7))
        _nodes(axes, where, layout, alive.cpu().numpy())
        axes.axis("off")
        axes.set_aspect("equal" if circle else "auto")
        axes.margins(0.03)
        count = int(wiring.running().count_nonzero())
        axes.set_title(f"{len(strength):,} of {count:,} edges{', the strongest' if count > len(strength) else ''}")
        drawn.legend(loc="outside lower center", ncols=4, markerscale=max(1.0, 4 / _size(layout) ** 0.5))
        return _small_png(drawn), len(strength)


def _size(layout: GraphLayout) -> float:
    """Of a node, in square points."""
    return float(np.clip(3000 / layout.nodes, 2, 36))


def _nodes(axes: Any, where: np.ndarray, layout: GraphLayout, alive: np.ndarray) -> None:
    size = _size(layout)
    index = np.arange(layout.nodes)
    inputs, outputs = index < layout.inputs, index >= layout.nodes - layout.outputs
    kinds = (
        ("inputs", inputs & alive, COLORS[2]),
        ("outputs", outputs & ~inputs & alive, COLORS[3]),
        ("others", ~inputs & ~outputs & alive, INK),
    )
    for label, those, shade in kinds:
        if those.any():
            axes.scatter(*where[those].T, s=size, color=shade, label=label, zorder=3, linewidths=0)
    if not alive.all():
        axes.scatter(
            *where[~alive].T, s=size, facecolors="none", edgecolors=INK, linewidths=0.5, label="dead", zorder=3
        )


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
