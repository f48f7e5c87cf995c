"""StaticGraph: an acyclic wiring, run block by block."""

from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor, nn

from hiddennet.nn.block_sums import Blocks, BlockSums
from hiddennet.nn.reach import GraphLayout
from hiddennet.ops.wired_levels import Levels

from .base import EPS, SmallGraph, instance_norm, nodes_first
from .config import StaticConfig


class StaticGraph(SmallGraph):
    """Blocks of nodes whose edges lead to later blocks; the last nodes are read out as sums, without an operation.

    Node u of block i sends z_u = conv_u(ReLU(InstanceNorm_i(I_u))) over its edges; I_v sums what v receives. With
    compat, edges are kept at positions that are never run, too, and the original's last lateral step is done.

    Modules beside SmallGraph's: `norm`, one instance norm a block. Nodes that send nothing (the outputs, unless
    `lateral`) have parameters of no use, so that the tensors are the original's.

    Raises ValueError: see StaticConfig and hiddennet.nn.Wiring.
    """

    config: StaticConfig

    def __init__(self, config: StaticConfig | None = None) -> None:
        config = StaticConfig() if config is None else config
        super().__init__(config, sum(config.blocks), config.blocks[0])
        self.lateral = config.lateral or config.compat
        self.bounds = (0, *accumulate(config.blocks))
        self.graph = self._wire(self._blocks.positions(self.nodes, self.nodes), static=True)
        self.fc = nn.Linear(config.outputs, config.num_classes)
        self.norm = nn.ModuleList(nn.InstanceNorm2d(n, eps=EPS, affine=True) for n in config.blocks)
        self._check_fixed()

    @property
    def _senders(self) -> tuple[tuple[int, int], ...]:
        """First and last + 1 node of each block that sends."""
        end = self.nodes if self.lateral else self.nodes - self.config.outputs
        pairs = zip(self.bounds[:-1], self.bounds[1:], strict=True)
        return tuple((a, min(b, end)) for a, b in pairs if a < end)

    @cached_property
    def _blocks(self) -> Blocks:
        """What is summed after each block of senders."""
        senders, first_output = self._senders, self.nodes - self.config.outputs
        spans = [(a, b, 0, a) for a, b in senders[1:]]
        spans.append((first_output, self.nodes, senders[-1][0] if self.lateral else 0, senders[-1][1]))
        return Blocks(tuple(spans))

    @cached_property
    def _levels(self) -> Levels:
        """The same as levels of `wired_levels`: a column is a node."""
        senders, (a, b, c, d) = self._senders, self._blocks.spans[-1]
        first = (0, senders[0][1], 0, 0, 0)
        inner = [(start, stop - start, 0, start, 0) for start, stop in senders[1:]]
        return Levels((first, *inner, (a, b - a, c, d - c, c)), EPS, lateral=self.lateral)

    def _affine(self) -> tuple[Tensor, Tensor]:
        return torch.cat([norm.weight for norm in self.norm]), torch.cat([norm.bias for norm in self.norm])

    def layouts(self) -> dict[str, GraphLayout]:
        return self._layout(blocks=self.config.blocks)

    def forward(self, images: Tensor) -> Tensor:
        stem = self._stem(images)
        outputs = self._by_levels(stem, self._levels)
        return self._head(self._by_blocks(stem) if outputs is None else outputs)

    def _by_blocks(self, stem: Tensor) -> Tensor:
        maps = nodes_first(stem)
        weight, (lists,) = self.graph.listed(self._blocks)
        sums = None
        for norm, (start, stop) in zip(self.norm, self._senders, strict=False):
            n = stop - start
            sent = self._filter(instance_norm(maps[:n], norm.weight[:n], norm.bias[:n]).relu_(), start)
            sums = BlockSums(weight, self._blocks, lists, sent) if sums is None else sums
            before, maps = maps, sums.sum(sent)
        if self.lateral:
            maps = maps + before[-self.config.outputs :]
        return maps.transpose(0, 1)
