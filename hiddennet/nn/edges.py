"""Which edges of a wiring are kept, the largest of a graph or of each destination or random ones; their gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiddennet import ops
from hiddennet.ops.generate_weight import fill
from hiddennet.ops.inits import InitScale

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
