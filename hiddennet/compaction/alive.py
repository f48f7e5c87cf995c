"""Which edges of acyclic wirings can change what is read: nn.reach, told which weights are zero."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hiddennet.nn.reach import GraphLayout, backwards, forwards


@dataclass
class Graph:
    """One wiring. Columns are sending nodes: inputs, then intermediate ones; rows are receiving nodes: the intermediate
    ones in the same order, then outputs, which are the next graph's inputs.

    layout: run by blocks. edges: bool [rows, columns], those that are run and are not 0; `reduce` removes some.
    deaf: bool [columns], nodes whose sums do not matter (norm of scale 0).
    mute: bool [columns], nodes that send zeros, whatever they hear (convolution of zeros).
    quiet: bool [columns], nodes that send zeros when they hear nothing.
    """

    layout: GraphLayout
    edges: Tensor
    deaf: Tensor
    mute: Tensor
    quiet: Tensor

    @property
    def senders(self) -> Tensor:
        """bool [columns]: nodes with an edge out."""
        return self.edges.any(0)

    @property
    def outputs(self) -> Tensor:
        """bool: outputs with an edge in."""
        return self.edges[-self.layout.outputs :].any(1)


def reduce(graphs: list[Graph], heard: Tensor, read: Tensor) -> None:
    """Remove the edges that cannot change what is read, from graphs that feed each other.

    Args:
        heard: bool [inputs of the first], those that are not always zero.
        read: bool [outputs of the last], those whose sums matter.
    """
    for graph in graphs:
        layout, columns = graph.layout, graph.edges.shape[1]
        start = read.new_zeros(layout.nodes)
        start[:columns] = ~graph.quiet
        start[: layout.inputs] |= heard & ~graph.deaf[: layout.inputs]
        listening = torch.cat((~graph.deaf[layout.inputs :], read.new_ones(layout.outputs)))
        graph.edges = graph.edges & ~graph.mute & listening[:, None]
        reached = forwards(layout, graph.edges, start)[-1]
        graph.edges &= reached[:columns]
        heard = reached[-layout.outputs :]
    for graph in reversed(graphs):
        layout, rows = graph.layout, graph.edges.shape[0]
        wanted = read.new_zeros(layout.nodes)
        wanted[-layout.outputs :] = read
        wanted = backwards(layout, graph.edges, wanted)[0]
        graph.edges &= wanted[-rows:, None]
        read = graph.senders[: layout.inputs] & ~graph.deaf[: layout.inputs]
