"""Several: optimisers of one network that step together, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Several(torch.optim.Optimizer):
    """Optimisers over different parameters in the place of one: Bop for signs and SGD for the rest, for one.

    Args:
        optimizers: torch optimisers, at least one; no parameter in two of them. They step in this order.

    `param_groups` are all their groups, in order. Raises ValueError for none, or a parameter in two of them.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        if not optimizers:
            raise ValueError("Several: expected at least one optimiser, got none")
        self.optimizers = list(optimizers)
        params = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        if len(set(params)) != len(params):
            raise ValueError("Several: expected each parameter in one optimiser, got one in two of them")
        self.defaults: dict[str, Any] = {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimisers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> dict[torch.Tensor, Any]:
        """What all optimisers keep, by parameter."""
        return {p: kept for optimizer in self.optimizers for p, kept in optimizer.state.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, for all."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step them one after the other; returns what the closure, called once, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state dicts of all, in order."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what state_dict() of as many optimisers gave.

        Raises ValueError where the number differs.
        """
        states = state_dict["optimizers"]
        if len(states) != len(self.optimizers):
            raise ValueError(f"Several: expected the state of {len(self.optimizers)} optimisers, got {len(states)}")
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)

    def __repr__(self) -> str:
        return f"Several({', '.join(map(repr, self.optimizers))})"
