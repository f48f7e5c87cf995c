"""masked_weight: rule(scores) x source -> the effective weight in one pass. Edge-popup eq. 3, backward eq. 5.

The backward is straight-through: every score gets dL/dweight_eff x weight x (sign of the score, where the rule ranks
magnitudes; p (1 - p), where it is sampled), revealed or not. Neither mask nor product is kept: both are made again from
the scores, the seed and 16 bytes of selection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import (
    ORDERS,
    check_choice,
    check_k,
    check_same_device,
    dense,
    in_layout,
    is_channels_last,
)
from hiddennet.ops.rule import Rule
from hiddennet.ops.source import WeightSource
from hiddennet.ops.topk_mask import _check_scores, _topk_select

_masked_weight = torch.ops.hiddennet.masked_weight.default
_masked_weight_backward = torch.ops.hiddennet.masked_weight_backward.default
_topk_weight = torch.ops.hiddennet.topk_weight.default

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


@torch.library.register_fake("hiddennet::masked_weight")
def _(
    scores, selection, shape, channels_last, rule, bits, step, rule_seed,
    source, stored, plane, scale, seed, layer, redraw, dtype,
) -> Tensor:  # fmt: skip
    kind = {code: name for name, code in DTYPE_CODES.items()}[dtype]
    return torch.empty(shape, dtype=kind, device=selection.device, memory_format=_format(channels_last))


@torch.library.register_fake("hiddennet::topk_weight")
def _(
    scores, k, by_value, hint, source, stored, plane, scale, seed, layer, redraw, dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kind = {code: name for name, code in DTYPE_CODES.items()}[dtype]
    return torch.empty_like(scores, dtype=kind), torch.empty((1, 4), dtype=torch.int32, device=scores.device)


@torch.library.register_fake("hiddennet::masked_weight_backward")
def _(
    grad, scores, selection, channels_last, rule, bits, step, rule_seed,
    source, stored, plane, scale, seed, layer, redraw, want_scores, want_weight,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    def like(wanted: bool) -> Tensor:
        if not wanted:
            return torch.empty(0, dtype=torch.float32, device=grad.device)
        layout = _format(channels_last)
        return torch.empty(grad.shape, dtype=torch.float32, device=grad.device, memory_format=layout)

    return like(want_scores), like(want_weight)


class _MaskedWeight(torch.autograd.Function):
    """Saves the scores, the stored weights and a few bytes of rule; all of them exist anyway."""

    @staticmethod
    def forward(ctx, scores, stored, selection, bits, step, plane, shape, rule, source, dtype):
        channels_last = layout_of(scores, stored)
        rule_code, rule_seed = rule
        source_code, scale, seed, layer, redraw, _ = source
        ctx.save_for_backward(scores, stored, selection, bits, step, plane)
        ctx.channels_last, ctx.rule, ctx.source = channels_last, rule, source
        return _masked_weight(
            scores, selection, shape, channels_last, rule_code, bits, step, rule_seed,
            source_code, stored, plane, scale, seed, layer, redraw, dtype,
        )  # fmt: skip

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        scores, stored, selection, bits, step, plane = ctx.saved_tensors
        rule_code, rule_seed = ctx.rule
        source_code, scale, seed, layer, redraw, through = ctx.source
        want_scores, want_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        masked = want_weight and not through
        grad = in_layout(grad, ctx.channels_last)
        grad_scores, grad_weight = None, None
        if want_scores or masked:
            grad_scores, grad_weight = _masked_weight_backward(
                grad, scores, selection, ctx.channels_last, rule_code, bits, step, rule_seed,
                source_code, stored, plane, scale, seed, layer, redraw, want_scores, masked,
            )  # fmt: skip
        if want_weight and through:
            grad_weight = grad.to(torch.float32)
        return (
            grad_scores if want_scores else None,
            grad_weight if want_weight else None,
            *(None,) * 8,
        )


def layout_of(scores: Tensor | None, stored: Tensor | None) -> bool:
    """Whether the layer's memory is channels_last: as its scores, or without scores as its stored weights."""
    first = scores if scores is not None else stored
    return first is not None and is_channels_last(first)


def in_one_layout(scores: Tensor | None, stored: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Both dense, the stored weights in the layout of the scores."""
    if scores is not None:
        scores = dense(scores)
    if stored is not None:
        stored = dense(stored) if scores is None else in_layout(stored, is_channels_last(scores))
    return scores, stored


def effective_weight(scores: Tensor | None, rule: Rule, source: WeightSource, dtype: torch.dtype) -> Tensor:
    """masked_weight without the checks: for layers, whose parts agree by construction."""
    scores, stored = in_one_layout(scores, source.stored)
    scores = scores if rule.reads_scores else None
    rule_code, bits, step, rule_seed = rule.arguments()
    source_code, _, plane, scale, seed, layer, redraw = source.arguments()
    learns = any(t is not None and t.requires_grad for t in (scores, stored))
    if not (learns and torch.is_grad_enabled()):  # evaluation: no need to pass through autograd
        return _masked_weight(
            scores, rule.selection, list(source.shape), layout_of(scores, stored), rule_code, bits, step, rule_seed,
            source_code, stored, plane, scale, seed, layer, redraw, DTYPE_CODES[dtype],
        )  # fmt: skip
    return _MaskedWeight.apply(
        scores,
        stored,
        rule.selection,
        bits,
        step,
        plane,
        list(source.shape),
        (rule_code, rule_seed),
        (source_code, scale, seed, layer, redraw, source.through),
        DTYPE_CODES[dtype],
    )


def _check_parts(op: str, scores: Tensor | None, source: WeightSource) -> Tensor:
    """Scores that fit the source: its shape, its device."""
    s = _check_scores(op, scores)
    if s.shape != source.shape:
        raise ValueError(f"{op}: expected scores of the weight's shape {tuple(source.shape)}, got {tuple(s.shape)}")
    for name, part in (("the source's weight", source.stored), ("the source's signs", source.plane)):
        if part is not None:
            check_same_device(op, "scores", s, name, part)
    return s


def _check_source(op: str, source: WeightSource) -> None:
    if not isinstance(source, WeightSource):
        raise TypeError(f"{op}: expected source to be a WeightSource, got {type(source).__name__}")


def resolve_rule(op: str, scores: Tensor | None, rule: int | Rule, by: str, source: WeightSource) -> Rule:
    """Check scores, rule and source against each other; an int k becomes the selection of the k highest scores."""
    _check_source(op, source)
    needs_scores = not isinstance(rule, Rule) or rule.reads_scores
    if needs_scores:
        s = _check_parts(op, scores, source)
        if isinstance(rule, Rule):
            check_same_device(op, "scores", s, "the rule's selection", rule.selection)
    if isinstance(rule, Rule):
        return rule
    check_k(op, rule, s.numel())
    check_choice(op, "by", by, ORDERS)
    row = _topk_select([dense(s.detach())], [rule], by == "value", False, None)[0]
    return Rule.selected(row, by)


def topk_weight(
    scores: Tensor,
    k: int,
    *,
    source: WeightSource,
    by: str = "magnitude",
    hint: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Select the k highest scores of one layer and write its effective weight, in one call and without a gradient.

    Equivalent to `topk_select([scores], [k], by=by, hint=hint)` and `masked_weight` with its row: for evaluation and
    export of single layers. Networks in training select for all layers at once.

    Args:
        scores, k, source, by, dtype: as in masked_weight.
        hint: the selection of an earlier call, int32 [1, 4]: the search starts at its threshold (warm).

    Returns:
        The effective weight in the memory format of the scores, and the selection, int32 [1, 4].

    Raises:
        TypeError, ValueError: as in masked_weight.
    """
    op = "topk_weight"
    _check_source(op, source)
    s = _check_parts(op, scores, source)
    check_k(op, k, s.numel())
    check_choice(op, "by", by, ORDERS)
    if dtype not in DTYPE_CODES:
        raise TypeError(f"{op}: expected dtype float32, bfloat16 or float16, got {dtype}")
    code, stored, plane, scale, seed, layer, redraw = source.arguments()
    s, stored = in_one_layout(s.detach(), None if stored is None else stored.detach())
    return _topk_weight(s, k, by == "value", hint, code, stored, plane, scale, seed, layer, redraw, DTYPE_CODES[dtype])


def masked_weight(
    scores: Tensor | None,
    k: int | Rule,
    *,
    source: WeightSource,
    by: str = "magnitude",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the effective weight: the source's weights where the rule reveals them, +0 elsewhere.

    Equivalent to `source.weight() * topk_mask(scores, k, by=by)`, with a straight-through backward to the scores and a
    masked one to stored weights (of every weight where the source says `through`).

    Args:
        scores: float32, the weight's shape; None for rules that read none (all, packed).
        k: how many are revealed, or a Rule.
        source: see WeightSource.
        by: how an int k ranks: "magnitude" or "value".
        dtype: of the result: float32, bfloat16 or float16.

    Returns:
        A tensor of the weight's shape, in the memory format of the scores (or of the stored weights without scores).

    Raises:
        TypeError, ValueError: dtypes, shapes, devices or k that do not fit.
    """
    op = "masked_weight"
    if dtype not in DTYPE_CODES:
        raise TypeError(f"{op}: expected dtype float32, bfloat16 or float16, got {dtype}")
    rule = resolve_rule(op, scores, k, by, source)
    return effective_weight(scores, rule, source, dtype)
