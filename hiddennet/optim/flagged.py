"""FlaggedOptimizer: what optimisers of one fused call share: flags of elements, state that lies as its parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hiddennet.nn.memo import plainly
from hiddennet.ops.checks import check_plane, check_tensor, in_layout, is_channels_last
from hiddennet.optim.deferred import Deferred, own_grad

_device = Tensor.device.__get__


class FlaggedOptimizer(torch.optim.Optimizer):
    """Flags, and the way from a group to one call of an op: `_step_group` of a device's parameters with gradients."""

    tells = True  # whether its step raises the versions of what it writes

    _flags: dict[Tensor, Tensor]

    def __init__(self, params: Iterable, defaults: dict[str, Any]) -> None:
        self._flags = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_flags", {})

    def _check_group(self, group: dict[str, Any]) -> None:
        """Refuse wrong hyper-parameters."""
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with every hyper-parameter its own if given; wrong ones are refused."""
        self._check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            check_tensor(type(self).__name__, "parameters", p, dtypes=(torch.float32,))

    def set_flags(self, flags: Mapping[Tensor, Tensor | None]) -> None:
        """Let only some elements of a parameter take part: those whose bit is 1.

        The others keep their values and the optimiser's state. Bits may change in place between steps; they are no
        part of the state_dict: who makes them saves them.

        Args:
            flags: parameter -> uint8 [ceil(n / 8)] in OIHW order, on its device; None: all take part again.
        """
        op = f"{type(self).__name__}.set_flags"
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for param, bits in flags.items():
            if id(param) not in known:
                raise ValueError(f"{op}: expected parameters of this optimiser, got one of shape {tuple(param.shape)}")
            if bits is not None:
                check_plane(op, "flags", bits, param, other="parameter")
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

    def _flags_of(self, params: list[Tensor]) -> list[Tensor | None]:
        """A plane or None for each parameter; no list where no parameter has one."""
        return [self._flags.get(p) for p in params] if self._flags else []

    def _gradients(self, params: list[Tensor], look: bool = True) -> list[Tensor]:
        """Gradients; look: dense ones, each lying as its parameter."""
        name = type(self).__name__
        with plainly():
            own = [p.grad if type(p) is Deferred and p.owed is not None else own_grad(p) for p in params]
            return [_laid(name, p, grad) for p, grad in zip(params, own, strict=True)] if look else own

    def _state_of(self, params: list[Tensor], name: str, look: bool = True) -> list[Tensor]:
        """One state tensor a parameter, zeros the first time; look: lying as it does."""
        found = []
        with plainly():
            for p in params:
                state = self.state[p]
                kept = state.get(name)
                if kept is None:
                    kept = state[name] = torch.zeros_like(p)
                elif look and kept.stride() != p.stride():  # of another memory format, or a checkpoint of one
                    kept = state[name] = in_layout(kept, is_channels_last(p))
                found.append(kept)
        return found


def _by_device(params: list[Tensor]) -> list[list[Tensor]]:
    """Parameters with gradients, a list for each device: a launch serves one."""
    with plainly():
        here = [p for p in params if own_grad(p) is not None or (type(p) is Deferred and p.owed is not None)]
        devices = [*map(_device, here)]
    if here and devices.count(devices[0]) == len(here):
        return [here]
    return [[p for p, own in zip(here, devices, strict=True) if own == device] for device in dict.fromkeys(devices)]


def step(optimizer: torch.optim.Optimizer, clip_norm: float | None = None) -> None:
    """Take a step and tell autograd that the parameters changed. No synchronisation with the host.

    clip_norm: where the 2-norm of all gradients together is larger, they are scaled down to it first.

    Fused steps on a CPU do not count up the parameters' versions, by which a hidden layer knows
    that its selection is out of date.
    """
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    for one in getattr(optimizer, "optimizers", (optimizer,)):
        if not getattr(one, "tells", False):
            for group in one.param_groups:
                torch.autograd.graph.increment_version(group["params"])


def _laid(name: str, p: Tensor, grad: Tensor) -> Tensor:
    if grad.is_sparse:
        raise RuntimeError(f"{name}: expected dense gradients, got a sparse one of shape {tuple(p.shape)}")
    return grad if grad.stride() == p.stride() else in_layout(grad, is_channels_last(p))
