"""Colours and dashes of curves: a method has one colour in every plot, its curves lighter and darker ones of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COLORS = ("#4c8dd6", "#e0803a", "#3fa45f", "#c9567a", "#9273c9", "#a88a2d", "#2fa5a5", "#8a8f98")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)))


def color(index: int) -> str:
    """A colour for each of eight; then from the first again."""
    return COLORS[index % len(COLORS)]


@dataclass(frozen=True)
class Paint:
    """The colour and the dashes of a curve."""

    color: Any
    dash: Any


def paints(methods: Sequence[str]) -> list[Paint]:
    """One for each curve, whose methods are given: a method's colour in every plot, lighter and darker for its curves.

    Methods have their colours in alphabetical order.
    """
    from matplotlib.colors import to_rgb

    known, found, seen = sorted(set(methods)), [], Counter()
    for method in methods:
        own, number, count = to_rgb(color(known.index(method))), seen[method], methods.count(method)
        seen[method] += 1
        share = 0.0 if count == 1 else 0.6 * number / (count - 1) - 0.3  # below 0 darker, above lighter
        shade = tuple(c * (1 + share) if share < 0 else c + (1 - c) * share for c in own)
        found.append(Paint(shade, DASHES[number % len(DASHES)]))
    return found
