"""Nodes, parameters and multiply-adds of a MobileNetGraph: what really runs, and the original profiler's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .mobilenet_config import Stage

if TYPE_CHECKING:
    from .mobilenet import MobileNetGraph


def reached_nodes(stage: Stage, running: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes that a path over running edges leads to from the given input nodes.

    Args:
        running: bool [destinations, sources]; inputs: bool [stage.inputs].

    Returns:
        bool [sources] and, of outputs, bool [stage.outputs].
    """
    sources = torch.zeros(stage.sources, dtype=torch.bool, device=running.device)
    sources[: stage.inputs] = inputs
    n = stage.outputs
    for j in range(stage.blocks):
        start = stage.inputs + j * n
        received = (running[j * n : (j + 1) * n, :start] & sources[:start]).any(dim=1)
        if j < stage.blocks - 1:
            sources[start : start + n] = received
    return sources, received


def needed_nodes(stage: Stage, running: Tensor, outputs: Tensor) -> Tensor:
    """Nodes from which a path over running edges leads to the given output nodes: bool [sources]."""
    n = stage.outputs
    rows = torch.zeros(stage.destinations, dtype=torch.bool, device=running.device)
    rows[-n:] = outputs
    needed = torch.zeros(stage.sources, dtype=torch.bool, device=running.device)
    for j in reversed(range(stage.blocks)):
        stop = stage.inputs + j * n
        start = stop - n if j else 0
        needed[start:stop] = (running[j * n :, start:stop] & rows[j * n :, None]).any(dim=0)
        if j:
            rows[(j - 1) * n : j * n] = needed[start:stop]
    return needed


@torch.no_grad()
def alive_nodes(model: MobileNetGraph) -> list[Tensor]:
    stages = model.config.stages
    running = [layer.graph.running() for layer in model.layers]
    now = torch.ones(stages[0].inputs, dtype=torch.bool, device=running[0].device)
    reached = []
    for stage, edges in zip(stages, running, strict=True):
        sources, now = reached_nodes(stage, edges, now)
        reached.append(sources)
    wanted = model.linear.graph.running().any(dim=0) if model.config.small else torch.ones_like(now)
    alive = [now & wanted]
    for stage, edges, sources in zip(reversed(stages), reversed(running), reversed(reached), strict=True):
        needed = needed_nodes(stage, edges, wanted)
        alive.insert(0, sources & needed)
        wanted = needed[: stage.inputs]
    return alive


@torch.no_grad()
def counts(model: MobileNetGraph) -> dict[str, int]:
    config = model.config
    alive = alive_nodes(model)
    graphs = [layer.graph for layer in model.layers]
    pixels = -(-config.image_size // model.conv1.stride[0])
    kept = running = 0
    found = 9 * config.in_channels * int(alive[0][: config.stages[0].inputs].sum())
    effective, macs = found, found * pixels**2
    for i, (stage, graph) in enumerate(zip(config.stages, graphs, strict=True)):
        pixels = -(-pixels // stage.stride)
        outputs = alive[i + 1][: stage.outputs]  # the next stage's inputs, or the features
        rows = torch.cat((alive[i][stage.inputs :], outputs))
        edges = graph.running()
        kept, running = kept + int(graph.mask().sum()), running + int(edges.sum())
        found = 9 * int(alive[i].sum()) + int((edges & rows[:, None] & alive[i]).sum())
        effective, macs = effective + found, macs + found * pixels**2
    if config.small:
        edges = model.linear.graph.running()
        kept, running = kept + int(model.linear.graph.mask().sum()), running + int(edges.sum())
        found = int((edges & alive[-1]).sum())
    else:
        found = int(alive[-1].sum()) * config.num_classes
    bias = 0 if config.small else config.num_classes
    return {
        "stored": sum(p.numel() for p in model.parameters()),
        "edges": kept,
        "running": running,
        "nodes": sum(len(nodes) for nodes in alive),
        "alive": sum(int(nodes.sum()) for nodes in alive),
        "effective": effective + found + bias,
        "macs": macs + found,
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
    config = model.config
    now = torch.ones(config.stages[0].inputs, dtype=torch.bool, device=model.conv1.weight.device)
    names = [f"layers.{i}.graph" for i in range(len(config.stages))]
    for name, stage, layer in zip(names, config.stages, model.layers, strict=True):
        edges = layer.graph.running()
        _, after = reached_nodes(stage, edges, now)
        if not bool(after.any()):
            raise _no_path(name, config.kind, int(now.sum()), stage.inputs, stage.outputs, int(edges.sum()))
        now = after
    if config.small:
        edges = model.linear.graph.running()
        if not bool((edges & now).any()):
            shape = (int(now.sum()), config.features, config.num_classes)
            raise _no_path("linear.graph", config.kind, *shape, int(edges.sum()))


def _no_path(name: str, kind: str, reached: int, inputs: int, outputs: int, edges: int) -> ValueError:
    return ValueError(
        f"MobileNetGraph: expected a path from the input to the output, got none over the {edges} edges of wiring "
        f"{name!r} (kind {kind!r}): from the {reached} of its {inputs} inputs that the network's input reaches, none "
        f"leads to its {outputs} outputs; keep more edges, or draw them with another seed"
    )
