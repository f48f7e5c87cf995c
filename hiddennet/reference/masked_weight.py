"""The effective weight and its straight-through backward, by equation (edge-popup eq. 3 to 5; Zhou et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from hiddennet.reference.random import bernoulli_logits
from hiddennet.reference.topk import selection_mask, unpack_mask


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
    """Bool mask of `shape`; rule: "all", "magnitude", "value", "bits", "sampled" or "expectation"."""
    if rule in ("magnitude", "value"):
        return selection_mask(scores, selection, rule)
    if rule == "bits":
        return unpack_mask(bits, tuple(shape))
    if rule == "sampled":
        logits = bernoulli_logits(shape.numel(), seed=seed, layer=layer, step=step)
        return scores.detach() > logits.view(shape)
    return torch.ones(shape, dtype=torch.bool)


def masked_weight(weight: Tensor, mask: Tensor, scores: Tensor | None, rule: str) -> Tensor:
    """weight where revealed, +0 elsewhere; by expectation: weight * sigmoid(score). float32."""
    if rule == "expectation":
        return weight * torch.sigmoid(scores)
    return torch.where(mask, weight, torch.zeros_like(weight))


def masked_weight_backward(
    grad: Tensor, weight: Tensor, mask: Tensor, scores: Tensor | None, rule: str
) -> tuple[Tensor, Tensor]:
    """(dL/dscore, dL/dweight) for dL/d(effective weight) = grad: straight-through in scores, masked in the weight."""
    if rule in ("sampled", "expectation"):
        p = torch.sigmoid(scores)
        surrogate = p * (1 - p)
    elif rule == "magnitude":
        surrogate = torch.sign(scores)
    else:
        surrogate = torch.ones_like(grad)
    factor = torch.sigmoid(scores) if rule == "expectation" else mask.to(grad.dtype)
    return grad * weight * surrogate, grad * factor
