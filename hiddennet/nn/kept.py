"""kept_weight: in evaluation a layer's effective weight is made once, and kept while nothing it is made of moves."""

import torch
from torch import Tensor, nn

from hiddennet.nn.memo import Memo
from hiddennet.ops.looked_at import is_looked_at
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
