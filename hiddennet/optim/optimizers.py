"""Optimisers over what learns, with weight decay by groups. Not what learns: a method says that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_FUSED_ON = ("cuda", "cpu")


def groups(model: nn.Module, section: Any, without: Iterable[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Return the parameter groups: all that requires gradients, in module order; but for those of `without`.

    With batch_norm_decay false, batch norm's parameters, found by the type of their module, and all
    parameters of one dimension get no weight decay.
    """
    normal = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for parameter in module.parameters(recurse=False)
    }
    decayed, free, others = [], [], {id(parameter) for parameter in without}
    for parameter in model.parameters():
        if parameter.requires_grad and id(parameter) not in others:
            spared = id(parameter) in normal or parameter.ndim == 1
            (free if spared and not section.batch_norm_decay else decayed).append(parameter)
    found = [{"params": decayed, "weight_decay": section.weight_decay}]
    if free:
        found.append({"params": free, "weight_decay": 0.0})
    return [group for group in found if group["params"]]


def build(model: nn.Module, section: Any, without: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer | None:
    """Return the optimiser that the config's section names, fused where torch can; None when
    nothing learns.

    section: an OptimizerSection of hiddennet.settings.recipe. without: parameters that another optimiser has.
    """
    parameters = groups(model, section, without)
    if not parameters:
        return None
    device = parameters[0]["params"][0].device.type
    return section.build(parameters, fused=device in _FUSED_ON)


def step(optimizer: torch.optim.Optimizer, clip_norm: float | None = None) -> None:
    """Take a step and tell autograd that the parameters changed. No synchronisation with the host.

    clip_norm: where the 2-norm of all gradients together is larger, they are scaled down to it first.

    Fused steps on a CPU do not count up the parameters' versions, by which a hidden layer knows
    that its selection is out of date.
    """
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    for group in optimizer.param_groups:
        torch.autograd.graph.increment_version(group["params"])
