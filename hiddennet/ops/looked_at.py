"""is_looked_at: whether a forward is more than its numbers: traced, counted, transformed, differentiated forwards."""

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor, peek_interpreter_stack
from torch.autograd import forward_ad


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
