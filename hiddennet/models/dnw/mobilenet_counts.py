"""Nodes, parameters and multiply-adds of a MobileNetGraph: what really runs, and the original profiler's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hiddennet.nn.reach import paths

if TYPE_CHECKING:
    from .mobilenet import MobileNetGraph


def _running(model: MobileNetGraph) -> dict[str, Tensor]:
    """The running edges of each wiring."""
    return {name: model.get_submodule(name).running() for name in model.layouts()}


@torch.no_grad()
def alive_nodes(model: MobileNetGraph) -> list[Tensor]:
    found = list(paths(model.layouts(), _running(model)).values())[: len(model.layers)]
    sending = [one.nodes[: stage.sources] for one, stage in zip(found, model.config.stages, strict=True)]
    return [*sending, found[-1].nodes[-model.config.features :]]


@torch.no_grad()
def counts(model: MobileNetGraph) -> dict[str, int]:
    config = model.config
    edges = _running(model)
    found = paths(model.layouts(), edges)
    alive, pixels = alive_nodes(model), -(-config.image_size // model.conv1.stride[0])
    effective = 9 * config.in_channels * int(alive[0][: config.stages[0].inputs].sum())
    macs = effective * pixels**2
    for i, stage in enumerate(config.stages):
        pixels = -(-pixels // stage.stride)
        own = 9 * int(alive[i].sum()) + int(found[f"layers.{i}.graph"].edges.sum())
        effective, macs = effective + own, macs + own * pixels**2
    features = int(alive[-1].sum())
    linear = int(found["linear.graph"].edges.sum()) if config.small else features * config.num_classes
    bias = 0 if config.small else config.num_classes
    return {
        "stored": sum(p.numel() for p in model.parameters()),
        "edges": sum(int(model.get_submodule(name).mask().sum()) for name in edges),
        "running": sum(int(one.sum()) for one in edges.values()),
        "nodes": sum(len(nodes) for nodes in alive),
        "alive": sum(int(nodes.sum()) for nodes in alive),
        "effective": effective + linear + bias,
        "macs": macs + linear,
    }


@torch.no_grad()
def profile(model: MobileNetGraph, *, all_alive: bool = False) -> tuple[int, int]:
    config = model.config
    side, first = 112, config.stages[0].inputs
    parameters = macs = 0
    for i, (stage, layer) in enumerate(zip(config.stages, model.layers, strict=True)):
        mask = layer.graph.mask()
        edges = mask.numel() * (1 - config.stage_rate(i))
        sending, receiving = mask.any(dim=0), mask.any(dim=1)[-stage.outputs :]
        if all_alive:
            sources, features, first_alive = stage.sources, stage.outputs, first
        else:  # the original's sums of tensors and floats, in float32
            sources, features = sending.sum().cpu(), int(receiving.sum())
            first_alive = int(sending[:first].sum())
        if i == 0:
            parameters, macs = 27 * first_alive, 27 * first_alive * side * side
        else:
            side //= 2
        parameters += int(9 * sources + edges)
        macs += int(9 * sources * side * side + edges * side * side)
    classifier = config.num_classes * config.features
    linear = int(classifier * (1 - config.classifier_rate)) if config.small else features * config.num_classes
    return parameters + linear, macs + 49 * features + linear


def check_paths(model: MobileNetGraph) -> None:
    layouts, edges = model.layouts(), _running(model)
    now = model.config.stages[0].inputs
    for (name, layout), found in zip(layouts.items(), paths(layouts, edges).values(), strict=True):
        inputs, now = now, int(found.reached[-layout.outputs :].sum())
        if not now:
            raise ValueError(
                f"MobileNetGraph: expected a path from the input to the output, got none over the "
                f"{int(edges[name].sum())} edges of wiring {name!r} (kind {model.config.kind!r}): from the {inputs} of "
                f"its {layout.inputs} inputs that the network's input reaches, none leads to its {layout.outputs} "
                "outputs; keep more edges, or draw them with another seed"
            )
