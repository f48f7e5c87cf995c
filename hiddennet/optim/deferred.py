"""Deferred: a parameter whose gradient through hidden layers is made where it is read, which may be in the step alone.

A hidden layer's backward ends with dL/dweight; the scores' gradient is that times weight and sign. Who only steps with
it need not write it to memory and read it again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from hiddennet.nn.memo import plainly, state_of
from hiddennet.ops.masked_weight import MaskedWeight
from hiddennet.optim.refusals import MOVED, SPENT

own_grad, _set_grad = Tensor.grad.__get__, Tensor.grad.__set__  # torch's, of what is there
_distributed = torch.distributed.is_available()
_whole = 0  # blocks of whole_gradients() that are open


@contextmanager
def whole_gradients() -> Iterator[None]:
    """Within it a backward makes the scores' gradients itself, as for torch's optimisers: `.grad` outlives the step."""
    global _whole
    _whole += 1
    try:
        yield
    finally:
        _whole -= 1


class Owed(NamedTuple):
    """dL/dweight, and what the scores' gradient is made of beside it."""

    grad: Tensor  # in any layout
    weight: MaskedWeight  # without the scores
    parts: list[Tensor]  # of the weight
    state: list[tuple[int, int]]  # of scores and parts in the backward


def are_current(owing: Iterable[Deferred]) -> bool:
    """Whether the scores and weights of all these are what they were in the backward."""
    read = [part for p in owing for part in (p, *p.owed.parts)]
    return state_of(read) == [state for p in owing for state in p.owed.state]


def _accumulates(nodes: Iterable[tuple], param: Tensor) -> bool:
    """Whether the backward at work adds to `param.grad` what is handed to one of these nodes of its graph."""
    for node, _ in nodes:
        if getattr(node, "variable", None) is param:
            try:
                return torch._C._will_engine_execute_node(node)
            except RuntimeError:  # torch.autograd.grad asks for it
                return False
    return False


class Deferred(nn.Parameter):
    """A parameter whose gradient, where a hidden layer's backward owes it, is made when `.grad` is first read.

    So hooks on steps, clipping, gradient scalers and any other optimiser find it; the step of the optimisers here takes
    what is owed as it is, and leaves no `.grad`, whether somebody read it or not. Owed is nothing that a hook waits
    for, that is added to a gradient, or that another process has a share in.
    """

    owed: Owed | None = None
    lent = False  # whether a gradient was owed since the last step or zero_grad
    spent = False  # whether a step took that gradient, and nothing came since
    bracket: Any = None  # what a step counts of it for the next selection, see hiddennet.nn.rules

    @staticmethod
    def may_owe() -> bool:
        """Whether a backward may leave gradients to be made later: nothing is traced or counted, and none is shared."""
        shared = _distributed and torch.distributed.is_initialized()
        return not (_whole or shared or torch._C._len_torch_dispatch_stack())

    def owe(
        self, weight: MaskedWeight, grad: Tensor, nodes: Iterable[tuple], may: bool | None = None, state: Any = None
    ) -> bool:
        """Keep dL/dweight in place of the scores' gradient; whether that is right, or the gradient wanted now.

        weight: without the scores. nodes: next_functions of the backward that has it, the scores' among them. may:
        what may_owe says. state: of scores, bits, stored weights and plane, those there are.
        """
        if self.owed is not None and not are_current([self]):
            raise RuntimeError(MOVED.format("the second backward cannot add to the gradient of the first"))
        if own_grad(self) is not None or self.owed is not None:
            self._pay()
            return False
        may = self.may_owe() if may is None else may
        if not may or self._backward_hooks or self._post_accumulate_grad_hooks or type(grad) is not Tensor:
            return False
        if not _accumulates(nodes, self):
            return False
        parts = [part for part in (weight.bits, weight.stored, weight.plane) if part is not None]
        owed = Owed(grad, weight, parts, state_of([self, *parts]) if state is None else state)
        self.__dict__.update(owed=owed, lent=True, spent=False)
        return True

    @torch.no_grad()
    def _pay(self) -> None:
        if self.owed is None:
            return
        current, owed = are_current([self]), self.__dict__.pop("owed")
        if not current:
            warnings.warn(MOVED.format("there is no .grad"), stacklevel=3)
            return
        weight = owed.weight._replace(scores=self.detach())
        made, before = weight.gradients(owed.grad, True, False)[0], own_grad(self)
        _set_grad(self, made if before is None else before + made)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is owed, since pickles have no gradients, and what was counted."""
        return {name: value for name, value in self.__dict__.items() if name not in (*_MARKS, "bracket")}

    @property
    def grad(self) -> Tensor | None:
        """The gradient, made now where it is owed."""
        if self.owed is not None:
            self._pay()
        elif self.spent:  # who reads now, torch's Module.zero_grad for one, sees that there is none
            self.spent = False
        return own_grad(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is None:
            drop([self])
        else:
            self.__dict__.pop("owed", None)
            _set_grad(self, value)

    @grad.deleter
    def grad(self) -> None:
        self.grad = None


def take(params: Iterable[Tensor]) -> list[Tensor | None]:
    """dL/dweight of each, where that is all there is of a gradient; RuntimeError where the step may not take it."""
    with plainly():
        owed = [p.owed if type(p) is Deferred else None for p in params]
        owed = [None if one is None or own_grad(p) is not None else one for p, one in zip(params, owed, strict=True)]
    if not are_current([p for p, one in zip(params, owed, strict=True) if one is not None]):
        raise RuntimeError(MOVED.format("the step has no gradient"))
    return [None if one is None else one.grad for one in owed]


_MARKS = "owed", "lent", "spent"


def drop(params: Iterable[Tensor]) -> None:
    """Let them have no gradients."""
    with plainly():
        for p in params:
            if type(p) is Deferred and p.__dict__:
                for name in _MARKS:
                    p.__dict__.pop(name, None)
            _set_grad(p, None)


def spend(params: Iterable[Tensor]) -> None:
    """After a step: what was owed is no gradient any more, read or not, as it could not be added to later on."""
    for p in params:
        if type(p) is Deferred and (p.lent or p.spent):
            if p.lent:
                _set_grad(p, None)
            p.__dict__.update(owed=None, lent=False, spent=p.lent)


def _warn(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict[str, Any]) -> None:
    if any(args[1:]) or kwargs.get("closure") is not None:  # the gradients are to come
        return
    params = [p for group in optimizer.param_groups for p in group["params"] if type(p) is Deferred and p.spent]
    spent = [p for p in params if p.owed is None and own_grad(p) is None]
    for p in spent:
        p.spent = False
    if spent:
        warnings.warn(SPENT.format(type(optimizer).__name__, len(spent)), stacklevel=4)


register_optimizer_step_pre_hook(_warn)


def _forget(optimizer: torch.optim.Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        if group.get("fused"):  # which on a CPU does not raise the versions of what it writes
            for p in group["params"]:
                if isinstance(p, Deferred) and p.bracket is not None:
                    p.bracket.forget()


register_optimizer_step_post_hook(_forget)


def defer(params: Iterable[Tensor]) -> None:
    """Let these be Deferred, where they are plain parameters that can be a weight's scores, as torch's materialize()
    does: they stay the objects that modules and optimisers hold. torch is slower to take subclasses of its own."""
    for p in params:
        if type(p) is nn.Parameter and p.dim() > 1:
            p.__class__ = Deferred
