"""ScoreSGD, and what ScoreAdam shares: gradient, regulariser, step and clamp of all scores in one pass, in one call.

For Gem-Miner (Rare Gems, arXiv 2202.12002), and for every method whose scores learn by SGD or Adam.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from hiddennet.nn.memo import plainly
from hiddennet.ops.checks import in_layout, is_channels_last
from hiddennet.ops.score_step import check_clamp, check_hyper
from hiddennet.optim.deferred import Deferred, defer, drop, spend, take
from hiddennet.optim.flagged import FlaggedOptimizer
from hiddennet.optim.refusals import check_layout, check_state

Clamp = tuple[float, float] | None
_score_step = torch.ops.hiddennet.score_step_.default


class ScoreOptimizer(FlaggedOptimizer):
    """What both have in common: the checks, and the call of score_step_."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_state(type(self).__name__, state)
        super().__setstate__(state)
        for group in self.param_groups:
            for name in self.defaults.keys() - {"differentiable"}:  # older files are of torch's optimisers
                group.setdefault(name, self.defaults[name])
            defer(group["params"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        check_layout(self)
        defer(self.param_groups[-1]["params"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's; a gradient that nobody asked for is not made to be dropped."""
        if set_to_none:
            for group in self.param_groups:
                drop(group["params"])
        else:
            super().zero_grad(set_to_none=False)
            for group in self.param_groups:
                for p in group["params"]:
                    if type(p) is Deferred:
                        p.lent = p.spent = False

    def _gradients(self, params: list[Tensor], look: bool = True) -> list[Tensor]:
        owed = take(params)
        if look:
            owed = [g if g is None else in_layout(g, is_channels_last(p)) for p, g in zip(params, owed, strict=True)]
        others = iter(super()._gradients([p for p, grad in zip(params, owed, strict=True) if grad is None], look))
        return [next(others) if grad is None else grad for grad in owed]

    def _check_group(self, group: dict[str, Any]) -> None:
        op = type(self).__name__
        check_hyper(op, **{k: v for k, v in group.items() if k in self.defaults and k != "clamp"})
        check_clamp(op, group["clamp"])

    def _take(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        names: Sequence[str],
        steps: list[int],
        *rule: Any,
        look: bool = False,
    ) -> None:
        """names: of the state. rule: the op's arguments from `momentum` to `eps`. look: whether all lie as they should,
        which the op does, too, and faster."""
        none = params[0].new_empty(0, dtype=torch.uint8)
        flags = [none if plane is None else plane for plane in self._flags_of(params)]
        first, second, *_ = *(self._state_of(params, name, look) for name in names), [], []
        grads, made_of = self._gradients(params, look), _made_of(params, none)
        decay, clamp = (group["weight_decay"], group["l1"], group["l2"]), group["clamp"] or (-math.inf, math.inf)
        rate = group["lr"]  # a tensor while a graph is captured
        lr, rate = (0.0, rate) if isinstance(rate, Tensor) else (rate, None)
        bracket = next((p.bracket for p in params if isinstance(p, Deferred) and p.bracket is not None), None)
        counting = None if bracket is None else bracket.arguments(params)
        numbers = (lr, *decay, *clamp, *rule, *made_of, rate)
        try:
            with plainly():
                _score_step(params, grads, first, second, flags, steps, *numbers, *(counting or ()))
        except RuntimeError:
            if look:
                raise
            self._take(group, params, names, steps, *rule, look=True)
            return
        spend(params)
        torch.autograd.graph.increment_version(params)  # behind autograd's back: selections and saved values must know
        if counting is not None:
            bracket.keep([params[i] for i in counting[2]])


def _made_of(params: list[Tensor], none: Tensor) -> tuple[list, ...]:
    """The op's arguments from `rules` on: what the gradient of each parameter is made of, where it is owed."""
    rules, bits, sources, parts, scales, draws = [], [], [], [], [], []
    for p in params:
        owed = p.owed if type(p) is Deferred else None
        if owed is None:
            rules.append(-1)
            continue
        weight = owed.weight
        part = weight.plane if weight.stored is None else weight.stored
        rules.append(weight.mask if weight.order is None else weight.order)
        bits.append(none if weight.bits is None else weight.bits)
        sources.append(weight.source)
        parts.append(none if part is None else part)
        scales.append(weight.scale)
        draws += (weight.seed, weight.layer, weight.redraw)
    return rules, bits if any(plane is not none for plane in bits) else [], sources, parts, scales, draws


class ScoreSGD(ScoreOptimizer):
    """torch.optim.SGD with the gradient of l1 |p| + l2 p^2 added and the scores clamped, in one pass.

    A hidden layer's scores take dL/dweight as its backward leaves it: their own gradient is made in the same pass, and
    `.grad` only for who reads it before the step, after which there is none, as after zero_grad (see whole_gradients).
    Scores and weights are not to be written to in between; through `.data` nobody sees it, and the gradient is made
    with the new ones. The pass counts for the next selection, too: who writes to scores behind autograd's back
    (`.data`) between calls hn.refresh(model).

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
        names = ("momentum_buffer",) if momentum != 0.0 else ()
        self._take(group, params, names, [], momentum, group["nesterov"], 0.0, 0.0, 0.0)
