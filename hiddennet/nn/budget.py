"""What a wiring's arguments may be: kinds of graph, how many edges they keep, how often targeted dropout drops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

from torch import Tensor

from hiddennet.nn.rules import kept_count

KINDS = (
    "dnw",
    "random",
    "dnw_no_update",
    "complete",
    "fine_tune",
    "targeted_dropout",
    "regular_targeted_dropout",
)
WITH_MASK = ("random", "fine_tune")  # kinds that may be given their edges
DROPOUTS = ("targeted_dropout", "regular_targeted_dropout")


def check_counts(owner: str, counts: Mapping[str, int]) -> None:
    """Raises ValueError unless all are whole numbers of at least 1."""
    for name, n in counts.items():
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{owner}: expected {name} to be a whole number of at least 1, got {n!r}")


def check_shape(what: str, mask: Tensor, shape: tuple[int, int]) -> None:
    """Raises ValueError unless `mask` has this shape."""
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(f"Wiring: expected {what} of shape {tuple(shape)}, got {tuple(mask.shape)}")


def edge_budget(
    kind: str, shape: tuple[int, int], density: float | None, edges: int | None, candidates: Tensor | None
) -> int:
    """How many edges a wiring of `shape` keeps: of a density n - int((1 - density) n), n = all positions.

    Raises ValueError: neither or both of density and edges, out of range, more than there are candidates.
    """
    n = math.prod(shape)
    most = n if candidates is None else int(candidates.count_nonzero())
    if kind == "complete":
        return most
    if (density is None) == (edges is None):
        raise ValueError(f"Wiring: expected either a density or a number of edges, got {density} and {edges}")
    is_number = isinstance(density, Real) and not isinstance(density, bool)
    if density is not None and not (is_number and 0.0 <= density <= 1.0):
        raise ValueError(f"Wiring: expected a density in [0, 1] (the kept fraction), got {density!r}")
    if kind == "regular_targeted_dropout":
        if density is None:
            raise ValueError(f"Wiring: expected a density for kind {kind!r}, got a number of edges, {edges}")
        of_each = kept_count(shape[1], density)
        return of_each * shape[0] if candidates is None else int(candidates.sum(dim=1).clamp(max=of_each).sum())
    k = kept_count(n, density) if edges is None else edges
    if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k <= most:
        asked = f"{k!r}" if edges is not None else f"{k} (density {density} of {n} positions)"
        raise ValueError(
            f"Wiring: expected a number of edges in [0, {most}], the usable ones, got {asked}; keep fewer edges"
        )
    return k


def drop_rate(kind: str, drop: float | None, density: float) -> float | None:
    """The probability that a targeted dropout drops with, 1 - density unless given; None for other kinds."""
    if kind not in DROPOUTS:
        if drop is not None:
            raise ValueError(f"Wiring: expected no drop for kind {kind!r}, got {drop}; it is for {DROPOUTS}")
        return None
    drop = 1 - density if drop is None else drop
    if not 0.0 <= drop <= 1.0:
        raise ValueError(f"Wiring: expected drop to be a probability in [0, 1], got {drop}")
    return drop
