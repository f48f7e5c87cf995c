"""Redrawing unrevealed weights (IteRand, arXiv 2106.09269), and the weights that some redraws left behind."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.random import REDRAW, _words, generate
from tests.reference.topk import pack_mask, selection_mask, unpack_mask


def redraw_limit(rate: float) -> int:
    """A word below it picks its element: the rate in units of 2^-32."""
    return round(rate * 2**32)


def picked(n: int, rate: float, *, seed: int, layer: int = 0, redraw: int) -> Tensor:
    """Return bool [n]: which elements redraw number `redraw` picks, revealed or not."""
    return _words(n, seed, layer, redraw, REDRAW) < redraw_limit(rate)


def rerandomize(
    weight: Tensor,
    scores: Tensor,
    selection: Tensor,
    kind: str,
    scale: float,
    *,
    seed: int,
    layer: int,
    redraw: int,
    rate: float = 1.0,
    by: str = "value",
    decay: float | None = None,
    mix: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One layer: (weight after the redraw, bool mask of what was replaced). A uint8 weight is a plane of signs."""
    n = scores.numel()
    unrevealed = ~selection_mask(scores, selection, by)
    if decay is None and kind == "constant":
        return weight.clone(), torch.zeros_like(unrevealed)
    draws = {"seed": seed, "layer": layer, "redraw": redraw}
    replaced = unrevealed & picked(n, rate, **draws).view(scores.shape)
    drawn = generate(kind, scale, n, **draws).view(scores.shape)
    if weight.dtype is torch.uint8:
        negative = unpack_mask(weight, tuple(scores.shape))
        return pack_mask(torch.where(replaced, drawn < 0, negative)), replaced
    if decay is not None:
        drawn = torch.tensor(decay, dtype=torch.float32) * weight + torch.tensor(mix, dtype=torch.float32) * drawn
    return torch.where(replaced, drawn, weight), replaced


def redrawn_weight(redraws: Tensor, kind: str, scale: float, *, seed: int, layer: int = 0) -> Tensor:
    """Return float32 of the redraws' shape: element i of draw number redraws[i]."""
    flat = redraws.contiguous().flatten()
    out = torch.empty(flat.numel(), dtype=torch.float32)
    for number in flat.unique().tolist():
        drawn = generate(kind, scale, flat.numel(), seed=seed, layer=layer, redraw=number)
        out = torch.where(flat == number, drawn, out)
    return out.view(redraws.shape)
