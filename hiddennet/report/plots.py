"""The plots: accuracy along an axis, accuracy over the epochs. Readable on light and on dark."""

import io
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hiddennet.report.paint import Paint, color, paints
from hiddennet.report.runs import Line, Run, mean_and_std
from hiddennet.report.sections import Published

COUNTED = {  # what counts per epoch are called, and whether their axis is logarithmic
    "flips": ("flips in the epoch", True),
    "wiring_swaps": ("edges swapped in the epoch", True),
    "wiring_running_edges": ("edges that run", False),
    "wiring_dead_nodes": ("dead nodes", False),
}
INK = "#7d828a"  # read as well on white as on near-black
STYLE = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 11,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
}


@contextmanager
def figure(width: float = 8.4, height: float = 4.8, columns: int = 1) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, an array of them for several columns; drawn into memory, no window."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            f"report: expected matplotlib for the plots, got none ({error}); pip install 'hiddennet[report]'"
        ) from None
    with rc_context(STYLE):
        drawn = Figure(figsize=(width, height), dpi=144, layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn, drawn.subplots(1, columns)


def png(drawn: Any) -> bytes:
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": "hiddennet"})
    return buffer.getvalue()


def _per_cent(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def _legend(drawn: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        longest = max(map(len, labels))
        columns = max(1, min(len(labels), 110 // (longest + 8)))
        drawn.legend(handles, labels, loc="outside lower center", ncols=columns)


def along(lines: Sequence[Line], axis: str, published: Sequence[Published] = ()) -> bytes:
    """Test accuracy along density, width or another key: mean and standard deviation over seeds.

    Filled: as the run ends. Hollow, dotted: before the fine-tuning, where there is one. A dense
    network is a level line beside the densities. Published numbers are crosses.
    """
    with figure() as (drawn, axes):
        painted = paints([line.method for line in lines])
        places = [x for line in lines for x in line.places(axis) if x > 0]
        if len({round(x, 3) for x in places}) == 1:
            _dots(axes, lines, painted)
            axes.set_xlabel(f"{axis} {100 * places[0]:.3g} %" if axis == "density" else f"{axis} {places[0]:g}")
            _finish(drawn, axes)
            return png(drawn)
        for paint, line in zip(painted, lines, strict=True):
            rounds = line.rounds() if axis == "density" else []
            final = rounds or line.points(lambda run: run.record.get("test_top1"))
            level = axis == "density" and line.method == "dense"
            staged = line.points(lambda run: run.before)
            label = f"{line.label}, fine-tuned" if staged else line.label
            if level:
                _level(axes, final, label, paint)
                continue
            _errors(axes, final, paint.color, label, paint.dash)
            if staged:
                _errors(axes, staged, paint.color, f"{line.label}, before", ":", hollow=True)
        if axis == "density":
            _crosses(axes, lines, published)
        if axis in ("density", "width") and places and max(places) / min(places) > 4:
            axes.set_xscale("log")
            _plain_ticks(axes, places, per_cent=axis == "density")
        elif axis == "density":
            _plain_ticks(axes, places, per_cent=True, log=False)
        axes.set_xlabel({"density": "density (kept fraction)", "width": "width"}.get(axis, axis))
        _finish(drawn, axes)
        return png(drawn)


def _finish(drawn: Any, axes: Any) -> None:
    _per_cent(axes)
    axes.set_ylabel("test accuracy, top-1")
    _legend(drawn, axes)


def _dots(axes: Any, lines: Sequence[Line], painted: Sequence[Paint]) -> None:
    """Where all stand at one place: a dot for each run side by side, mean and spread beside them."""
    for number, (line, paint) in enumerate(zip(lines, painted, strict=True)):
        ends = [("", lambda run: run.record.get("test_top1"), 0.0), (", before", lambda run: run.before, -0.3)]
        for word, of, shift in ends:
            values = [value for setting in line.settings for value in setting.values(of)]
            if not values:
                continue
            at, face = number + shift, "none" if word else paint.color
            axes.plot([at] * len(values), values, "o", color=paint.color, markerfacecolor=face, alpha=0.7)
            mean, spread = mean_and_std(values)
            bar = [[spread], [spread]] if spread else None
            label = f"{line.label}{word}"
            axes.errorbar(
                [at + 0.12], [mean], yerr=bar, fmt="_", color=paint.color, markersize=14, capsize=3, label=label
            )
    axes.set_xlim(-0.8, len(lines) - 0.2)
    axes.set_xticks([])


def _errors(
    axes: Any,
    points: Sequence[tuple[float, float, float]],
    shade: Any,
    label: str,
    style: Any,
    hollow: bool = False,
) -> None:
    if not points:
        return
    x, mean, spread = zip(*points, strict=True)
    axes.errorbar(
        x,
        mean,
        yerr=[spread, spread] if any(spread) else None,
        label=label,
        color=shade,
        linestyle=style,
        marker="o",
        markersize=6,
        markerfacecolor="none" if hollow else shade,
        capsize=3,
        elinewidth=1.2,
    )


def _level(axes: Any, points: Sequence[tuple[float, float, float]], label: str, paint: Paint) -> None:
    for number, (_, mean, spread) in enumerate(points):
        axes.axhline(mean, color=paint.color, linestyle="--", label=label if number == 0 else None)
        if spread:
            axes.axhspan(mean - spread, mean + spread, color=paint.color, alpha=0.15, linewidth=0)


def _crosses(axes: Any, lines: Sequence[Line], published: Sequence[Published]) -> None:
    methods = sorted({line.method for line in lines})
    for method in dict.fromkeys(row.method for row in published):
        rows = [row for row in published if row.method == method]
        shade = color(methods.index(method)) if method in methods else INK
        for key, marker, word in (("after", "X", "fine-tuned"), ("before", "x", "before")):
            points = [(row.density, getattr(row, key)) for row in rows if getattr(row, key) is not None]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, marker, color=shade, alpha=0.65, label=f"published: {method}, {word}")


def _plain_ticks(axes: Any, places: Sequence[float], *, per_cent: bool, log: bool = True) -> None:
    """Ticks where the settings stand, as far as there is room for their numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.3g} %" if per_cent else f"{x:g}"))
    if not log:
        return
    chosen: list[float] = []
    room = (math.log(max(places)) - math.log(min(places))) / 9
    for place in sorted(set(places)):
        if not chosen or math.log(place) - math.log(chosen[-1]) >= room:
            chosen.append(place)
    axes.xaxis.set_major_locator(FixedLocator(chosen))
    axes.xaxis.set_minor_locator(NullLocator())


def metric_of(runs: Sequence[Run]) -> str | None:
    """The accuracy that all runs with metrics have there: on test images, else on the validation split."""
    begun = [run for run in runs if run.metrics]
    for name in ("test_top1", "validation_top1"):
        if begun and all(name in run.metrics[0] for run in begun):
            return name
    return None


def over_epochs(lines: Sequence[Line], axis: str, metric: str) -> bytes:
    """A column of metrics.csv after each epoch: mean over seeds, and a band of one standard deviation.

    Runs without the column, and rows without, are left out. Accuracies are shown in per cent, counts that vary much on
    a logarithmic scale.
    """
    accuracy = metric.endswith("_top1")
    called, logarithmic = COUNTED.get(metric, (f"{metric} in the epoch", not accuracy))
    with figure() as (drawn, axes):
        curves = [(line, setting) for line in lines for setting in line.settings]
        painted = paints([line.method for line, _ in curves])
        several = sum(len(line.settings) for line in lines) > len(lines)
        for (line, setting), paint in zip(curves, painted, strict=True):
            label = line.label
            if several and axis != "epoch":
                label += f", {f'density {100 * setting.x:.3g} %' if axis == 'density' else f'{axis} {setting.x:g}'}"
            runs = [run for run in setting.runs if any(metric in row for row in run.metrics)]
            if runs:
                _curve(axes, runs, metric, label, paint)
        if accuracy:
            _per_cent(axes)
        elif logarithmic:
            axes.set_yscale("symlog", linthresh=1)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{metric.removesuffix('_top1')} accuracy, top-1" if accuracy else called)
        _legend(drawn, axes)
        return png(drawn)


def _curve(axes: Any, runs: Sequence[Run], metric: str, label: str, paint: Paint) -> None:
    by_epoch: dict[float, list[float]] = {}
    for run in runs:
        for row in (row for row in run.metrics if metric in row):
            by_epoch.setdefault(row["epoch"], []).append(row[metric])
    epochs = sorted(by_epoch)
    mean, spread = zip(*(mean_and_std(by_epoch[epoch]) for epoch in epochs), strict=True)
    axes.plot(
        epochs, mean, color=paint.color, linestyle=paint.dash, label=label, marker="." if len(epochs) == 1 else ""
    )
    if any(spread):
        _band(axes, epochs, mean, spread, paint.color)
    for stage in (runs[0].record.get("stages") or [])[1:] if runs else ():
        axes.axvline(stage["first_epoch"] - 0.5, color=INK, linewidth=0.8, linestyle=":")


def _band(axes: Any, x: Sequence[float], mean: Sequence[float], spread: Sequence[float], shade: Any) -> None:
    low, high = zip(*((m - s, m + s) for m, s in zip(mean, spread, strict=True)), strict=True)
    axes.fill_between(x, low, high, color=shade, alpha=0.18, linewidth=0)


def connection(rows: Sequence[dict[str, Any]], distance: float) -> bytes:
    """Accuracy and loss from A to B over t, and accuracy over the masks' Hamming distance to A."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    panels = [("t", "test_top1"), ("t", "train_loss")] + ([("distance", "test_top1")] if distance else [])
    names = {"t": "t, from A to B", "distance": "Hamming distance to A", "train_loss": "training loss"}
    with figure(4.4 * len(panels), 4.4, len(panels)) as (drawn, axes):
        for (x, y), panel in zip(panels, axes, strict=True):
            for index, kind in enumerate(kinds):
                ts = sorted({row["t"] for row in rows})
                at = [[row for row in rows if row["kind"] == kind and row["t"] == t] for t in ts]
                places = [statistics.fmean(row[x] for row in group) for group in at]
                mean = [statistics.fmean(row[y] for row in group) for group in at]
                panel.plot(places, mean, color=color(index), label=kind, marker="o", markersize=3.5)
                if len(at[0]) > 1:
                    spread = [statistics.stdev(row[y] for row in group) for group in at]
                    _band(panel, places, mean, spread, color(index))
            if y == "test_top1":
                _per_cent(panel)
            panel.set_xlabel(names[x])
            panel.set_ylabel(names.get(y, "test accuracy, top-1"))
        _legend(drawn, axes[0])
        return png(drawn)
