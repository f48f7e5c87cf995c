"""ScoreSGD and ScoreAdam: step, regulariser and clamp of all scores in one call (Gem-Miner, arXiv 2202.12002)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hiddennet.ops.checks import check_tensor, in_layout, is_channels_last
from hiddennet.ops.rerandomize import check_plane
from hiddennet.ops.score_step import check_clamp, check_hyper, launch

Clamp = tuple[float, float] | None


class _ScoreOptimizer(torch.optim.Optimizer):
    """What both have in common: flags, and the way from a group to one call of score_step_."""

    _flags: dict[Tensor, Tensor]

    def __init__(self, params: Iterable, defaults: dict[str, Any]) -> None:
        self._flags = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_flags", {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with every hyper-parameter its own if given; wrong ones are refused."""
        full = {**self.defaults, **param_group}
        op = type(self).__name__
        hyper = {k: v for k, v in full.items() if k not in ("params", "clamp") and k in self.defaults}
        check_hyper(op, **hyper)
        check_clamp(op, full["clamp"])
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            check_tensor(op, "parameters", p, dtypes=(torch.float32,))

    def set_flags(self, flags: Mapping[Tensor, Tensor | None]) -> None:
        """Let only some elements of a parameter take part: those whose bit is 1.

        The others keep score, momentum and moments. Bits may change in place between steps; they are no part of the
        state_dict: who makes them saves them.

        Args:
            flags: parameter -> uint8 [ceil(n / 8)] in OIHW order, on its device; None: all take part again.
        """
        op = f"{type(self).__name__}.set_flags"
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for param, bits in flags.items():
            if id(param) not in known:
                raise ValueError(f"{op}: expected parameters of this optimiser, got one of shape {tuple(param.shape)}")
            if bits is not None:
                check_plane(op, "flags", bits, param)
        for param, bits in flags.items():
            if bits is None:
                self._flags.pop(param, None)
            else:
                self._flags[param] = bits

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; parameters without a gradient are left alone. Returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in _by_device(group["params"]):
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        raise NotImplementedError

    def _state_of(self, params: list[Tensor], name: str) -> list[Tensor]:
        """One state tensor a parameter, lying as it does; zeros the first time."""
        found = []
        for p in params:
            state = self.state[p]
            kept = state.get(name)
            if kept is None:
                state[name] = torch.zeros_like(p)
            elif kept.stride() != p.stride():  # the model changed its memory format, or a checkpoint had another
                state[name] = in_layout(kept, is_channels_last(p))
            found.append(state[name])
        return found

    def _take(self, group: dict[str, Any], params: list[Tensor], **rule: Any) -> None:
        launch(
            params,
            [_gradient(type(self).__name__, p) for p in params],
            flags=[self._flags.get(p) for p in params] if self._flags else [],
            lr=group["lr"],
            decay=(group["weight_decay"], group["l1"], group["l2"]),
            clamp=check_clamp(type(self).__name__, group["clamp"]),
            **rule,
        )


def _by_device(params: list[Tensor]) -> list[list[Tensor]]:
    """Parameters with gradients, a list for each device: a launch serves one."""
    found: dict[torch.device, list[Tensor]] = {}
    for p in params:
        if p.grad is not None:
            found.setdefault(p.device, []).append(p)
    return list(found.values())


def _gradient(name: str, p: Tensor) -> Tensor:
    grad = p.grad
    if grad.is_sparse:
        raise RuntimeError(f"{name}: expected dense gradients, got a sparse one of shape {tuple(p.shape)}")
    return grad if grad.stride() == p.stride() else in_layout(grad, is_channels_last(p))


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
