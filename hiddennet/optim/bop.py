"""Bop: trains the signs of weights whose magnitudes never change (Helwegen et al., arXiv 1906.02107; Peek-a-Boo)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from hiddennet.ops.bop_step import check_bop, launch
from hiddennet.ops.checks import check_choice
from hiddennet.optim.flagged import FlaggedOptimizer

Init = Literal["grad", "zero"]
_COUNTERS = ("flips", "total_flips")


class _Group(dict):
    """A parameter group without a learning rate, which says so where one is looked for."""

    def __missing__(self, key: str) -> Any:
        if key != "lr":
            raise KeyError(key)
        raise TypeError(
            "Bop: expected no schedule of learning rates, of which it has none, got one that reads group['lr']; "
            "change group['adaptivity_rate'], or call decay_adaptivity_rate"
        )


class Bop(FlaggedOptimizer):
    """Flip a weight's sign where the moving average m of its gradient is large and of the weight's own sign.

    A step is m = (1 - adaptivity_rate) m + adaptivity_rate g, then p = -p where |m| >= threshold and sign(m) = sign(p)
    (arXiv 1906.02107, algorithm 2, with >= for >). There is no learning rate and no weight decay. All parameters of a
    group on one device take one fused step; nothing waits for a device. A weight whose gradient is always 0, as a mask
    makes it, never flips while the threshold is above 0; one whose flag is 0 (`set_flags`) never does.

    State of a parameter: `moving_average` (float32, lies as the parameter), `flips` and `total_flips` (int64 [1] on its
    device). Groups hold adaptivity_rate, threshold and init.

    Args:
        params: float32 parameters or groups of them, contiguous or channels_last.
        adaptivity_rate: in (0, 1): how much of each gradient enters the average.
        threshold: at least 0: below it an average flips nothing.
        init: how an average begins. "grad": with (1 + adaptivity_rate) times the first gradient, as Peek-a-Boo's code
            does, so that about half of the weights flip at once if the threshold is small; "zero": as in the paper.

    Raises:
        ValueError: an adaptivity_rate outside (0, 1), a negative threshold, an unknown init.
        TypeError: parameters that are not float32; a hyper-parameter that is a Tensor.
    """

    def __init__(
        self, params: Iterable, adaptivity_rate: float = 1e-3, threshold: float = 1e-6, *, init: Init = "grad"
    ) -> None:
        super().__init__(params, {"adaptivity_rate": adaptivity_rate, "threshold": threshold, "init": init})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which says that it has no learning rate where one is looked for."""
        super().add_param_group(param_group)
        self.param_groups[-1] = _Group(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.param_groups = [_Group(group) for group in self.param_groups]

    def _check_group(self, group: dict[str, Any]) -> None:
        op = type(self).__name__
        check_bop(op, adaptivity_rate=group["adaptivity_rate"], threshold=group["threshold"])
        check_choice(op, "init", group["init"], ("grad", "zero"))

    def decay_adaptivity_rate(self, factor: float) -> None:
        """Multiply the adaptivity rate of every group by a factor in (0, 1]."""
        if not 0.0 < factor <= 1.0:
            raise ValueError(f"Bop.decay_adaptivity_rate: expected a factor in (0, 1], got {factor}")
        for group in self.param_groups:
            group["adaptivity_rate"] *= factor

    def flips(self) -> dict[Tensor, Tensor]:
        """How many elements the last step flipped: parameter -> int64 [1] on its device, which each step overwrites."""
        return self._counters("flips")

    def total_flips(self) -> dict[Tensor, Tensor]:
        """How many flips there were in all steps, those of a resumed run too: parameter -> int64 [1] on its device."""
        return self._counters("total_flips")

    def _counters(self, name: str) -> dict[Tensor, Tensor]:
        params = [p for group in self.param_groups for p in group["params"]]
        return {p: self.state[p][name] for p in params if name in self.state.get(p, {})}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step; parameters without a gradient are left alone. Returns what the closure returns."""
        loss = super().step(closure)
        for p, flips in self.flips().items():
            if p.grad is None:
                flips.zero_()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what state_dict() returned. Counters stay int64, which torch would turn into the parameters' dtype."""
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for p, number in zip(group["params"], saved["params"], strict=True):
                for name in _COUNTERS:
                    if name in state_dict["state"].get(number, {}):
                        counter = state_dict["state"][number][name]
                        self.state[p][name] = counter.to(device=p.device, dtype=torch.int64, copy=True)

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        self._check_group(group)  # rates are set from outside between steps
        grads = self._gradients(params)
        fresh = [group["init"] == "grad" and "moving_average" not in self.state[p] for p in params]
        averages = self._state_of(params, "moving_average")
        for p in params:
            for name in _COUNTERS:
                if name not in self.state[p]:
                    self.state[p][name] = torch.zeros(1, dtype=torch.int64, device=p.device)
        launch(
            params,
            grads,
            averages,
            [self.state[p]["flips"] for p in params],
            [self.state[p]["total_flips"] for p in params],
            self._flags_of(params),
            fresh,
            adaptivity_rate=group["adaptivity_rate"],
            threshold=group["threshold"],
        )
