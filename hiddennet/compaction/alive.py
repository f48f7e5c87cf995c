"""Which nodes and edges of a wiring can change its output: masks, to a fixed point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Stage:
    """A stage of an acyclic graph. Columns are sending nodes: inputs, then intermediate ones; rows are receiving nodes:
    the intermediate ones in the same order, then outputs, which are the next stage's inputs.

    edges: bool [rows, columns], those that are run and are not 0; changed in place.
    inputs: how many columns are inputs.
    deaf: bool [columns], nodes whose sums do not matter (norm of scale 0).
    mute: bool [columns], nodes that send zeros, whatever they hear (convolution of zeros).
    quiet: bool [columns], nodes that send zeros when they hear nothing.
    """

    edges: Tensor
    inputs: int
    deaf: Tensor
    mute: Tensor
    quiet: Tensor

    @property
    def senders(self) -> Tensor:
        """bool [columns]: nodes with an edge out."""
        return self.edges.any(0)

    @property
    def receivers(self) -> Tensor:
        """bool [rows]: nodes with an edge in."""
        return self.edges.any(1)

    @property
    def intermediate(self) -> int:
        """Nodes that are neither inputs nor outputs."""
        return self.edges.shape[1] - self.inputs

    @property
    def outputs(self) -> Tensor:
        """bool: outputs with an edge in."""
        return self.receivers[self.intermediate :]


def reduce_stages(stages: Sequence[Stage], heard_inputs: Tensor, read: Tensor, deaf: Tensor) -> None:
    """Remove edges from the stages until none is left that cannot change what is read.

    Args:
        heard_inputs: bool [inputs of the first stage], those that are not always zero.
        read: bool [outputs of the last stage], those that are read.
        deaf: bool of the same shape, those whose sums do not matter for what is read of them.
    """
    while True:
        before = sum(int(stage.edges.count_nonzero()) for stage in stages)
        _forward(stages, heard_inputs)
        _backward(stages, read & ~deaf)
        if sum(int(stage.edges.count_nonzero()) for stage in stages) == before:
            return


def _forward(stages: Sequence[Stage], heard_inputs: Tensor) -> None:
    """No edge leaves a node that sends zeros."""
    for stage in stages:
        heard = torch.cat((heard_inputs, stage.receivers[: stage.intermediate])) & ~stage.deaf
        stage.edges &= ~(stage.mute | (stage.quiet & ~heard))
        heard_inputs = stage.outputs


def _backward(stages: Sequence[Stage], wanted: Tensor) -> None:
    """No edge enters a node that nobody hears, or that does not listen. In a stage later blocks are done first: a
    graph without cycles is done after as many passes as it has blocks."""
    for stage in reversed(stages):
        while True:
            count = int(stage.edges.count_nonzero())
            listens = stage.senders & ~stage.deaf
            stage.edges &= torch.cat((listens[stage.inputs :], wanted))[:, None]
            if int(stage.edges.count_nonzero()) == count:
                break
        wanted = stage.senders[: stage.inputs] & ~stage.deaf[: stage.inputs]
