"""EffectiveWeight: what `layer.weight` of a hidden layer is to whoever reads it: a tensor that cannot be written to.
kept_weight: in evaluation it is made once, and kept while nothing it is made of moves."""

from typing import Any

import torch
from torch import Tensor, nn

from hiddennet.nn.memo import Memo
from hiddennet.ops.fakes import is_looked_at
from hiddennet.ops.masked_weight import DTYPE_CODES, MaskedWeight, effective_weight


def kept_weight(layer: nn.Module, weight: MaskedWeight, dtype: torch.dtype) -> MaskedWeight | Tensor:
    """The weight in a dtype as it was made before, of the same parts; else made now and kept; or the parts themselves.

    Those come back where the weight is to be made at this forward: it learns, or code is traced, compiled or
    transformed; a part is made anew each time (drawn, noisy, or copied to another memory format).
    """
    scores, stored = weight.scores, weight.stored
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (scores, stored)):
        return weight
    if dtype not in DTYPE_CODES or layer.plan is not None or is_looked_at():
        return weight
    if "_is_replica" in layer.__dict__:  # of DataParallel: threads share what the layer keeps
        return weight
    mask, memo = layer._selected.value, layer._kept
    row, bits = (None, None) if mask is None else (mask.selection, mask.bits)  # nobody else's: the mask tells them
    tensors = (weight.selection, scores, weight.bits, weight.step, stored, weight.plane)
    parts = [t for t in tensors if t is not None and t is not row and t is not bits]
    made_of = (dtype, weight[2:5], weight[7:9], weight[11:-1])  # all that is no tensor
    found = memo.value  # read once: another thread may drop it
    if found is not None and found[0] is mask and found[1] == made_of and memo.current(*parts, found[2]):
        return found[2]
    own = {id(t) for t in (*layer._parameters.values(), *layer._buffers.values())}
    if not all(id(part) in own for part in parts):
        return weight
    with torch.inference_mode(False), torch.no_grad():  # a tensor that tells whether it was written to
        made = effective_weight(weight, dtype)
    layer._kept = memo = Memo()  # a new one, since others may read the old one
    memo.keep((mask, made_of, made), *parts, made)
    if not memo.current(*parts, made):  # nothing tells when they move
        memo.forget()
    return made


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
