"""masked_conv2d, masked_linear: a layer's product for callers of one's own, whose parts are checked."""

from __future__ import annotations

from torch import Tensor

from hiddennet.ops.checked_weight import checked_weight
from hiddennet.ops.mask import Mask
from hiddennet.ops.masked_conv import conv2d, linear
from hiddennet.ops.source import WeightSource


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
