"""register_fake: what an op gives on the meta device and under torch.compile, with None for a tensor refused first."""

import functools
from collections.abc import Callable
from typing import Any

import torch

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
