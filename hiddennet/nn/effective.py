"""EffectiveWeight: what `layer.weight` of a hidden layer is to whoever reads it: a tensor that cannot be written to."""

from typing import Any

import torch
from torch import Tensor

_STILL_IT = ("__get__", "detach")  # .data and .detach() share its memory
_WRITES = ("__setitem__", "__set__", "set_", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ior__", "__iand__")


class EffectiveWeight(Tensor):
    """A weight that is made anew at each reading; results of operations are plain tensors, and differentiable.

    Writing in place would change nothing, so that it is refused: RuntimeError.
    """

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        in_place = name in _WRITES or (name.endswith("_") and not name.endswith("__"))
        written = (*args[:1], kwargs.get("tensor"), kwargs.get("self")) if in_place else (kwargs.get("out"),)
        if any(isinstance(tensor, cls) for tensor in written):
            raise RuntimeError(
                f"hiddennet: expected the weight of a hidden layer to be read alone, since it is made anew each time, "
                f"got {name}; write to layer.stored, where its source stores weights, or to layer.scores"
            )
        with torch._C.DisableTorchFunctionSubclass():
            found = function(*args, **kwargs)
            shared = name in _STILL_IT and isinstance(found, Tensor) and found.shape == args[0].shape
            return found.as_subclass(cls) if shared else found
