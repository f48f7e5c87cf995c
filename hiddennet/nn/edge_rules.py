"""The rules of wirings: which edges of a graph are kept, how many, and which of them learn. Wortsman et al. 2019."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hiddennet.nn.edges import largest_from, largest_of_each, only, top_edges
from hiddennet.nn.rule import Rule
from hiddennet.nn.rules import kept_count

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class EdgeRule(Rule):
    """A rule over a wiring's usable positions.

    Args:
        through: the gradient goes straight through to every usable edge, not to the kept ones alone.
        drops: in training each usable edge that is not kept takes part, too, unless it is dropped (Gomez et al. 2019).
        given: the kept edges may be given to the wiring.
    """

    has_scores = False
    through: bool = False
    drops: bool = False
    given: bool = False

    def budget(self, shape: tuple[int, int], density: float | None, edges: int | None, usable: Tensor | None) -> int:
        """How many edges a wiring of `shape` keeps: of a density n - int((1 - density) n), n = all positions.

        Raises ValueError: neither or both of density and edges, out of range, more than are usable.
        """
        n = math.prod(shape)
        most = n if usable is None else int(usable.count_nonzero())
        if (density is None) == (edges is None):
            raise ValueError(f"Wiring: expected either a density or a number of edges, got {density} and {edges}")
        is_number = isinstance(density, Real) and not isinstance(density, bool)
        if density is not None and not (is_number and 0.0 <= density <= 1.0):
            raise ValueError(f"Wiring: expected a density in [0, 1] (the kept fraction), got {density!r}")
        k = kept_count(n, density) if edges is None else edges
        if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k <= most:
            asked = f"{k!r}" if edges is not None else f"{k} (density {density} of {n} positions)"
            raise ValueError(
                f"Wiring: expected a number of edges in [0, {most}], the usable ones, got {asked}; keep fewer edges"
            )
        return k

    def weight(self, wiring: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The effective weight outside of a dropout's training, and what its gradient is multiplied by (None: 1)."""
        weight, mask = wiring.weight.detach(), self.mask(wiring)
        if self.drops:
            return taking_part(wiring, mask)
        return only(mask, weight), wiring.candidates if self.through else mask


def taking_part(wiring: nn.Module, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of these edges and the factor of its gradient, of a targeted dropout: by magnitude with compat."""
    weight = wiring.weight.detach()
    if wiring.compat:
        return only(edges, weight.abs()), edges * weight.sign()
    return only(edges, weight), edges


class TopEdges(EdgeRule):
    """The k largest |w| of the whole graph."""

    def mask(self, wiring: nn.Module) -> Tensor:
        mask, wiring.hint = largest_from(wiring.weight, wiring.edges, wiring.candidates, wiring.warm)
        return mask

    def weight(self, wiring: nn.Module) -> tuple[Tensor, Tensor | None]:
        weight = wiring.weight.detach()
        if not self.through or weight.dtype != torch.float32:
            return super().weight(wiring)
        values, wiring.hint = top_edges(weight, wiring.edges, wiring.prefixes or wiring.candidates, wiring.warm)
        return values, wiring.candidates


class TopOfEach(EdgeRule):
    """The n_sources x density largest |w| of every destination."""

    def budget(self, shape: tuple[int, int], density: float | None, edges: int | None, usable: Tensor | None) -> int:
        super().budget(shape, density, None if density is not None else edges, None)
        if density is None:
            raise ValueError(f"Wiring: expected a density for so many edges of each destination, got {edges} edges")
        of_each = kept_count(shape[1], density)
        return of_each * shape[0] if usable is None else int(usable.sum(dim=1).clamp(max=of_each).sum())

    def mask(self, wiring: nn.Module) -> Tensor:
        return largest_of_each(wiring.weight, kept_count(wiring.n_sources, wiring.asked), wiring.candidates)


class ChosenEdges(EdgeRule):
    """Edges that are fixed: given, drawn, or the k largest |w| when they are first asked for."""

    def mask(self, wiring: nn.Module) -> Tensor:
        if wiring.chosen is None:
            wiring.chosen = TopEdges().mask(wiring)
        return wiring.chosen.clone()


class AllEdges(EdgeRule):
    """Every usable edge."""

    def budget(self, shape: tuple[int, int], density: Any, edges: Any, usable: Tensor | None) -> int:
        return math.prod(shape) if usable is None else int(usable.count_nonzero())

    def mask(self, wiring: nn.Module) -> Tensor:
        every = torch.ones_like(wiring.weight, dtype=torch.bool)
        return every if wiring.candidates is None else wiring.candidates.clone()

    def weight(self, wiring: nn.Module) -> tuple[Tensor, Tensor | None]:
        weight, usable = wiring.weight.detach(), wiring.candidates
        return (weight if usable is None else only(usable, weight)), usable


RULES: dict[str, EdgeRule] = {
    "dnw": TopEdges(through=True),
    "random": ChosenEdges(given=True),
    "dnw_no_update": TopEdges(),
    "complete": AllEdges(through=True),
    "fine_tune": ChosenEdges(given=True),
    "targeted_dropout": TopEdges(drops=True),
    "regular_targeted_dropout": TopOfEach(drops=True),
}
KINDS = tuple(RULES)
DROPOUTS = tuple(kind for kind, rule in RULES.items() if rule.drops)
WITH_EDGES = tuple(kind for kind, rule in RULES.items() if rule.given)


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
