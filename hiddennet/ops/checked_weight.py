"""masked_weight, topk_weight, masked_conv2d, masked_linear: for callers of one's own, whose parts are checked.

The effective weight is that of edge-popup, eq. 3.
"""

import torch
from torch import Tensor

from hiddennet.ops.checks import ORDERS, check_choice, check_k, check_same_device, dense, in_layout, is_channels_last
from hiddennet.ops.generate_weight import WeightSource
from hiddennet.ops.mask import Mask
from hiddennet.ops.masked_conv import conv2d, linear
from hiddennet.ops.masked_weight import DTYPE_CODES, MaskedWeight, effective_weight
from hiddennet.ops.topk_mask import _check_scores, _topk_select

_topk_weight = torch.ops.hiddennet.topk_weight.default


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


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def masked_conv2d(
    x: Tensor,
    scores: Tensor | None,
    k: int | Mask,
    *,
    source: WeightSource,
    by: str = "magnitude",
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    plan: str | None = None,
) -> Tensor:
    """Convolve with the effective weight. Equivalent to `F.conv2d(x, masked_weight(scores, k, source=source), ...)`.

    Args:
        x: [N, C, H, W] (or unbatched [C, H, W]); float32, bfloat16 or float16; under autocast its dtype.
        scores, k, source, by: as in masked_weight; the weight is [out, C / groups, KH, KW].
        plan: a name of hiddennet.ops.PLANS, or None for the fastest known.

    Raises:
        TypeError, ValueError: as in masked_weight; a plan that does not serve this input.
    """
    op = "masked_conv2d"
    weight = checked_weight(op, scores, k, by, source)
    if len(source.shape) != 4:
        raise ValueError(f"{op}: expected a weight of 4 dimensions, got shape {tuple(source.shape)}")
    padding = padding if isinstance(padding, str) else _pair(padding)
    return conv2d(x, weight, bias, _pair(stride), padding, _pair(dilation), groups, plan)


def masked_linear(
    x: Tensor,
    scores: Tensor | None,
    k: int | Mask,
    *,
    source: WeightSource,
    by: str = "magnitude",
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply by the effective weight. Equivalent to `F.linear(x, masked_weight(scores, k, source=source), bias)`.

    Args:
        x: [..., in]; float32, bfloat16 or float16; under autocast its dtype.
        scores, k, source, by: as in masked_weight; the weight is [out, in].

    Raises:
        TypeError, ValueError: as in masked_weight.
    """
    op = "masked_linear"
    weight = checked_weight(op, scores, k, by, source)
    if len(source.shape) != 2:
        raise ValueError(f"{op}: expected a weight of 2 dimensions, got shape {tuple(source.shape)}")
    return linear(x, weight, bias)
