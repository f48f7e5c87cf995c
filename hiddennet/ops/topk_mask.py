"""topk_mask: exact selection of the k highest scores, of a layer or a whole network. Edge-popup eq. 3.

The ops return a selection, int32[4] a layer: {threshold key, cut, bracket width, cold searches}. From it and the scores
a mask is made whenever one is needed, so no mask is kept between forward and backward (csrc/base/rule.cuh).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import (
    ORDERS,
    check_choice,
    check_k,
    check_same_device,
    check_tensor,
    dense,
    is_channels_last,
)
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.mask import SCORELESS, Mask

_topk_select = torch.ops.hiddennet.topk_select.default
_rule_mask = torch.ops.hiddennet.rule_mask.default


@register_fake("topk_select")
def _(scores, k, by_value, network_wide, hint) -> Tensor:
    return torch.empty((len(scores), 4), dtype=torch.int32, device=scores[0].device)


@register_fake("topk_select_")
def _(scores, k, by_value, network_wide, keep_ties, rows, counts=None) -> None:
    return None


@register_fake("rule_mask")
def _(scores, selection, shape, channels_last, rule, bits, step, rule_seed, layer) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=torch.bool, device=selection.device, memory_format=layout)


def _check_scores(op: str, scores: object) -> Tensor:
    s = check_tensor(op, "scores", scores, dtypes=(torch.float32,))
    if s.numel() == 0:
        raise ValueError(f"{op}: expected at least one score, got an empty tensor of shape {tuple(s.shape)}")
    return s


def topk_select(
    scores: Sequence[Tensor],
    k: Sequence[int],
    *,
    by: str = "magnitude",
    hint: Tensor | None = None,
) -> Tensor:
    """Find the thresholds of many layers in one call: layer l keeps its k[l] highest scores.

    Args:
        scores: float32 tensors of any shapes, on one device; OIHW or channels_last memory.
        k: how many are kept, one a layer; a single entry ranks all layers together (global).
        by: "magnitude" ranks |score|, "value" the signed score.
        hint: an earlier result, int32 [layers, 4]: the search starts at its thresholds (the result is the same).

    Returns:
        int32 [layers, 4]: {threshold key, cut, bracket width, cold searches} (csrc/base/rule.cuh).

    Raises:
        TypeError, ValueError: wrong dtype, empty or too large tensors, k out of range, mixed devices.
    """
    op = "topk_select"
    if isinstance(scores, Tensor) or not scores:
        raise ValueError(f"{op}: expected a non-empty list of tensors, got {type(scores).__name__}")
    checked = [_check_scores(op, s) for s in scores]
    for s in checked[1:]:
        check_same_device(op, "scores", s, "the first layer's", checked[0])
    network_wide = len(k) == 1 and len(checked) > 1
    if not network_wide and len(k) != len(checked):
        raise ValueError(f"{op}: expected one k or one a layer ({len(checked)}), got {len(k)}")
    sizes = [sum(s.numel() for s in checked)] if network_wide else [s.numel() for s in checked]
    for amount, n in zip(k, sizes, strict=True):
        check_k(op, amount, n)
    check_choice(op, "by", by, ORDERS)
    if checked[0].is_cuda and max(sizes) >= 2**32:
        raise ValueError(f"{op}: expected fewer than 2^32 scores in one ranking on a GPU, got {max(sizes)}")
    if hint is not None:
        check_tensor(op, "hint", hint, dtypes=(torch.int32,))
        check_same_device(op, "hint", hint, "the scores", checked[0])
        if hint.shape != (len(checked), 4) or not hint.is_contiguous():
            raise ValueError(
                f"{op}: expected a hint of shape ({len(checked)}, 4), contiguous, as an earlier call returned it, got "
                f"{tuple(hint.shape)}"
            )
    return _topk_select([dense(s.detach()) for s in checked], list(k), by == "value", network_wide, hint)


def rule_mask(scores: Tensor | None, mask: Mask, shape: torch.Size, *, layer: int = 0) -> Tensor:
    """A mask in full: bool of `shape`, in the memory format of the scores (no gradient).

    Args:
        scores: float32 of `shape`, or None for masks that read none (all, bits).
        mask: see hiddennet.ops.Mask.
        layer: the layer's number in the counter of sampled masks.

    Raises:
        TypeError, ValueError: parts of the mask or scores that do not fit the shape.
    """
    op, channels_last = "rule_mask", False
    if not isinstance(mask, Mask):
        raise TypeError(f"{op}: expected mask to be a Mask, got {type(mask).__name__}")
    mask.check(op, torch.Size(shape).numel())
    if scores is None and mask.kind not in SCORELESS:
        raise ValueError(f"{op}: expected scores for a mask of kind {mask.kind!r}, got None")
    if scores is not None:
        check_same_device(
            op, "scores", check_tensor(op, "scores", scores, dtypes=(torch.float32,)), "the mask", mask.selection
        )
        if scores.shape != torch.Size(shape):
            raise ValueError(f"{op}: expected scores of shape {tuple(shape)}, got {tuple(scores.shape)}")
        scores = dense(scores.detach())
        channels_last = is_channels_last(scores)
    return _rule_mask(scores, mask.selection, list(shape), channels_last, *mask.arguments(), layer)


def topk_mask(scores: Tensor, k: int, *, by: str = "value") -> Tensor:
    """Mark exactly the k highest scores of a tensor. Edge-popup eq. 3.

    Among equal scores the lower OIHW index is pruned first, whatever the memory format; -0 equals +0; NaN ranks
    highest, as in torch.sort. k = 0 and k = n are legal. Equivalent to ones, with zeros at the first n - k places of
    `scores.flatten().sort(stable=True)` (of the magnitudes, where by="magnitude").

    Args:
        scores: float32, any shape.
        k: how many are kept, 0 <= k <= n.
        by: "value" or "magnitude".

    Returns:
        bool of the scores' shape and memory format. No gradient: masked_weight has the straight-through one.

    Raises:
        TypeError, ValueError: wrong dtype, empty or too large tensor, k out of range.
    """
    s = _check_scores("topk_mask", scores)
    check_k("topk_mask", k, s.numel())
    check_choice("topk_mask", "by", by, ORDERS)
    row = _topk_select([dense(s.detach())], [k], by == "value", False, None)[0]
    return rule_mask(s, Mask.selected(row, by), s.shape)


def topk_mask_global(scores: Sequence[Tensor], k: int, *, by: str = "value") -> list[Tensor]:
    """Mark exactly the k highest scores over all tensors: one ranking, one threshold, one call.

    Ties are pruned in the order of (tensor, OIHW index). Arguments, results and errors as in topk_mask.
    """
    op = "topk_mask_global"
    if isinstance(scores, Tensor) or not scores:
        raise ValueError(f"{op}: expected a non-empty list of tensors, got {type(scores).__name__}")
    checked = [_check_scores(op, s) for s in scores]
    check_k(op, k, sum(s.numel() for s in checked))
    check_choice(op, "by", by, ORDERS)
    rows = topk_select(checked, [k], by=by)
    return [rule_mask(s, Mask.selected(row, by), s.shape) for s, row in zip(checked, rows, strict=True)]
