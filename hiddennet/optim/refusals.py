"""What optimisers of scores refuse, and in which words."""

from typing import Any

import torch

from hiddennet.ops.checks import dense

MOVED = (
    "hiddennet.optim: expected scores and weights to stay as they are from backward to step, got some written to in "
    "between, so that {}; read their .grad before, or run the backward under optim.whole_gradients()"
)
SPENT = (
    "{}.step: expected a backward or zero_grad() since an earlier step, which took the gradients, got none for {} "
    "parameters, which stay as they are; for two steps of one gradient run the backward under optim.whole_gradients()"
)


def check_state(op: str, state: dict[str, Any]) -> None:
    """Refuse a state of torch's optimisers with what is not here."""
    for group in state.get("param_groups", ()):
        for name in ("maximize", "dampening", "amsgrad", "decoupled_weight_decay"):
            if group.get(name):
                raise ValueError(
                    f"{op}: expected a state without {name}, which it does not have, got {group[name]!r}; "
                    "go on with torch.optim's"
                )


def check_layout(optimizer: torch.optim.Optimizer) -> None:
    """Take the last group out again where its parameters are not dense."""
    for p in optimizer.param_groups[-1]["params"]:
        if dense(p) is not p:
            del optimizer.param_groups[-1]
            raise ValueError(
                f"{type(optimizer).__name__}: expected parameters contiguous or channels_last, got strides "
                f"{p.stride()} of shape {tuple(p.shape)}; make it with .contiguous()"
            )
