"""Memo: a value made from tensors, kept for as long as they are what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.optim.optimizer import register_optimizer_step_post_hook

# within it torch asks no subclass of Tensor for a way of its own, which takes longer than to read a number of a tensor
plainly = torch._C.DisableTorchFunctionSubclass
version = Tensor._version.__get__
_dtype = Tensor.dtype.__get__
_steps = 0  # of all optimisers: fused ones write parameters without raising the version that says so


def _count(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count)


def _keys(groups: Sequence[Sequence[Tensor]]) -> list[tuple | None]:
    """For each group of tensors what tells their values from earlier ones; None where nothing does: compiled code, a
    captured graph, tensors of inference mode."""
    first = groups[0][0]
    if torch.compiler.is_compiling() or (first.is_cuda and torch.cuda.is_current_stream_capturing()):
        return [None] * len(groups)
    now, all_ = (_steps, torch.is_inference_mode_enabled()), [*chain.from_iterable(groups)]
    with plainly():
        try:
            parts = zip(
                map(id, all_), [*map(version, all_)], map(Tensor.data_ptr, all_), map(_dtype, all_), strict=True
            )
        except RuntimeError:  # tensors of inference mode have no versions
            return [None if any(map(Tensor.is_inference, own)) else _keys([own])[0] for own in groups]
        return [(*now, *islice(parts, len(own))) for own in groups]


def state_of(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Where each of the tensors lies, and its version."""
    with plainly():
        return [*zip(map(Tensor.data_ptr, tensors), map(version, tensors), strict=True)]


def check_no_transform(module: nn.Module, selecting: bool = False) -> None:
    """Refuse what torch.func (grad, vmap, jvp) cannot see through: a selection, straight-through gradients."""
    if torch.compiler.is_compiling() or peek_interpreter_stack() is None:
        return
    for p in module.parameters(recurse=False):
        if selecting or is_functorch_wrapped_tensor(p) or (torch.is_grad_enabled() and p.requires_grad):
            raise RuntimeError(
                f"hiddennet: expected no transform of torch.func over a {type(module).__name__} that learns, got one; "
                "differentiate by backward(), or call model.requires_grad_(False).eval() on a batch first"
            )


def keep_all(memos: Sequence[Memo], values: Sequence[Any], groups: Sequence[Sequence[Tensor]]) -> None:
    """Memo.keep for each, at once."""
    for memo, value, key, tensors in zip(memos, values, _keys(groups), groups, strict=True):
        # the tensors are held, so that their ids are nobody else's
        memo.value, memo.made, memo._of = value, key, tensors


class Memo:
    """One value and the tensors it was made from.

    A change is seen that raised a tensor's version, put another tensor or other memory in its place, or came with a
    step of any torch optimiser, fused ones too. Who writes to `.data`, or replays a captured graph, calls forget(),
    which hiddennet.refresh does for a whole model. Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop the value."""
        self.value: Any = None
        self.made: tuple | None = None  # its key; None: of no value, or of one that has none
        self._of: tuple[Tensor, ...] = ()

    def keep(self, value: Any, *tensors: Tensor) -> Any:
        """Take `value`, made from the tensors as they are now, and return it."""
        keep_all([self], [value], [tensors])
        return value

    def current(self, *tensors: Tensor) -> bool:
        """Whether the value is there, and of these tensors as they are now."""
        return self.made is not None and self.made == _keys([tensors])[0]

    def __deepcopy__(self, _: dict) -> Memo:
        return Memo()

    def __reduce__(self) -> tuple:
        return Memo, ()
