"""The effective weight and its straight-through backward, by equation.

Edge-popup eq. 3 to 5 (arXiv 1911.13299); Zhou et al. 2019; Gem-Miner (arXiv 2202.12002).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.random import bernoulli_logits, bernoulli_units
from tests.reference.topk import selection_mask, unpack_mask


def rule_mask(
    scores: Tensor | None,
    shape: torch.Size,
    rule: str,
    *,
    selection: Tensor | None = None,
    bits: Tensor | None = None,
    step: int = 0,
    seed: int = 0,
    layer: int = 0,
) -> Tensor:
    """Bool mask of `shape`; rule: a kind of hiddennet.ops.Mask. "rounded" with a selection is by threshold, else drawn.

    bits: the packed mask of "bits", the packed flags of "rounded" and "scored".
    """
    if rule in ("magnitude", "value"):
        return selection_mask(scores, selection, rule)
    if rule in ("bits", "scored"):
        return unpack_mask(bits, tuple(shape))
    if rule == "rounded":
        flags = unpack_mask(bits, tuple(shape))
        if selection is not None:
            return flags & selection_mask(scores, selection, "value")
        units = bernoulli_units(shape.numel(), seed=seed, layer=layer, step=step)
        return flags & (scores.detach() > units.view(shape))
    if rule == "sampled":
        logits = bernoulli_logits(shape.numel(), seed=seed, layer=layer, step=step)
        return scores.detach() > logits.view(shape)
    return torch.ones(shape, dtype=torch.bool)


def masked_weight(weight: Tensor, mask: Tensor, scores: Tensor | None, rule: str) -> Tensor:
    """weight where revealed, +0 elsewhere; "expectation": weight * sigmoid(score); "scored": weight * score there."""
    if rule == "expectation":
        return weight * torch.sigmoid(scores)
    if rule == "scored":
        weight = weight * scores
    return torch.where(mask, weight, torch.zeros_like(weight))


def masked_weight_backward(
    grad: Tensor, weight: Tensor, mask: Tensor, scores: Tensor | None, rule: str, flags: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(dL/dscore, dL/dweight) for dL/d(effective weight) = grad: straight-through in scores, masked in the weight.

    flags: bool, of "rounded" and "scored": no gradient reaches a score whose flag is off.
    """
    if rule in ("rounded", "scored"):
        nothing = torch.zeros_like(grad)
        through = grad * scores if rule == "scored" else grad
        return torch.where(flags, grad * weight, nothing), torch.where(mask, through, nothing)
    if rule in ("sampled", "expectation"):
        p = torch.sigmoid(scores)
        surrogate = p * (1 - p)
    elif rule == "magnitude":
        surrogate = torch.sign(scores)
    else:
        surrogate = torch.ones_like(grad)
    factor = torch.sigmoid(scores) if rule == "expectation" else mask.to(grad.dtype)
    return grad * weight * surrogate, grad * factor
