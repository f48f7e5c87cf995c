"""Discovering Neural Wirings' original edge sums, written anew from their description, to be timed against.

Not for training: `hiddennet` is. Faithful where time goes: every forward, in evaluation too, sorts the magnitudes of a
whole graph's weight and zeroes the smallest through the sort's indices; then each block of nodes sends its edges by a
dense 1x1 convolution of a slice of the weight to all destinations behind it, and sums are copied from block to block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


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
