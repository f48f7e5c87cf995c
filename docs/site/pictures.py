"""The pictures of docs/ideas.md, from real runs on the digits that come with scikit-learn: half a minute on one core.

python -m docs.site.pictures          writes docs/pictures/*.svg and prints what they show
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import hiddennet as hn
from hiddennet import artifact, config
from hiddennet.registry import register
from hiddennet.train import experiment

FOLDER = Path(__file__).resolve().parents[1] / "pictures"
SAME = ["train.amp=float32", "train.deterministic=true", "train.device=cpu"]  # the same bits again
BLUE, ORANGE, BLACK, PALE = "#2a6fbb", "#d1603d", "#333333", "#ececea"
LAYER, PIECE = "linear.0", 40  # of which the upper left corner is drawn


@register("logger", "watch")
class Watch:
    """A logger that keeps the masks and the accuracy of each epoch."""

    layers: dict[int, dict]
    rows: dict[int, dict]

    def __init__(self, folder, history):
        Watch.layers, Watch.rows = {}, {}

    def before(self, layers):
        self.layers.setdefault(0, layers)

    def network(self, layers, epoch):
        self.layers[epoch] = layers

    def add(self, row, epoch):
        self.rows[epoch] = row

    def close(self): ...


def run(folder: str, *keys: str) -> dict:
    """A run of `digits`; its record."""
    settings = config.load("digits", [f"runs={folder}", "train.loggers=[watch]", *SAME, *keys])
    with contextlib.redirect_stdout(io.StringIO()):
        return experiment.run(settings, fresh=True, bar=False)


class Picture:
    """An SVG that grows: panels of cells beside one another, with a title and a line below each."""

    def __init__(self, said: str):
        self.said, self.parts, self.width, self.height = said, [], 20.0, 0.0

    def panel(self, title: str, words: str, cells: Tensor, colors: dict[int, str], size: float, every: int = 0) -> None:
        """cells: numbers by row and column; those in `colors` are drawn. every: a gap after so many columns."""
        rows, columns = cells.shape
        gap, side = size / 2, f"{size * 0.92:.3g}"

        def left(column: int) -> float:
            return self.width + column * size + (gap * (column // every) if every else 0)

        wide, middle = left(columns) - self.width, self.width + (left(columns) - self.width) / 2
        self._text(middle, 22, "t", title)
        for number, color in colors.items():
            # dashes as wide as they are long: the shortest there is
            path = "".join(
                f"M{left(x):.4g} {36 + (y + 0.5) * size:.4g}h{side}" for y, x in (cells == number).nonzero().tolist()
            )
            self.parts.append(f'<path stroke="{color}" stroke-width="{side}" d="{path}"/>')
        self._text(middle, 36 + rows * size + 20, "s", words)
        self.width += wide + 28
        self.height = max(self.height, 36 + rows * size + 32)

    def _text(self, x: float, y: float, kind: str, text: str) -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{text}</text>')

    def save(self, name: str) -> None:
        size = f'viewBox="0 0 {self.width - 8:g} {self.height:g}" width="{self.width - 8:g}"'
        style = (
            "font:600 14px sans-serif;text-anchor:middle;fill:#222",
            "font:12px sans-serif;text-anchor:middle;fill:#555",
        )
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{self.said}">'
        text = [
            head,
            f"<style>.t{{{style[0]}}}.s{{{style[1]}}}</style>",
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        (FOLDER / name).write_text("\n".join([*text, *self.parts, "</svg>"]) + "\n", encoding="utf-8")


def side_by_side(filters: Tensor, columns: int) -> Tensor:
    """Filters (n, 3, 3) as one sheet, with an empty row and column (9) between them."""
    padded = torch.nn.functional.pad(filters, (0, 1, 0, 1), value=9)
    n, high, wide = padded.shape
    return padded.view(n // columns, columns, high, wide).transpose(1, 2).reshape(-1, columns * wide)[:-1, :-1]


def first_filters(record: dict) -> None:
    """The first layer's filters: the seed's weights, the mask that was found, their product."""
    hidden = artifact.load(record["artifact"])
    layer = hn.hidden_layers(hidden)["convs.0"]
    seed, number = layer.source.seed, layer.source.layer
    weights = hn.ops.generate_weight(layer.weight_shape, layer.source.init, seed=seed, layer=number)
    source, product = (w.detach()[:16, 0].sign().int() for w in (weights, layer.weight))
    mask = hn.masks(hidden)["convs.0"][:16, 0].int()
    picture = Picture("the first layer's filters: random weights, the mask that was found, and their product")
    colors = {1: BLUE, -1: ORANGE, 0: PALE}
    picture.panel("weights of a seed", "blue: +c, orange: -c", side_by_side(source, 4), colors, 16)
    picture.panel("the mask that was found", "black: kept", side_by_side(mask, 4), {1: BLACK, 0: PALE}, 16)
    picture.panel("what the layer computes with", "their product", side_by_side(product, 4), colors, 16)
    picture.save("filters.svg")


def training() -> None:
    """One mask while scores learn; orange: kept now and not at the start."""
    start, last = Watch.layers[0][LAYER]["mask"], max(Watch.layers)
    picture = Picture("a mask while its scores learn")
    for epoch in (0, 1, 4, last):
        mask = Watch.layers[epoch][LAYER]["mask"]
        cells = (mask.int() + (mask & ~start).int())[:PIECE, :PIECE]
        changed = (mask != start).float().mean().item()
        right = f"{Watch.rows[epoch]['validation_top1']:.1%} right, " if epoch else ""
        words = f"{right}{changed:.1%} changed" if epoch else "random scores"
        picture.panel(f"epoch {epoch}" if epoch else "at the start", words, cells, {1: BLACK, 2: ORANGE}, 4.6)
        print("epoch", epoch, words)
    picture.save("training.svg")


def densities(folder: str) -> None:
    """The same layer at four densities, each a run of its own."""
    picture = Picture("masks of four densities")
    for density in (0.5, 0.2, 0.05, 0.01):
        record = run(folder, f"method.density={density}")
        cells = Watch.layers[max(Watch.layers)][LAYER]["mask"].int()[:PIECE, :PIECE]
        words = f"{record['test_top1']:.1%} right, {record['artifact_bytes'] / 1000:.0f} kB"
        picture.panel(f"density {density:.0%}", words, cells, {1: BLACK}, 4.6)
        print("density", density, words)
    picture.save("densities.svg")


def rules(scores: Tensor) -> None:
    """What several rules keep of the same scores."""
    picture = Picture("what several rules keep of the same scores")
    kinds: list[tuple[str, str, Callable]] = [
        ("TopK(0.5)", "the highest of the layer", lambda: hn.TopK(0.5)),
        ("nn.PerChannel(0.5)", "equally many in each row", lambda: hn.nn.PerChannel(0.5)),
        ("nn.Grouped(2, 4)", "two of each four neighbours", lambda: hn.nn.Grouped(2, 4)),
        ("TopK(0.1)", "a tenth of the layer", lambda: hn.TopK(0.1)),
    ]
    for title, words, make in kinds:
        model = hn.hide(torch.nn.Sequential(torch.nn.Linear(*reversed(scores.shape), bias=False)), rule=make())
        with torch.no_grad():
            model[0].scores.copy_(scores)
        cells = hn.masks(model)["0"].int()[:20, :20]
        picture.panel(title, words, cells, {1: BLACK, 0: PALE}, 9, every=4)
    picture.save("rules.svg")


def main() -> int:
    """Draw all of them."""
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        record = run(folder)
        print("digits:", f"{record['test_top1']:.1%} of the test images right")
        first_filters(record)
        training()
        rules(Watch.layers[max(Watch.layers)][LAYER]["scores"])
        densities(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
