"""GraphStage: one acyclic wiring between blocks of channels, a stage of the MobileNet-like network."""

from collections.abc import Callable

from torch import Tensor, nn

from hiddennet.nn.block_sums import Blocks, BlockSums
from hiddennet.nn.edge_rules import DROPOUTS, original_random_edges, random_edges
from hiddennet.nn.wiring import Wiring

from .base import NodeConvs
from .mobilenet_config import MobileNetConfig, StageShape


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
        self.downsample = nn.Sequential(NodeConvs(stage.inputs, stage.stride))
        if stage.blocks > 1:
            inner = n * (stage.blocks - 1)
            self.conv = NodeConvs(inner)
        widths = [stage.inputs] + [n] * (stage.blocks - 1)
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.blocks = _blocks(stage)
        self.graph = wire(
            config,
            (stage.destinations, stage.sources),
            config.stage_edges(index),
            rate=config.stage_rate(index),
            usable=usable_edges(stage),
            layer=index,
            channels={"in_channels": stage.inputs, "out_channels": n},
        )

    def forward(self, received: Tensor) -> Tensor:
        """On a CPU node by node (`_sent_by_nodes`); elsewhere in torch's order of dimensions, which are views here."""
        if received.device.type == "cpu":
            return self._run(received.transpose(0, 1).contiguous(), self._sent_by_nodes).transpose(0, 1)
        return self._run(received.transpose(0, 1), self._sent).transpose(0, 1)

    def _run(self, received: Tensor, send: Callable[[Tensor, int], Tensor]) -> Tensor:
        """[nodes, batch, H, W] of the inputs to those of the outputs."""
        weight, (lists,) = self.graph.listed(self.blocks)
        sums = None
        for j in range(self.shape.blocks):
            sent = send(received, j)
            sums = BlockSums(weight, self.blocks, lists, sent) if sums is None else sums
            received = sums.sum(sent)
        return received

    def _sent(self, received: Tensor, j: int) -> Tensor:
        """What the nodes of sending block j send, of the sums they received."""
        filters, stride = self._filters(j)
        ready = self.norm[j](received.transpose(0, 1)).relu_()
        return nn.functional.conv2d(ready, filters, None, stride, 1, groups=len(filters)).transpose(0, 1)

    def _sent_by_nodes(self, received: Tensor, j: int) -> Tensor:
        """The same with each map for a channel's: what a CPU is fastest with."""
        nodes, batch, height, width = received.shape
        ready = self.norm[j](received.view(1, nodes, batch, height * width)).relu_()
        filters, stride = self._filters(j)
        sent = nn.functional.conv2d(
            ready.view(1, nodes * batch, height, width),
            filters.expand(nodes, batch, 3, 3).reshape(nodes * batch, 1, 3, 3),
            stride=stride,
            padding=1,
            groups=nodes * batch,
        )
        return sent.view(nodes, batch, *sent.shape[2:])

    def _filters(self, j: int) -> tuple[Tensor, int]:
        """Convolutions of the nodes of sending block j, and their stride."""
        if j == 0:
            return self.downsample[0].weight, self.shape.stride
        n = self.shape.outputs
        return self.conv.weight[(j - 1) * n : j * n], 1


def usable_edges(stage: StageShape) -> Tensor:
    """bool [destinations, sources]: edges from a block into later ones."""
    return _blocks(stage).positions(stage.destinations, stage.sources)


def _blocks(stage: StageShape) -> Blocks:
    n = stage.outputs
    return Blocks(tuple((j * n, (j + 1) * n, 0, stage.inputs + j * n) for j in range(stage.blocks)))


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
    drop = rate if config.drop is None and kind in DROPOUTS else config.drop
    options |= {"usable": usable, "drop": drop, "seed": config.seed, "layer": layer, "compat": config.compat}
    return Wiring(columns, rows, kind=kind, **options)
