"""How many steps all optimisers took: fused ones write parameters without raising the version that says so."""

from __future__ import annotations

from torch.optim.optimizer import register_optimizer_step_post_hook

taken = 0


def _count(*_: object) -> None:
    global taken
    taken += 1


register_optimizer_step_post_hook(_count)
