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

from hiddennet.ops.masked_weight import MaskedWeight
from hiddennet.optim.refusals import MOVED, SPENT

_GRAD = torch.Tensor.grad
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
    """dL/dweight in the layout of the scores, and what their gradient is made of beside it."""

    grad: Tensor
    weight: MaskedWeight  # without the scores
    made_of: list[int]

    def is_current(self, scores: Tensor) -> bool:
        """Whether scores and weights are what they were in the backward."""
        return self.made_of == _state(scores, self.weight)


def _state(scores: Tensor, weight: MaskedWeight) -> list[int]:
    state = [scores.data_ptr(), scores._version]
    for part in (weight.bits, weight.stored, weight.plane):
        if part is not None:
            state += (part.data_ptr(), part._version)
    return state


def _accumulates(ctx: Any, param: Tensor) -> bool:
    """Whether the backward at work adds to `param.grad` what this function of its graph returns."""
    for node, _ in ctx.next_functions:
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

    def owe(self, weight: MaskedWeight, grad: Tensor, ctx: Any) -> bool:
        """Keep dL/dweight in place of the scores' gradient; whether that is right, or the gradient wanted now."""
        if self.owed is not None and not self.owed.is_current(self):
            raise RuntimeError(MOVED.format("the second backward cannot add to the gradient of the first"))
        if _GRAD.__get__(self) is not None or self.owed is not None:
            self._pay()
            return False
        if self._backward_hooks or self._post_accumulate_grad_hooks or _whole:
            return False
        if type(grad) is not Tensor or torch._C._len_torch_dispatch_stack():  # traced or counted
            return False
        if (_distributed and torch.distributed.is_initialized()) or not _accumulates(ctx, self):
            return False
        owed = Owed(grad, weight._replace(scores=None), _state(self, weight))
        self.__dict__.update(owed=owed, lent=True, spent=False)
        return True

    @torch.no_grad()
    def _pay(self) -> None:
        owed = self.__dict__.pop("owed", None)
        if owed is None:
            return
        if not owed.is_current(self):
            warnings.warn(MOVED.format("there is no .grad"), stacklevel=3)
            return
        weight = owed.weight._replace(scores=self.detach())
        made, before = weight.gradients(owed.grad, True, False)[0], _GRAD.__get__(self)
        _GRAD.__set__(self, made if before is None else before + made)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is owed, since pickles have no gradients, and what was counted."""
        return {name: value for name, value in self.__dict__.items() if name not in (*_MARKS, "bracket")}

    def take(self) -> Tensor | None:
        """dL/dweight, where that is all there is of a gradient; RuntimeError where the step may not take it."""
        if self.owed is None or _GRAD.__get__(self) is not None:
            return None
        if not self.owed.is_current(self):
            raise RuntimeError(MOVED.format("the step has no gradient"))
        return self.owed.grad

    @property
    def grad(self) -> Tensor | None:
        """The gradient, made now where it is owed."""
        if self.owed is not None:
            self._pay()
        elif self.spent:  # who reads now, torch's Module.zero_grad for one, sees that there is none
            self.spent = False
        return _GRAD.__get__(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is None:
            drop(self)
        else:
            self.__dict__.pop("owed", None)
            _GRAD.__set__(self, value)

    @grad.deleter
    def grad(self) -> None:
        self.grad = None


_MARKS = "owed", "lent", "spent"


def drop(p: Tensor) -> None:
    """Let it have no gradient."""
    for name in _MARKS if type(p) is Deferred else ():
        p.__dict__.pop(name, None)
    _GRAD.__set__(p, None)


def spend(params: Iterable[Tensor]) -> None:
    """After a step: what was owed is no gradient any more, read or not, as it could not be added to later on."""
    for p in params:
        if type(p) is Deferred:
            lent = p.lent
            if lent:
                _GRAD.__set__(p, None)
            p.__dict__.update(owed=None, lent=False, spent=lent)


def _warn(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict[str, Any]) -> None:
    if any(args[1:]) or kwargs.get("closure") is not None:  # the gradients are to come
        return
    params = (p for group in optimizer.param_groups for p in group["params"] if type(p) is Deferred and p.spent)
    spent = [p for p in params if p.owed is None and _GRAD.__get__(p) is None]
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
    """Let these be Deferred, where they are plain parameters, as torch's materialize() does: they stay the objects that
    modules and optimisers hold."""
    for p in params:
        if type(p) is nn.Parameter:
            p.__class__ = Deferred
