"""What ops are where more than their numbers is wanted: on the meta device and under torch.compile (register_fake, with
None for a tensor refused first), and in forwards that are traced, counted, transformed (is_looked_at)."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack
from torch.autograd import forward_ad

from hiddennet import _load  # noqa: F401  (registers torch.ops.hiddennet)


def register_fake(name: str) -> Callable[[Callable], Callable]:
    """As torch.library.register_fake, of the op hiddennet::<name>."""
    arguments = getattr(torch.ops.hiddennet, name).default._schema.arguments
    needed = {argument.name for argument in arguments if str(argument.type) == "Tensor"}

    def register(fake: Callable) -> Callable:
        @functools.wraps(fake)
        def checked(*values: Any, **named: Any) -> Any:
            for argument, value in (*zip((a.name for a in arguments), values, strict=False), *named.items()):
                if value is None and argument in needed:
                    raise TypeError(f"{name}: expected {argument} to be a Tensor, got None")
            return fake(*values, **named)

        return torch.library.register_fake(f"hiddennet::{name}")(checked)

    return register


def register_void(*names: str) -> None:
    """register_fake of ops that write into what they are given and return nothing."""
    for name in names:
        register_fake(name)(lambda *_: None)


def is_looked_at(gradient: Tensor | None = None) -> bool:
    """Whether what is computed is recorded, or computed by other means than for its numbers.

    Then nothing is timed or kept on the way, and convolutions are torch's own: torch.compile, torch.export and
    torch.jit.trace, dispatch modes (fake tensors, make_fx, flop counters), torch.func, forward-mode AD, and gradients
    that come in batches (is_grads_batched of torch.autograd.grad).
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or (gradient is not None and is_legacy_batchedtensor(gradient))
    )
