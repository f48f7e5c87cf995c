"""scores_between: where the scores of a network lie in an interval, in one reading of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)
from hiddennet.ops.checks import check_tensor

_scores_between = torch.ops.hiddennet.scores_between.default


@torch.library.register_fake("hiddennet::scores_between")
def _(scores, low, high) -> Tensor:
    found = torch.library.get_ctx().new_dynamic_size()
    return torch.empty(found, dtype=torch.int64, device=scores[0].device)


def scores_between(scores: Sequence[Tensor], low: float, high: float) -> list[Tensor]:
    """Return, for each tensor, the flat places where `low <= score <= high`, ascending; NaN is nowhere.

    Equivalent to `[((s >= low) & (s <= high)).flatten().nonzero().flatten() for s in scores]`.

    Args:
        scores: float32, contiguous, on a CPU.
        low, high: rounded to float32.

    Returns:
        int64 tensors.

    Raises:
        TypeError, ValueError: no list, another dtype or device, other strides.
    """
    op = "scores_between"
    if isinstance(scores, Tensor) or not scores:
        raise ValueError(f"{op}: expected a non-empty list of scores")
    for s in scores:
        check_tensor(op, "scores", s, dtypes=(torch.float32,))
        if s.device.type == "cuda" or not s.is_contiguous():
            raise ValueError(f"{op}: expected contiguous scores on a CPU, got strides {s.stride()} on {s.device}")
    places = _scores_between([s.detach() for s in scores], float(low), float(high))
    ends = torch.tensor([s.numel() for s in scores]).cumsum(0)
    parts = places.tensor_split(torch.searchsorted(places, ends)[:-1])
    return [part - (end - s.numel()) for part, end, s in zip(parts, ends, scores, strict=True)]
