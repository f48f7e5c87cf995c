"""What the small graphs share: stem, node operations, head, and what is known of their edges."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.models.dnw.config import GraphConfig
from hiddennet.nn.edge_rules import original_random_edges
from hiddennet.nn.reach import GraphLayout, paths
from hiddennet.nn.wiring import Wiring
from hiddennet.ops.fakes import is_looked_at
from hiddennet.ops.wired_levels import SIDE, Levels, Rooms, wired_levels
from hiddennet.ops.wired_sum import SPARSE_UP_TO

EPS = 1e-5  # of instance norms


class NodeConvs(nn.Conv2d):
    """A depthwise 3x3 convolution whose weights the graphs use block by block: no layer that hide() may replace."""

    never_hidden = True

    def __init__(self, nodes: int, stride: int = 1) -> None:
        super().__init__(nodes, nodes, 3, stride, padding=1, groups=nodes, bias=False)


class SmallGraph(nn.Module):
    """A stem, a graph of channels, and a classifier of its output nodes. Wortsman et al. 2019, small scale.

    Modules: `downsample` (stem: image / 4), `conv` (3x3 depthwise, one a node), `graph` (Wiring over all nodes), `norm`
    (instance norm), `fc`. Images [batch, in_channels, H, W], H and W at least 16, to logits [batch, num_classes].
    """

    graph: Wiring

    def __init__(self, config: GraphConfig, nodes: int, inputs: int) -> None:
        super().__init__()
        self.config, self.nodes, self.inputs = config, nodes, inputs
        stem = config.stem_channels
        self.downsample = nn.Sequential(
            nn.Conv2d(config.in_channels, stem, 3, stride=2, padding=1),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem, stem, 3, stride=2, padding=1, groups=stem),
            nn.Conv2d(stem, inputs, 1),
            nn.BatchNorm2d(inputs),
        )
        self.conv = NodeConvs(nodes)
        self._rooms = Rooms()

    def _wire(self, usable: Tensor | None, *, static: bool) -> Wiring:
        """The edges over all nodes; the original's static random graph forbids some, its others none."""
        config, shape = self.config, (self.nodes, self.nodes)
        options = {"edges": config.edges} if config.edges is not None else {"density": config.density}

        def original() -> Tensor:
            count = Wiring(self.nodes, self.nodes, kind="dnw", compat=True, **options).edges
            channels = (self.inputs, config.outputs) if static else (None, None)
            pruned = self.nodes**2 - count
            return original_random_edges(shape, pruned, in_channels=channels[0], out_channels=channels[1])

        chosen = original if config.kind == "random" and config.compat else None
        return Wiring(
            self.nodes,
            self.nodes,
            kind=config.kind,
            usable=usable,
            drop=config.drop,
            chosen=chosen,
            seed=config.seed,
            compat=config.compat,
            **options,
        )

    def _head(self, outputs: Tensor) -> Tensor:
        """Output nodes' maps [batch, outputs, h, w] to logits."""
        top, left = (max(0, side // 2 - 1) for side in outputs.shape[2:])
        if self.config.window == "original":
            top, left = top - 1, left - 1
        return self.fc(outputs[:, :, top : top + 2, left : left + 2].mean(dim=(2, 3)))

    def _stem(self, images: Tensor) -> Tensor:
        wanted = self.config.in_channels
        if images.dim() != 4 or images.shape[1] != wanted or min(images.shape[2:]) < 16:
            raise ValueError(
                f"{type(self).__name__}: expected images [batch, {wanted}, H, W] of at least 16 x 16 pixels, "
                f"got {tuple(images.shape)}"
            )
        return self.downsample(images)

    def _by_levels(self, stem: Tensor, levels: Levels) -> Tensor | None:
        """What the last level receives, [batch, outputs, h, w], where one op runs the graph; else None."""
        if stem.device.type != "cpu":
            return None
        weight = self.graph.listed()[0]
        if torch.is_autocast_enabled("cpu"):
            stem = stem.float()  # in float32 it is faster than block by block in bfloat16
        if not runs_by_levels(stem, weight, levels):
            return None
        scale, shift = self._affine()
        return wired_levels(stem, weight, scale, shift, self.conv.weight, levels, self._rooms)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of all nodes' instance norms."""
        return self.norm.weight, self.norm.bias

    def _filter(self, maps: Tensor, start: int) -> Tensor:
        """The depthwise convolutions of the nodes from `start` on, of node-major maps [n, batch, h, w]."""
        weight = self.conv.weight[start : start + maps.shape[0]]
        return depthwise(maps, weight)

    def layouts(self) -> dict[str, GraphLayout]:
        """Which nodes the rows and columns of `graph` are, and how they are run."""
        raise NotImplementedError

    def _layout(self, **run: object) -> dict[str, GraphLayout]:
        split = (self.inputs, self.nodes - self.inputs - self.config.outputs, self.config.outputs)
        blocks = tuple(n for n in split if n) if min(split) >= 0 else (self.nodes,)  # outputs may be inputs
        options = {"blocks": blocks, "inputs": self.inputs, "outputs": self.config.outputs}
        return {"graph": GraphLayout(**{**options, "operation": 9, "strides": (2, 2), **run})}

    def check_paths(self) -> None:
        """Raises ValueError when no path of running edges leads from the input nodes to an output node."""
        found = paths(self.layouts(), {"graph": self.graph.running()})["graph"]
        if bool(found.reached[-self.config.outputs :].any()):
            return
        raise ValueError(
            f"{type(self).__name__}: expected a path from its {self.inputs} input nodes to its {self.config.outputs} "
            f"output nodes, got none over the {int(self.graph.running().count_nonzero())} edges of wiring 'graph' "
            f"(kind {self.config.kind!r}); keep more edges, or draw them with another seed"
        )

    def _check_fixed(self) -> None:
        fixed = self.config.kind == "random" and not self.config.compat  # other kinds can still find a path
        if fixed and not self.graph.weight.is_meta:
            self.check_paths()

    @torch.no_grad()
    def counts(self) -> dict[str, int]:
        """Parameters: "stored"; "edges" kept, of which "running" are ones the graph runs; "sending" nodes with a
        running edge; "effective": kept edges and all other parameters but the instance norms'."""
        stored = sum(p.numel() for p in self.parameters())
        norm = sum(p.numel() for p in self.norm.parameters())
        mask, running = self.graph.mask(), self.graph.running()
        edges = int(mask.count_nonzero())
        return {
            "stored": stored,
            "edges": edges,
            "running": int(running.count_nonzero()),
            "sending": int(running.any(dim=0).count_nonzero()),
            "effective": stored - norm - self.graph.weight.numel() + edges,
        }


def nodes_first(x: Tensor) -> Tensor:
    """[batch, n, h, w] as node-major maps [n, batch, h, w], contiguous; a copy unless x is a view of such."""
    return x.transpose(0, 1).contiguous()


def depthwise(maps: Tensor, weight: Tensor) -> Tensor:
    """The 3x3 filter of each node, [n, 1, 3, 3], over node-major maps [n, batch, h, w]."""
    n, batch, h, w = maps.shape
    filters = weight[:, None].expand(-1, batch, -1, -1, -1).reshape(n * batch, 1, 3, 3)
    return F.conv2d(maps.view(1, n * batch, h, w), filters, padding=1, groups=n * batch).view(n, batch, h, w)


def instance_norm(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Instance norm of node-major maps [n, batch, h, w] with a scale and a shift a node; each map's own statistics, in
    evaluation too."""
    n, batch, h, w = maps.shape
    scale, shift = (p[:, None].expand(-1, batch).reshape(-1) for p in (weight, bias))
    together = maps.view(1, n * batch, h, w)  # a batch norm over one image has the statistics of each map
    return F.batch_norm(together, None, None, scale, shift, training=True, eps=EPS).view(n, batch, h, w)


def runs_by_levels(stem: Tensor, weight: Tensor, levels: Levels) -> bool:
    """Whether the sums of these levels are better by lists of edges, of a whole graph at once; else block by block."""
    if is_looked_at() and not torch._C._is_tracing():  # a trace has the op; by blocks it fails
        return False
    if stem.device.type != "cpu" or stem.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if tuple(stem.shape[2:]) != (SIDE, SIDE):
        return False
    parts = {level[:4] for level in levels.of}
    edges = sum(int(weight.detach()[a : a + rows, c : c + columns].count_nonzero()) for a, rows, c, columns in parts)
    return edges <= SPARSE_UP_TO["cpu"] * sum(rows * columns for _, rows, _, columns in parts)
