"""Which edges of a wiring are kept, how many, and which of them learn: the largest of a graph or of each destination,
random or given ones. Wortsman et al. 2019."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiddennet import ops
from hiddennet.nn.rule import Rule
from hiddennet.nn.rules import kept_count
from hiddennet.ops.generate_weight import fill
from hiddennet.ops.inits import InitScale

if TYPE_CHECKING:
    from torch import nn


Prefixes = tuple[tuple[int, int, int], ...]


def ranked(weight: Tensor, usable: Tensor | None) -> tuple[Tensor, str]:
    """What the top edges are chosen by, and how it is ordered: the weights' magnitudes, unusable edges below all."""
    weight = weight.detach()
    if usable is None:
        return weight, "magnitude"
    return torch.where(usable, weight.abs(), -1.0), "value"


def only(mask: Tensor, values: Tensor) -> Tensor:
    """The values where `mask` is, +0 elsewhere."""
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def largest(weight: Tensor, k: int, usable: Tensor | None) -> Tensor:
    """Exactly the k largest magnitudes among the usable: bool of the weight's shape; of equal ones the lower index is
    pruned first.

    float64 is ranked as it is (float32 would make ties) by a stable sort, any other type by the selection kernels.
    """
    return largest_from(weight, k, usable, None)[0]


def largest_from(weight: Tensor, k: int, usable: Tensor | None, hint: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """`largest`, and where its threshold was: a hint that the next selection, of weights like these, starts from."""
    scores, by = ranked(weight, usable)
    if scores.dtype != torch.float64:
        scores = scores.float().contiguous()
        found = ops.topk_select([scores], [k], by=by, hint=hint)
        return ops.rule_mask(scores, ops.Mask.selected(found[0], by), scores.shape), found
    values = scores.abs() if by == "magnitude" else scores
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[values.flatten().sort(stable=True).indices[: scores.numel() - k]] = False
    return mask.view(scores.shape), None


def prefixes(usable: Tensor) -> Prefixes | None:
    """Runs of rows whose usable edges are those from the first sources, as (first row, last + 1, sources); None where
    `usable`, bool [n_destinations, n_sources], has others, too, or changes more than 64 times from row to row."""
    usable = usable.bool().cpu()
    counts = usable.sum(dim=1)
    if not torch.equal(usable, torch.arange(usable.shape[1], device="cpu") < counts[:, None]):
        return None
    widths, lengths = counts.unique_consecutive(return_counts=True)
    if len(widths) > 64:
        return None
    stops = lengths.cumsum(0)
    return tuple(zip((stops - lengths).tolist(), stops.tolist(), widths.tolist(), strict=True))


def top_edges(
    weight: Tensor, k: int, usable: Tensor | Prefixes | None, hint: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The effective weight of the k largest magnitudes, and a hint for the next selection; float32.

    usable: as in `largest`, or its `prefixes`, of which nothing else is read.
    """
    if not isinstance(usable, tuple):
        scores, by = ranked(weight, usable)
        source = ops.WeightSource("stored", weight.shape, stored=weight.contiguous())
        return ops.topk_weight(scores.contiguous(), k, source=source, by=by, hint=hint)
    packed = torch.cat([weight[a:b, :d].reshape(-1) for a, b, d in usable])
    source = ops.WeightSource("stored", packed.shape, stored=packed)
    values, hint = ops.topk_weight(packed, k, source=source, by="magnitude", hint=hint)
    out = torch.zeros(weight.shape, dtype=weight.dtype, device=weight.device)
    for (a, b, d), part in zip(usable, values.split([(b - a) * d for a, b, d in usable]), strict=True):
        out[a:b, :d] = part.view(b - a, d)
    return out, hint


def largest_of_each(weight: Tensor, k: int, usable: Tensor | None) -> Tensor:
    """The k largest magnitudes of each row: bool of the weight's shape; all usable ones of a row that has fewer."""
    scores, _ = ranked(weight, usable)
    values = scores.abs() if usable is None else scores
    order = values.sort(dim=1, stable=True).indices
    mask = torch.ones_like(values, dtype=torch.bool).scatter_(1, order[:, : values.shape[1] - k], False)
    return mask if usable is None else mask & usable


def random_edges(shape: tuple[int, int], k: int, usable: Tensor | None, seed: int, layer: int = 0) -> Tensor:
    """k edges, uniform among the usable ones: bool [n_destinations, n_sources], a function of (seed, layer) alone."""
    uniform = fill(torch.empty(shape, device="cpu"), InitScale("uniform", 1.0), seed=seed, layer=layer, redraw=0)
    if usable is not None:
        uniform = torch.where(usable.cpu(), uniform, -2.0)
    return ops.topk_mask(uniform, k, by="value")


def original_random_edges(
    shape: tuple[int, int],
    pruned: int,
    *,
    in_channels: int | None = None,
    out_channels: int | None = None,
    uniform: Tensor | None = None,
) -> Tensor:
    """The original's random graph: bool [n_destinations, n_sources], from torch's generator.

    Args:
        shape: (n_destinations, n_sources).
        pruned: how many of the smallest draws are no edges.
        in_channels, out_channels: input nodes and the width it takes blocks to be of: edges of a block into its own
            and into earlier blocks are forbidden. None: none are. That width is the number of output nodes, whatever
            the blocks really are.
        uniform: draws in [0, 1) of `shape` in place of torch.rand's.

    Forbidden edges are the first to be pruned: with more than `pruned` of them, fewer edges are left than asked for.
    """
    drawn = torch.rand(shape) if uniform is None else uniform.clone()
    if in_channels is not None and out_channels is not None:
        for block, start in enumerate(range(in_channels, shape[1], out_channels), start=1):
            drawn[: block * out_channels, start : start + out_channels] = 0
    order = drawn.flatten().sort(stable=True).indices
    drawn.view(-1)[order[:pruned]] = 0
    return drawn > 0


class _Reveal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, values: Tensor, factor: Tensor | None) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient if ctx.factor is None else gradient * ctx.factor), None, None


def reveal(weight: Tensor, values: Tensor, factor: Tensor | None) -> Tensor:
    """`values`, made from the weight before; their gradient goes to the weight, times `factor` (None: 1)."""
    return _Reveal.apply(weight, values, factor)


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
