"""Optimisers over what learns, with weight decay by groups. Not what learns: a method says that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hiddennet.nn import hidden_layers
from hiddennet.optim.flagged import step
from hiddennet.optim.score import ScoreSGD
from hiddennet.optim.score_adam import ScoreAdam

__all__ = ["build", "groups", "step"]
_FUSED_ON = ("cuda", "cpu")
_ONE_PASS = {"ScoreSGD": ScoreSGD, "ScoreAdam": ScoreAdam}


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
    """Return the optimiser that the config's section names, fused where torch can; None when nothing learns.

    Where scores learn, and their gradients are neither shortened nor shared between processes, it is one of
    hiddennet.optim, if that has one of the name.

    section: an OptimizerSection of hiddennet.settings.recipe. without: parameters that another optimiser has.
    """
    parameters = groups(model, section, without)
    if not parameters:
        return None
    device = parameters[0]["params"][0].device.type
    scores = {id(layer.scores) for layer in hidden_layers(model).values()}
    learning = [p for group in parameters for p in group["params"]]
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    served = device in _FUSED_ON and all(p.dtype == torch.float32 and p.dim() < 5 for p in learning)
    made = None
    if section.clip_norm is None and alone and served and any(id(p) in scores for p in learning):
        made = section.one_pass()
    if made is not None:
        name, options = made
        return _ONE_PASS[name](parameters, **options)
    return section.build(parameters, fused=device in _FUSED_ON)
