"""Wirings, and the networks of hiddennet.models.dnw around them, as torch's layers."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.models.dnw import DiscreteGraph, MobileNetGraph, StaticGraph
from hiddennet.models.dnw.base import EPS, NodeConvs, SmallGraph
from hiddennet.models.dnw.mobilenet import SparseLinear
from hiddennet.models.dnw.stage import GraphStage
from hiddennet.nn.wiring import Wiring


def _holding(made: nn.Module, **tensors: Tensor) -> Any:
    """The layer with copies of these tensors for its parameters."""
    for name, tensor in tensors.items():
        setattr(made, name, nn.Parameter(tensor.clone()))
    return made


def _sum(weight: Tensor) -> nn.Conv2d:
    """The sums over edges of weight [destinations, sources], as a convolution."""
    made = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False, device="meta")
    return _holding(made, weight=weight[:, :, None, None])


def _filters(weight: Tensor, stride: int = 1) -> nn.Conv2d:
    """The 3x3 convolutions of nodes, [nodes, 1, 3, 3]."""
    n = len(weight)
    return _holding(nn.Conv2d(n, n, 3, stride, padding=1, groups=n, bias=False, device="meta"), weight=weight)


def _norm(weight: Tensor, bias: Tensor) -> nn.InstanceNorm2d:
    return _holding(nn.InstanceNorm2d(len(weight), eps=EPS, affine=True, device="meta"), weight=weight, bias=bias)


def _linear(weight: Tensor) -> nn.Linear:
    return _holding(nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"), weight=weight)


class Wired(nn.Module):
    """A wiring alone: over dimension 1 of [batch, sources] or [batch, sources, H, W]."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        self.edges = _linear(wiring.eval_weight())

    def forward(self, z: Tensor) -> Tensor:
        return self.edges(z.movedim(1, -1)).movedim(-1, 1)


class Stage(nn.Module):
    """A GraphStage. `edges` are the sums of each block of receivers, over all nodes before it."""

    def __init__(self, stage: GraphStage) -> None:
        super().__init__()
        weight, n = stage.graph.eval_weight(), stage.shape.outputs
        self.norm = stage.norm
        self.conv = nn.ModuleList(_filters(*stage._filters(j)) for j in range(stage.shape.blocks))
        self.edges = nn.ModuleList(_sum(weight[a:b, c:d]) for a, b, c, d in stage.blocks.spans)
        assert all(b - a == n and c == 0 for a, b, c, _ in stage.blocks.spans)

    def forward(self, x: Tensor) -> Tensor:
        sent: list[Tensor] = []
        for norm, conv, edges in zip(self.norm, self.conv, self.edges, strict=True):
            sent.append(conv(F.relu(norm(x))))
            x = edges(torch.cat(sent, 1) if len(sent) > 1 else sent[0])
        return x


class MobileNet(nn.Module):
    """A MobileNetGraph whose stages are ordinary by now."""

    def __init__(self, model: MobileNetGraph) -> None:
        super().__init__()
        self.conv1, self.layers, self.linear, self.bn = model.conv1, model.layers, model.linear, model.bn

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images)
        for stage in self.layers:
            x = stage(x)
        return self.linear(F.relu(self.bn(x)).mean(dim=(2, 3)))


class Small(nn.Module):
    """What the small graphs share. The least side of a stem's maps is 4, so that their windows lie within."""

    def __init__(self, model: SmallGraph) -> None:
        super().__init__()
        self.downsample, self.fc = model.downsample, model.fc
        self.outputs, self.before = model.config.outputs, 2 if model.config.window == "original" else 1

    def head(self, outputs: Tensor) -> Tensor:
        top, left = outputs.shape[2] // 2 - self.before, outputs.shape[3] // 2 - self.before
        return self.fc(outputs[:, :, top : top + 2, left : left + 2].mean(dim=(2, 3)))


class Static(Small):
    """A StaticGraph."""

    def __init__(self, model: StaticGraph) -> None:
        super().__init__(model)
        weight, senders = model.graph.eval_weight(), model._senders
        sizes = [b - a for a, b in senders]
        norms = list(zip(model.norm, sizes, strict=False))
        self.norm = nn.ModuleList(_norm(norm.weight[:n], norm.bias[:n]) for norm, n in norms)
        self.conv = nn.ModuleList(_filters(model.conv.weight[a:b]) for a, b in senders)
        self.edges = nn.ModuleList(_sum(weight[a:b, c:d]) for a, b, c, d in model._blocks.spans)
        ends = [d for *_, d in model._blocks.spans]
        starts = [c for _, _, c, _ in model._blocks.spans]
        blocks = list(pairwise((0, *ends)))
        self.first = [next(i for i, (start, _) in enumerate(blocks) if start == c) for c in starts]
        self.lateral, self.sizes = model.lateral, sizes

    def forward(self, images: Tensor) -> Tensor:
        x, before, sent = self.downsample(images), None, []
        parts = zip(self.norm, self.conv, self.edges, self.first, self.sizes, strict=True)
        for norm, conv, edges, first, n in parts:
            sent.append(conv(F.relu(norm(x[:, :n]))))
            before, x = x, edges(torch.cat(sent[first:], 1) if len(sent) - first > 1 else sent[first])
        return self.head(x + before[:, -self.outputs :] if self.lateral else x)


class Discrete(Small):
    """A DiscreteGraph, whose steps are all of all nodes."""

    def __init__(self, model: DiscreteGraph) -> None:
        super().__init__(model)
        self.conv, self.norm = _filters(model.conv.weight), _norm(model.norm.weight, model.norm.bias)
        self.edges = _sum(model.graph.eval_weight())
        self.steps, self.silent = model.config.steps, model.nodes - model.inputs

    def forward(self, images: Tensor) -> Tensor:
        x = F.pad(self.downsample(images), (0, 0, 0, 0, 0, self.silent))
        for _ in range(self.steps):
            x = self.norm(self.edges(self.conv(F.relu(x))))
        return self.head(x[:, -self.outputs :])


def _as_conv(convs: NodeConvs) -> nn.Conv2d:
    convs.__class__ = nn.Conv2d
    return convs


# of a module of ours that torch.fx does not see through: the ordinary one that computes the same
ORDINARY: dict[type[nn.Module], Callable[..., nn.Module]] = {
    Wiring: Wired,
    GraphStage: Stage,
    SparseLinear: lambda layer: _linear(layer.graph.eval_weight()),
    MobileNetGraph: MobileNet,
    StaticGraph: Static,
    DiscreteGraph: Discrete,
    NodeConvs: _as_conv,
}
