"""Striking out by a stable sort of the active entries: what the kernels must equal bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.topk import score_key


def strike_out(
    scores: list[Tensor],
    flags: list[Tensor],
    counts: list[int],
    *,
    scope: str = "global",
    by: str = "magnitude",
    invert: bool = False,
    exact: bool = False,
) -> tuple[list[Tensor], Tensor]:
    """(new bool flags, float32 thresholds) for bool flags of the scores' shapes; arguments as in ops.strike_out_."""
    if scope == "layer":
        each = [
            strike_out([s], [f], [k], by=by, invert=invert, exact=exact)
            for s, f, k in zip(scores, flags, counts, strict=True)
        ]
        return [kept for new, _ in each for kept in new], torch.cat([tau for _, tau in each])
    values = torch.cat([s.detach().contiguous().flatten() for s in scores])
    keys = torch.cat([score_key(s, by) for s in scores])
    keys = -keys if invert else keys
    alive = torch.cat([f.contiguous().flatten() for f in flags])
    active = alive.nonzero().flatten()
    going = min(counts[0], active.numel())
    if going == 0:
        return list(flags), torch.tensor([float("inf") if invert else float("-inf")])
    order = active[torch.sort(keys[active], stable=True).indices]
    last = order[going - 1]
    if exact:
        alive = alive.clone()
        alive[order[:going]] = False
    else:
        alive = alive & (keys > keys[last])
    tau = values[last].abs() if by == "magnitude" else values[last] + 0.0  # +0 of the zeros
    parts = alive.split([s.numel() for s in scores])
    return [part.view(f.shape) for part, f in zip(parts, flags, strict=True)], tau.view(1)
