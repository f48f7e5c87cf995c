"""Discovering Neural Wirings' original edge sums, written anew from their description, to be timed against.

Not for training: `hiddennet` is. Faithful where time goes: every forward, in evaluation too, sorts the magnitudes of a
whole graph's weight and zeroes the smallest through the sort's indices; then each block of nodes sends its edges by a
dense 1x1 convolution of a slice of the weight to all destinations behind it, and sums are copied from block to block.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.models.dnw import DiscreteGraph, SmallGraph, StaticGraph


class ChosenEdges(torch.autograd.Function):
    """The largest magnitudes of a weight, the `pruned` smallest zero; identity backwards."""

    @staticmethod
    def forward(ctx, weight: Tensor, pruned: int) -> Tensor:
        chosen = weight.clone()
        order = weight.abs().flatten().sort().indices
        chosen.flatten()[order[:pruned]] = 0
        return chosen

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


def stage_sums(weight: Tensor, pruned: int, nodes: Sequence[Tensor]) -> list[Tensor]:
    """The edge sums of a stage of the MobileNet-like net, block by block.

    Args:
        weight: [out * blocks, inp + out * (blocks - 1), 1, 1], all of it dense.
        pruned: how many of its elements are zeroed.
        nodes: the nodes' outputs, of the inputs and of each intermediate block: [N, inp or out, H, W].

    Returns:
        The sums of each intermediate block and of the outputs, [N, out, H, W].
    """
    chosen = ChosenEdges.apply(weight, pruned)
    out = len(weight) // len(nodes)
    sums, done, column = None, [], 0
    for j, node in enumerate(nodes):
        width = node.shape[1]
        part = F.conv2d(node, chosen[j * out :, column : column + width])
        sums = part if sums is None else sums + part
        done.append(sums[:, :out])
        sums = sums[:, out:]
        column += width
    return done


class OriginalStage(nn.Module):
    """A stage of the MobileNet-like net on the modules of one of ours, whose sums it pushes block by block."""

    def __init__(self, mine: nn.Module, pruned: int) -> None:
        super().__init__()
        self.downsample, self.norm = copy.deepcopy(mine.downsample), copy.deepcopy(mine.norm)
        self.conv = copy.deepcopy(mine.conv) if hasattr(mine, "conv") else None
        self.weight = nn.Parameter(mine.graph.weight.detach().clone()[:, :, None, None])
        self.outputs, self.pruned = mine.shape.outputs, pruned

    def blocks(self) -> list[Tensor]:
        """The chosen weight, sliced for each block of senders; chosen anew at each call."""
        chosen, n, column, found = ChosenEdges.apply(self.weight, self.pruned), self.outputs, 0, []
        for j, norm in enumerate(self.norm):
            found.append(chosen[j * n :, column : column + norm.num_features])
            column += norm.num_features
        return found

    def forward(self, x: Tensor) -> Tensor:
        n, (first, *blocks) = self.outputs, self.blocks()
        sums = F.conv2d(self.downsample(F.relu(self.norm[0](x))), first)
        for j, block in enumerate(blocks, start=1):
            node = F.relu(self.norm[j](sums[:, :n]))
            node = F.conv2d(node, self.conv.weight[(j - 1) * n : j * n], padding=1, groups=n)
            sums = sums[:, n:] + F.conv2d(node, block)
        return sums


class OriginalMobileNet(nn.Module):
    """The MobileNet-like net with the weights of one of ours; its wirings keep as many edges of the whole weight."""

    def __init__(self, mine: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn = copy.deepcopy(mine.conv1), copy.deepcopy(mine.bn)
        graphs = [layer.graph for layer in mine.layers]
        pruned = [graph.weight.numel() - graph.edges for graph in graphs]
        self.layers = nn.Sequential(*map(OriginalStage, mine.layers, pruned))
        self.linear = copy.deepcopy(mine.linear)

    def cached(self) -> OriginalMobileNet:
        """A copy whose weights are chosen once: dense convolutions of blocks that lie by themselves."""
        made = copy.deepcopy(self)
        for stage in made.layers:
            chosen = [block.detach().contiguous() for block in stage.blocks()]
            stage.blocks = lambda chosen=chosen: chosen
        return made

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.layers(self.conv1(x))))
        return self.linear(F.avg_pool2d(x, x.shape[2:]).flatten(1))


class OriginalSmall(nn.Module):
    """A small graph of one of our models' parameters (copied), every edge a position of one dense weight."""

    def __init__(self, model: SmallGraph, image_side: int = 32) -> None:
        super().__init__()
        mine = copy.deepcopy(model)
        self.downsample, self.conv, self.norm, self.fc = mine.downsample, mine.conv, mine.norm, mine.fc
        self.weight = nn.Parameter(mine.graph.weight.detach()[:, :, None, None].clone())
        self.pruned = self.weight.numel() - mine.graph.edges
        self.outputs = mine.config.outputs
        side = image_side // 4
        self.register_buffer("zeros", torch.zeros(1, mine.nodes - mine.inputs, side, side))

    def start(self, images: Tensor) -> Tensor:
        """All nodes' states: the stem's channels, and zeros."""
        inputs = self.downsample(images)
        return torch.cat((inputs, self.zeros.expand(len(inputs), -1, -1, -1)), dim=1)

    def logits(self, outputs: Tensor) -> Tensor:
        middle = outputs.shape[2] // 2 - 1
        cropped = outputs[:, :, middle - 1 : middle + 2, middle - 1 : middle + 2]
        return self.fc(F.avg_pool2d(cropped, 2).flatten(1))


class OriginalStatic(OriginalSmall):
    """Blocks are cut off the front of the state, whose rest is the old rest plus what the block sends: a copy."""

    def __init__(self, model: StaticGraph) -> None:
        super().__init__(model)
        self.bounds = model.bounds

    def forward(self, images: Tensor) -> Tensor:
        state, weight = self.start(images), ChosenEdges.apply(self.weight, self.pruned)
        nodes = self.bounds[-1]
        for norm, start, stop in zip(self.norm, self.bounds[:-1], self.bounds[1:], strict=True):
            sent = F.relu(norm(state[:, : stop - start]), inplace=True)
            sent = F.conv2d(sent, self.conv.weight[start:stop], padding=1, groups=stop - start)
            first = min(stop, nodes - self.outputs)  # the last block sends to the outputs, its own too
            state = state[:, first - start :] + F.conv2d(sent, weight[first:, start:stop])
        return self.logits(state)


class OriginalDiscrete(OriginalSmall):
    """The whole state through every operation at every step, edges chosen anew at each."""

    def __init__(self, model: DiscreteGraph) -> None:
        super().__init__(model)
        self.steps = model.config.steps

    def forward(self, images: Tensor) -> Tensor:
        state = self.start(images)
        for _ in range(self.steps):
            sent = self.conv(F.relu(state, inplace=True))
            state = self.norm(F.conv2d(sent, ChosenEdges.apply(self.weight, self.pruned)))
        return self.logits(state[:, -self.outputs :])
