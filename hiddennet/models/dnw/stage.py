"""GraphStage: one acyclic wiring between blocks of channels, a stage of the MobileNet-like network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiddennet.nn.blockwise import Blocks, BlockSums, EdgeLists, worth_lists
from hiddennet.nn.edges import original_random_edges, random_edges
from hiddennet.nn.pull import PullBuffer, slices
from hiddennet.nn.wiring import Wiring

from .mobilenet_config import MobileNetConfig, Stage


class GraphStage(nn.Module):
    """Input nodes and blocks of intermediate nodes whose edges lead to later blocks; the last block is read out.

    A node sends conv(ReLU(BatchNorm(I))) over its edges, I the sum of what it receives, conv a 3x3 depthwise
    convolution, of the stage's stride for the input nodes, whose I is the stage's input. Outputs are sums, without an
    operation.

    Modules: `downsample` (input nodes' convolutions), `conv` (intermediate nodes', absent with one block), `norm` (one
    batch norm a sending block), `graph` (Wiring: rows are intermediate nodes, then outputs; columns input nodes, then
    intermediate ones). [batch, inputs, H, W] to [batch, outputs, H / stride, W / stride], rounded up.
    """

    def __init__(self, config: MobileNetConfig, index: int) -> None:
        super().__init__()
        self.shape = stage = config.stages[index]
        n = stage.outputs
        self.downsample = nn.Sequential(
            nn.Conv2d(stage.inputs, stage.inputs, 3, stage.stride, padding=1, groups=stage.inputs, bias=False)
        )
        if stage.blocks > 1:
            inner = n * (stage.blocks - 1)
            self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        widths = [stage.inputs] + [n] * (stage.blocks - 1)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.graph = _wire(config, index)
        self.blocks = Blocks(tuple(widths), (n,) * stage.blocks)
        self._listed: tuple[Tensor, EdgeLists | None] | None = None  # of which effective weight

    @property
    def spans(self) -> tuple[tuple[int, int, int, int], ...]:
        """Rows and columns of the weight that each block of receivers uses: (first, last + 1) of both."""
        inputs, n, _, blocks = self.shape
        return tuple((j * n, (j + 1) * n, 0, inputs + j * n) for j in range(blocks))

    def _sent(self, received: Tensor, j: int) -> Tensor:
        """What the nodes of sending block j send, of the sums they received."""
        ready = self.norm[j](received).relu_()
        if j == 0:
            return self.downsample(ready)
        n = self.shape.outputs
        own = self.conv.weight[(j - 1) * n : j * n]
        return nn.functional.conv2d(ready, own, padding=1, groups=n)

    def forward(self, received: Tensor) -> Tensor:
        if received.device.type == "cpu":
            return self._node_major(received.transpose(0, 1).contiguous()).transpose(0, 1)
        return self._pulled(received)

    def _pulled(self, received: Tensor) -> Tensor:
        """By dense products over one buffer of all nodes, in torch's order of dimensions."""
        weights = slices(self.graph.effective_weight(usable_only=True), self.spans)
        buffer = None
        for j, weight in enumerate(weights):
            sent = self._sent(received, j)
            buffer = PullBuffer(self.shape.sources, sent) if buffer is None else buffer
            received = buffer.pull(sent, weight, last=j == self.shape.blocks - 1)
        return received

    def _node_major(self, received: Tensor) -> Tensor:
        """The same of [nodes, batch, H, W]: what a CPU is fastest with, which takes each map for a channel's."""
        weight, sums = self.graph.effective_weight(usable_only=True), None
        n = self.shape.outputs
        for j, norm in enumerate(self.norm):
            nodes, batch, height, width = received.shape
            ready = norm(received.view(1, nodes, batch, height * width)).relu_()
            filters = self.downsample[0].weight if j == 0 else self.conv.weight[(j - 1) * n : j * n]
            sent = nn.functional.conv2d(
                ready.view(1, nodes * batch, height, width),
                filters.expand(nodes, batch, 3, 3).reshape(nodes * batch, 1, 3, 3),
                stride=self.shape.stride if j == 0 else 1,
                padding=1,
                groups=nodes * batch,
            )
            sent = sent.view(nodes, batch, *sent.shape[2:])
            sums = BlockSums(weight, self.blocks, self._lists(weight, sent), sent) if sums is None else sums
            received = sums.sum(sent)
        return received

    def _lists(self, weight: Tensor, like: Tensor) -> EdgeLists | None:
        """The edges of an effective weight, where sums over lists are faster; kept while the wiring keeps it."""
        if weight.dtype != torch.float32 or like.dtype != torch.float32 or torch.compiler.is_compiling():
            return None
        values = self.graph.made
        if values is None:  # drawn anew at each forward
            lists = EdgeLists(weight.detach(), self.blocks)
            return lists if worth_lists(lists) else None
        if self._listed is None or self._listed[0] is not values:
            lists = EdgeLists(values, self.blocks)
            self._listed = values, lists if worth_lists(lists) else None
        return self._listed[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_listed": None}


def usable_edges(stage: Stage) -> Tensor:
    """bool [destinations, sources]: edges from a block into later ones."""
    usable = torch.zeros(stage.destinations, stage.sources, dtype=torch.bool, device="cpu")
    for j in range(stage.blocks):
        usable[j * stage.outputs : (j + 1) * stage.outputs, : stage.inputs + j * stage.outputs] = True
    return usable


def _wire(config: MobileNetConfig, index: int) -> Wiring:
    stage, edges = config.stages[index], config.stage_edges(index)
    usable = usable_edges(stage)
    channels = {"in_channels": stage.inputs, "out_channels": stage.outputs}
    return wire(
        config,
        (stage.destinations, stage.sources),
        edges,
        rate=config.stage_rate(index),
        usable=usable,
        layer=index,
        channels=channels,
    )


def wire(
    config: MobileNetConfig,
    shape: tuple[int, int],
    edges: int,
    *,
    rate: float,
    layer: int,
    usable: Tensor | None = None,
    channels: dict[str, int] | None = None,
) -> Wiring:
    """A wiring of a kind and a number of edges.

    Args:
        shape: (n_destinations, n_sources).
        rate: the pruned fraction as the original has it: its targeted dropouts', and every one's default `drop`.
        layer: tells the random edges of wirings with one seed apart.
        channels: of original_random_edges.
    """
    rows, columns = shape
    kind = config.kind

    def drawn() -> Tensor:
        if config.compat:
            return original_random_edges(shape, rows * columns - edges, **(channels or {}))
        return random_edges(shape, edges, usable, config.seed, layer)

    options: dict[str, object] = {"edges": edges}
    if kind == "random":
        options = {"chosen": drawn}
    elif kind == "regular_targeted_dropout":
        pruned = int(rate * columns) if config.compat else columns - min(-(-edges // rows), columns)
        options = {"density": 0.0 if pruned == columns else 1 - (pruned + 0.5) / columns}
    if kind in ("targeted_dropout", "regular_targeted_dropout"):
        options["drop"] = rate if config.drop is None else config.drop
    elif config.drop is not None:
        options["drop"] = config.drop  # refused
    return Wiring(columns, rows, kind=kind, usable=usable, seed=config.seed, compat=config.compat, **options)
