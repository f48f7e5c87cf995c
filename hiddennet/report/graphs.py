"""Pictures of a wiring: its adjacency matrix, and the graph itself."""

import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiddennet.nn.reach import GraphLayout
from hiddennet.nn.wiring import Wiring
from hiddennet.report.paint import COLORS
from hiddennet.report.plots import INK, figure

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
    for label, chosen, shade in kinds:
        if chosen.any():
            axes.scatter(*where[chosen].T, s=size, color=shade, label=label, zorder=3, linewidths=0)
    if not alive.all():
        axes.scatter(
            *where[~alive].T, s=size, facecolors="none", edgecolors=INK, linewidths=0.5, label="dead", zorder=3
        )
