"""masked_weight: mask x source -> the effective weight in one pass. Edge-popup eq. 3, backward eq. 5.

The backward is straight-through: every score gets dL/dweight_eff x weight x (sign of the score, where magnitudes are
ranked; p (1 - p), where it is sampled), kept or not. Neither mask nor product is saved: both are made again from the
scores, the seed and 16 bytes of selection.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
from hiddennet.ops.fakes import register_fake
from hiddennet.ops.inits import KINDS
from hiddennet.ops.mask import CODES, SCORELESS, Mask
from hiddennet.ops.source import WeightSource
from hiddennet.ops.topk_mask import _check_scores, _topk_select

_masked_weight = torch.ops.hiddennet.masked_weight.default
_masked_weight_backward = torch.ops.hiddennet.masked_weight_backward.default
_topk_weight = torch.ops.hiddennet.topk_weight.default

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


class MaskedWeight(NamedTuple):
    """A layer's weight as the ops take it: scores, mask and source in one object, their arguments in schema order.

    The last two are of the backward alone: `order`, the code of the selection whose straight-through derivative the
    scores of a packed mask take (None: the mask's own); `through`: stored weights get the gradient of pruned ones too.
    """

    scores: Tensor | None
    selection: Tensor
    shape: list[int]
    channels_last: bool
    mask: int
    bits: Tensor | None
    step: Tensor | None
    mask_seed: int
    source: int
    stored: Tensor | None
    plane: Tensor | None
    scale: float
    seed: int
    layer: int
    redraw: int
    order: int | None = None
    through: bool = False

    @classmethod
    def of(cls, scores: Tensor | None, mask: Mask, source: WeightSource) -> MaskedWeight:
        """Parts that fit, which is not checked; all dense, in the layout of the scores, or else of stored weights."""
        stored = source.stored
        reads = mask.order is not None or mask.kind not in SCORELESS
        scores = dense(scores) if scores is not None and reads else None
        if stored is not None:
            stored = dense(stored) if scores is None else in_layout(stored, is_channels_last(scores))
        first = stored if scores is None else scores
        channels_last = first is not None and is_channels_last(first)
        return cls(
            scores,
            mask.selection,
            list(source.shape),
            channels_last,
            CODES[mask.kind],
            mask.bits,
            mask.step,
            mask.seed,
            KINDS.index(source.kind),
            stored,
            source.plane,
            source.scale,
            source.seed,
            source.layer,
            source.redraw,
            None if mask.order is None else CODES[mask.order],
            source.through,
        )

    def write(self, dtype: torch.dtype) -> Tensor:
        """The effective weight, without a gradient."""
        return _masked_weight(*self[:N_ARGUMENTS], DTYPE_CODES[dtype])

    def save(self, ctx: Any, *others: Tensor | None) -> None:
        """Keep `others` and these parts, all of which exist anyway, in an autograd function's context."""
        ctx.save_for_backward(*others, self.scores, self.selection, self.bits, self.step, self.stored, self.plane)
        ctx.numbers = (self.shape, self.channels_last, self.mask, self.mask_seed, self.source, *self[11:])

    @classmethod
    def saved(cls, ctx: Any) -> tuple[list[Tensor | None], MaskedWeight]:
        """What save() kept."""
        *others, scores, selection, bits, step, stored, plane = ctx.saved_tensors
        shape, channels_last, mask, seed, source, *rest = ctx.numbers
        weight = cls(scores, selection, shape, channels_last, mask, bits, step, seed, source, stored, plane, *rest)
        return others, weight

    def gradients(self, grad: Tensor, want_scores: bool, want_stored: bool) -> tuple[Tensor | None, Tensor | None]:
        """(dL/dscores, dL/dstored), each where it is wanted, from that of the effective weight."""
        masked = want_stored and not self.through
        grad = in_layout(grad, self.channels_last)
        to_scores = to_stored = None
        scores, selection, _, channels_last, mask, *others = self[:N_ARGUMENTS]
        own = want_scores and self.order is None
        if own or masked:
            product = _masked_weight_backward(grad, scores, selection, channels_last, mask, *others, own, masked)
            to_scores, to_stored = product[0] if own else None, product[1] if masked else None
        if want_scores and not own:
            to_scores = _masked_weight_backward(
                grad, scores, selection, channels_last, self.order, *others, True, False
            )[0]
        if want_stored and self.through:
            to_stored = grad.to(torch.float32)
        return to_scores, to_stored


N_PARTS = len(MaskedWeight._fields)
N_ARGUMENTS = N_PARTS - 2  # of the schemas


def part_gradients(to_scores: Tensor | None, to_stored: Tensor | None) -> list[Tensor | None]:
    """What an autograd function returns for a MaskedWeight's parts."""
    found: list[Tensor | None] = [None] * N_PARTS
    found[0], found[9] = to_scores, to_stored
    return found


@register_fake("masked_weight")
def _(*arguments) -> Tensor:
    *parts, dtype = arguments
    weight = MaskedWeight(*parts)
    device, layout = weight.selection.device, _format(weight.channels_last)
    return torch.empty(weight.shape, dtype=_DTYPES[dtype], device=device, memory_format=layout)


@register_fake("topk_weight")
def _(scores, *others) -> tuple[Tensor, Tensor]:
    row = torch.empty((1, 4), dtype=torch.int32, device=scores.device)
    return torch.empty_like(scores, dtype=_DTYPES[others[-1]]), row


@register_fake("masked_weight_backward")
def _(grad, scores, selection, channels_last, *others) -> tuple[Tensor, Tensor]:
    def like(wanted: bool) -> Tensor:
        shape = grad.shape if wanted else 0
        layout = _format(wanted and channels_last)
        return torch.empty(shape, dtype=torch.float32, device=grad.device, memory_format=layout)

    return like(others[-2]), like(others[-1])


class _MaskedWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dtype: torch.dtype, *parts):
        MaskedWeight(*parts).save(ctx)
        return _masked_weight(*parts[:N_ARGUMENTS], DTYPE_CODES[dtype])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        _, weight = MaskedWeight.saved(ctx)
        return None, *part_gradients(*weight.gradients(grad, ctx.needs_input_grad[1], ctx.needs_input_grad[10]))


def effective_weight(weight: MaskedWeight | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """masked_weight without the checks: for layers, whose parts agree by construction. A weight that is made stays."""
    if isinstance(weight, Tensor):
        return weight
    scores, stored = weight.scores, weight.stored
    learns = (scores is not None and scores.requires_grad) or (stored is not None and stored.requires_grad)
    return _MaskedWeight.apply(dtype, *weight) if learns and torch.is_grad_enabled() else weight.write(dtype)


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


def checked_weight(op: str, scores: Tensor | None, mask: int | Mask, by: str, source: WeightSource) -> MaskedWeight:
    """The parts, checked against each other; an int k becomes the selection of the k highest scores."""
    _check_source(op, source)
    if not isinstance(mask, Mask):
        s = _check_parts(op, scores, source)
        check_k(op, mask, s.numel())
        check_choice(op, "by", by, ORDERS)
        mask = Mask.selected(_topk_select([dense(s.detach())], [mask], by == "value", False, None)[0], by)
    elif mask.reads_scores:
        s = _check_parts(op, scores, source)
        check_same_device(op, "scores", s, "the mask's selection", mask.selection)
    return MaskedWeight.of(scores, mask, source)


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
    code, stored, *drawn = source.arguments()
    s = dense(s.detach())
    stored = None if stored is None else in_layout(stored.detach(), is_channels_last(s))
    return _topk_weight(s, k, by == "value", hint, code, stored, *drawn, DTYPE_CODES[dtype])


def masked_weight(
    scores: Tensor | None,
    k: int | Mask,
    *,
    source: WeightSource,
    by: str = "magnitude",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the effective weight: the source's weights where the mask keeps them, +0 elsewhere.

    Equivalent to `source.weight() * topk_mask(scores, k, by=by)`, with a straight-through backward to the scores and a
    masked one to stored weights (of every weight where the source says `through`).

    Args:
        scores: float32, the weight's shape; None for masks that read none (all, packed).
        k: how many are kept, or a Mask.
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
    return effective_weight(checked_weight(op, scores, k, by, source), dtype)
