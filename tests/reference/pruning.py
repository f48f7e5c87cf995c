"""Pruning at initialisation in plain PyTorch: everything in float64, masks in the layers, kthvalue over all scores."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


def kept_above(scores: dict[str, Tensor], masks: dict[str, Tensor], density: float) -> dict[str, Tensor]:
    """One ranking: 1 where the score is above the k-th smallest, k = int((1 - density) n); the masks if k is 0."""
    flat = torch.cat([s.flatten() for s in scores.values()])
    k = int((1.0 - density) * flat.numel())
    if k < 1:
        return masks
    threshold = flat.kthvalue(k).values
    return {name: s > threshold for name, s in scores.items()}


def synflow_scores(model: nn.Module, masks: dict[str, Tensor], input_shape: Sequence[int]) -> dict[str, Tensor]:
    """|w dR/dw| of a model in float64 and evaluation mode; R sums the outputs for ones, of magnitudes only."""
    state = {name: tensor.detach().abs() for name, tensor in model.state_dict().items()}
    leaves = {name: state[name].clone().requires_grad_() for name in masks}
    weights = {name: leaf * masks[name] for name, leaf in leaves.items()}
    total = functional_call(model, {**state, **weights}, (torch.ones(1, *input_shape, dtype=torch.float64),)).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return {name: (g * leaf.detach()).abs() for (name, leaf), g in zip(leaves.items(), gradients, strict=True)}


def snip_scores(model: nn.Module, masks: dict[str, Tensor], batches) -> dict[str, Tensor]:
    """|dL/dm| over their sum, the masks m as variables."""
    variables = {name: mask.double().requires_grad_() for name, mask in masks.items()}
    parameters = dict(model.named_parameters())
    for x, y in batches:
        weights = {name: variables[name] * parameters[name].detach() for name in masks}
        F.cross_entropy(functional_call(model, weights, (x,)), y).backward()
    scores = {name: v.grad.abs() for name, v in variables.items()}
    norm = torch.cat([s.flatten() for s in scores.values()]).sum()
    return {name: s / norm for name, s in scores.items()}


def grasp_scores(model: nn.Module, masks: dict[str, Tensor], batches) -> dict[str, Tensor]:
    """w (H g) over |their sum| + 1e-10, gradients to the unmasked weights, logits divided by 200."""
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters() if name in masks}

    def gradients(x: Tensor, y: Tensor, graph: bool) -> Tensor:
        weights = {name: leaves[name] * masks[name] for name in leaves}
        loss = F.cross_entropy(functional_call(model, weights, (x,)) / 200, y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()), create_graph=graph)])

    first = sum(gradients(x, y, graph=False) for x, y in batches)
    for x, y in batches:
        (first * gradients(x, y, graph=True)).sum().backward()
    scores = {name: leaf.grad * leaf.detach() for name, leaf in leaves.items()}
    norm = torch.cat([s.flatten() for s in scores.values()]).sum().abs() + 1e-10
    return {name: s / norm for name, s in scores.items()}


def prune(
    model: nn.Module,
    names: Sequence[str],
    method: str,
    aims: Sequence[float],
    *,
    scope: str = "global",
    input_shape: Sequence[int] = (),
    batches=(),
) -> dict[str, Tensor]:
    """Masks of the named parameters after an iteration for each density of `aims`. Magnitude, snip, grasp, synflow."""
    model = copy.deepcopy(model).double().eval()
    batches = [(x.double(), y) for x, y in batches]
    parameters = dict(model.named_parameters())
    masks = {name: torch.ones_like(parameters[name], dtype=torch.bool) for name in names}
    for aim in aims:
        if method == "magnitude":
            scores = {name: parameters[name].detach().abs() for name in names}
        elif method == "synflow":
            scores = synflow_scores(model, masks, input_shape)
        else:
            scores = (snip_scores if method == "snip" else grasp_scores)(model, masks, batches)
        if scope == "global":
            masks = kept_above(scores, masks, aim)
        else:
            masks = {name: kept_above({name: scores[name]}, {name: masks[name]}, aim)[name] for name in names}
    return masks
