"""Several: optimisers of one network that step together, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Several(torch.optim.Optimizer):
    """Optimisers over different parameters in the place of one: Bop for signs and SGD for the rest, for one.

    Args:
        optimizers: torch optimisers, at least one; no parameter in two of them. They step in this order.

    `param_groups` are all their groups, in order, and `state` is what they keep; hooks, schedulers of torch (where all
    groups have a rate), gradient scalers, copies and pickles work as for any optimiser. Raises ValueError for none, or
    a parameter in two of them.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        if not optimizers:
            raise ValueError("Several: expected at least one optimiser, got none")
        params = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        if len(set(params)) != len(params):
            raise ValueError("Several: expected each parameter in one optimiser, got one in two of them")
        self.__setstate__({"optimizers": list(optimizers), "defaults": {}})  # which makes torch's places for hooks

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers, "defaults": self.defaults}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimisers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> MutableMapping[Tensor, Any]:
        """What all optimisers keep, by parameter."""
        return _State(self.optimizers)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: it is not told which of them is to have the group."""
        raise ValueError(
            "Several.add_param_group: expected the group to go to one of the optimisers, got no choice; "
            "call optimizers[i].add_param_group"
        )

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
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        return self._changed(
            {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]},
            self._optimizer_state_dict_post_hooks,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what state_dict() of as many optimisers gave.

        Raises ValueError where the number differs.
        """
        states = self._changed(dict(state_dict), self._optimizer_load_state_dict_pre_hooks)["optimizers"]
        if len(states) != len(self.optimizers):
            raise ValueError(f"Several: expected the state of {len(self.optimizers)} optimisers, got {len(states)}")
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def _changed(self, state_dict: dict[str, Any], hooks: dict[int, Callable[..., Any]]) -> dict[str, Any]:
        """The state dict after hooks that may return another one."""
        for hook in hooks.values():
            other = hook(self, state_dict)
            state_dict = state_dict if other is None else other
        return state_dict

    def __repr__(self) -> str:
        return f"Several({', '.join(map(repr, self.optimizers))})"


class _State(MutableMapping[Tensor, Any]):
    """The states of optimisers as one: each parameter's is read and written where it is."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._owners = {p: one.state for one in optimizers for group in one.param_groups for p in group["params"]}

    def __getitem__(self, param: Tensor) -> Any:
        return self._owners[param][param]

    def __setitem__(self, param: Tensor, value: Any) -> None:
        self._owners[param][param] = value

    def __delitem__(self, param: Tensor) -> None:
        del self._owners[param][param]

    def __iter__(self) -> Iterator[Tensor]:
        return (param for param, state in self._owners.items() if param in state)

    def __len__(self) -> int:
        return sum(1 for _ in self)
