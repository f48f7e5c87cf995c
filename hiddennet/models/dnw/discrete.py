"""DiscreteGraph: a wiring with cycles, run for a number of time steps."""

from functools import cached_property

import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.nn.block_sums import Blocks, node_sum
from hiddennet.nn.reach import GraphLayout
from hiddennet.ops.wired_levels import Levels

from .base import EPS, SmallGraph, instance_norm, nodes_first
from .config import DiscreteConfig


class DiscreteGraph(SmallGraph):
    """S_t = InstanceNorm(W conv(ReLU(S_{t-1}))), from S_0 = the stem's channels and zeros; the end of S_T is read out.

    Any node may send to any, itself too, and the first ones are not held. What is zero anyway is not computed: at the
    first step only the inputs send, at the last only the outputs receive.

    Raises ValueError: see DiscreteConfig and hiddennet.nn.Wiring.
    """

    config: DiscreteConfig

    def __init__(self, config: DiscreteConfig | None = None) -> None:
        config = DiscreteConfig() if config is None else config
        super().__init__(config, config.nodes, config.inputs)
        self.graph = self._wire(None, static=False)
        self.norm = nn.InstanceNorm2d(config.nodes, eps=EPS, affine=True)
        self.fc = nn.Linear(config.outputs, config.num_classes)
        self._check_fixed()

    def layouts(self) -> dict[str, GraphLayout]:
        return self._layout(run="steps", steps=self.config.steps)

    @cached_property
    def _levels(self) -> Levels:
        """The steps as levels: what a step reads are the nodes of the one before."""
        config, nodes = self.config, self.nodes
        found = [(0, self.inputs, 0, 0, 0)]
        for step in range(config.steps):
            rows = config.outputs if step == config.steps - 1 else nodes
            columns, first = (nodes, self.inputs + (step - 1) * nodes) if step else (self.inputs, 0)
            found.append((nodes - rows, rows, 0, columns, first))
        return Levels(tuple(found), EPS, first_norm=False)

    def forward(self, images: Tensor) -> Tensor:
        stem = self._stem(images)
        received = self._by_levels(stem, self._levels)
        if received is None:
            return self._head(self._by_steps(stem))
        affine = (parameter[-self.config.outputs :] for parameter in self._affine())
        return self._head(F.instance_norm(received, None, None, *affine, eps=EPS))

    def _by_steps(self, stem: Tensor) -> Tensor:
        config, nodes = self.config, self.nodes
        firsts = [0] * (config.steps - 1) + [nodes - config.outputs]  # who receives, to the last node
        senders = [self.inputs] + [nodes] * (config.steps - 1)
        steps = [Blocks(((first, nodes, 0, stop),)) for first, stop in zip(firsts, senders, strict=True)]
        weight, lists = self.graph.listed(*steps)
        maps = nodes_first(stem)
        for first, blocks, edges in zip(firsts, steps, lists, strict=True):
            received = node_sum(self._filter(maps.relu(), 0), weight, blocks, edges)
            maps = instance_norm(received, self.norm.weight[first:], self.norm.bias[first:])
        return maps.transpose(0, 1)
