"""ScoreSGD and ScoreAdam: step, regulariser and clamp of all scores in one call (Gem-Miner, arXiv 2202.12002)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from hiddennet.ops.score_step import check_clamp, check_hyper, launch
from hiddennet.optim.flagged import FlaggedOptimizer

Clamp = tuple[float, float] | None


class _ScoreOptimizer(FlaggedOptimizer):
    """What both have in common: the checks, and the call of score_step_."""

    def _check_group(self, group: dict[str, Any]) -> None:
        op = type(self).__name__
        check_hyper(op, **{k: v for k, v in group.items() if k not in ("params", "clamp") and k in self.defaults})
        check_clamp(op, group["clamp"])

    def _take(self, group: dict[str, Any], params: list[Tensor], **rule: Any) -> None:
        launch(
            params,
            self._gradients(params),
            flags=self._flags_of(params),
            lr=group["lr"],
            decay=(group["weight_decay"], group["l1"], group["l2"]),
            clamp=check_clamp(type(self).__name__, group["clamp"]),
            **rule,
        )


class ScoreSGD(_ScoreOptimizer):
    """torch.optim.SGD with the gradient of l1 |p| + l2 p^2 added and the scores clamped, in one pass.

    Args:
        params: float32 parameters or groups of them, contiguous or channels_last.
        lr, momentum, weight_decay, nesterov: as in torch.optim.SGD (no dampening); lr is a float.
        clamp: (low, high) of the scores after a step, or None.
        l1, l2: of the regulariser, by its definition: its gradient is l1 sign(p) + 2 l2 p.

    Raises:
        ValueError: a negative number, nesterov without momentum, low >= high.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        clamp: Clamp = (0.0, 1.0),
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {**defaults, "clamp": clamp, "l1": l1, "l2": l2})

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        momentum = group["momentum"]
        first = self._state_of(params, "momentum_buffer") if momentum != 0.0 else []
        self._take(
            group,
            params,
            first=first,
            second=[],
            steps=[],
            momentum=momentum,
            nesterov=group["nesterov"],
            betas=None,
            eps=0.0,
        )


class ScoreAdam(_ScoreOptimizer):
    """torch.optim.Adam with the gradient of l1 |p| + l2 p^2 added and the scores clamped, in one pass.

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
        first, second = (self._state_of(params, name) for name in ("exp_avg", "exp_avg_sq"))
        steps = []
        for p in params:
            self.state[p]["step"] = int(self.state[p].get("step", 0)) + 1
            steps.append(self.state[p]["step"])
        self._take(
            group,
            params,
            first=first,
            second=second,
            steps=steps,
            momentum=0.0,
            nesterov=False,
            betas=tuple(group["betas"]),
            eps=group["eps"],
        )
