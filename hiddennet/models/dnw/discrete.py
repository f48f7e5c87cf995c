"""DiscreteGraph: a wiring with cycles, run for a number of time steps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.nn.layout import Layout

from .base import EPS, SmallGraph, instance_norm, walk
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

    def layouts(self) -> dict[str, Layout]:
        return self._layout(run="steps", steps=self.config.steps)

    def reached(self) -> Tensor:
        return walk(self.graph.mask(), self.inputs, self.config.steps)

    def forward(self, images: Tensor) -> Tensor:
        state = self._stem(images)
        weight = self.graph.effective_weight()
        for step in range(1, self.config.steps + 1):
            first = self.nodes - self.config.outputs if step == self.config.steps else 0
            used = weight[first:, : state.shape[1]]
            received = F.conv2d(self._filter(state.relu(), 0), used[:, :, None, None])
            state = instance_norm(received, self.norm.weight[first:], self.norm.bias[first:])
        return self._head(state)
