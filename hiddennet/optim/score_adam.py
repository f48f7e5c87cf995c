"""ScoreAdam: torch's Adam with regulariser and clamp in the same pass over memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from hiddennet.optim.score import Clamp, ScoreOptimizer


class ScoreAdam(ScoreOptimizer):
    """torch.optim.Adam with the gradient of l1 |p| + l2 p^2 added and the scores clamped, in one pass, as in ScoreSGD.

    Args:
        params: float32 parameters or groups of them, contiguous or channels_last.
        lr, betas, eps, weight_decay: as in torch.optim.Adam; lr is a float.
        clamp, l1, l2: as in ScoreSGD.

    Raises:
        ValueError: a negative number, a beta outside [0, 1), low >= high.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        clamp: Clamp = (0.0, 1.0),
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "clamp": clamp, "l1": l1, "l2": l2})

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        steps = []
        for p in params:
            self.state[p]["step"] = int(self.state[p].get("step", 0)) + 1
            steps.append(self.state[p]["step"])
        self._take(group, params, ("exp_avg", "exp_avg_sq"), steps, 0.0, False, *group["betas"], group["eps"])
