"""Sanity checks of a found sub-network (Frankle et al. 2020, arXiv 2009.08576; Rare Gems, section 5): does it matter
which weights were kept, and which values they have? Each keeps every layer's density."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import Tensor

from hiddennet import ops

Check = Literal["reinitialize", "shuffle_mask", "shuffle_weights", "invert"]
MEANING = (
    "reinitialize: weights drawn anew (Kaiming normal); shuffle_mask: the mask permuted within each layer; "
    "shuffle_weights: the weights permuted within each layer; invert: the lowest scores kept instead of the highest"
)


def _seed_of(seed: int, check: str) -> int:
    digest = hashlib.blake2b(f"sanity/{check}/{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _draws(shape: torch.Size, seed: int, layer: int) -> Tensor:
    return ops.generate_weight(tuple(shape), "uniform", seed=seed, layer=layer)


@torch.no_grad()
def alter(
    check: Check,
    masks: dict[str, Tensor],
    weights: dict[str, Tensor],
    scores: dict[str, Tensor] | None,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the masks (bool) and weights (float32) of a sub-network after a check, on the CPU, by layer name.

    scores: what the masks were ranked by, the higher the better kept; needed by "invert".

    Raises ValueError for "invert" of a sub-network without scores.
    """
    if check == "invert" and not scores:
        raise ValueError(
            "sanity: expected a sub-network found by scores for invert, got one without; "
            "name a run of a method that learns scores, or use another check"
        )
    drawn = _seed_of(seed, check)
    new_masks, new_weights = dict(masks), dict(weights)
    for number, name in enumerate(masks):
        mask, weight = masks[name].cpu(), weights[name].cpu()
        kept = int(mask.count_nonzero())
        if check == "reinitialize":
            fresh = ops.generate_weight(tuple(weight.shape), "kaiming_normal", seed=drawn, layer=number)
            new_weights[name] = fresh
        elif check == "shuffle_mask":
            new_masks[name] = ops.topk_mask(_draws(weight.shape, drawn, number), kept)
        elif check == "shuffle_weights":
            order = _draws(weight.shape, drawn, number).flatten().argsort(stable=True)
            new_weights[name] = weight.flatten()[order].view(weight.shape)
        else:
            new_masks[name] = ops.topk_mask(-scores[name].cpu().contiguous(), kept)
    return new_masks, new_weights
