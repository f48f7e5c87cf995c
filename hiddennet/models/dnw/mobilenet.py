"""MobileNetGraph: MobileNetV1 with wirings in place of its stages of separable convolutions; its nodes and costs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.models.dnw.mobilenet_config import MobileNetConfig
from hiddennet.models.dnw.stage import GraphStage, wire
from hiddennet.nn.reach import GraphLayout, Paths, paths
from hiddennet.nn.wiring import Wiring


class SparseLinear(nn.Module):
    """A classifier of which a wiring, `graph`, keeps some weights: [batch, features] to [batch, num_classes]."""

    graph: Wiring

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__()
        shape = (config.num_classes, config.features)
        layer = len(config.stages)
        self.graph = wire(config, shape, config.classifier_edges, rate=config.classifier_rate, layer=layer)

    def forward(self, features: Tensor) -> Tensor:
        return self.graph(features)


class MobileNetGraph(nn.Module):
    """Wortsman et al. 2019, section 4.2: a 3x3 convolution, stages of nodes, a classifier of the last stage's means.

    Modules: `conv1` (without norm or ReLU: the first stage begins with them), `layers` (GraphStage each), `linear`
    (nn.Linear, or SparseLinear with `small`), `bn`. Images [batch, in_channels, H, W] to logits [batch, num_classes].

    Raises ValueError: see MobileNetConfig and hiddennet.nn.Wiring; no path from the input to the output.
    """

    def __init__(self, config: MobileNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = MobileNetConfig() if config is None else config
        stride = 1 if config.image_size <= 64 else 2
        self.conv1 = nn.Conv2d(config.in_channels, config.stages[0].inputs, 3, stride, padding=1, bias=False)
        self.layers = nn.ModuleList(GraphStage(config, i) for i in range(len(config.stages)))
        self.linear = SparseLinear(config) if config.small else nn.Linear(config.features, config.num_classes)
        self.bn = nn.BatchNorm2d(config.features)
        if config.kind == "random" and not (config.compat or self.conv1.weight.is_meta):  # others can find a path yet
            self.check_paths()

    def layouts(self) -> dict[str, GraphLayout]:
        """Which nodes the rows and columns of each wiring are, and how they are run."""
        found: dict[str, GraphLayout] = {}
        strides: tuple[int, ...] = tuple(self.conv1.stride[:1])
        for i, stage in enumerate(self.config.stages):
            strides += (stage.stride,)
            found[f"layers.{i}.graph"] = GraphLayout(
                blocks=(stage.inputs, *(stage.outputs,) * stage.blocks),
                inputs=stage.inputs,
                outputs=stage.outputs,
                operation=9,
                strides=strides,
                after=f"layers.{i - 1}.graph" if i else None,
            )
        if self.config.small:
            sizes = (self.config.features, self.config.num_classes)
            found["linear.graph"] = GraphLayout(
                blocks=sizes,
                inputs=sizes[0],
                outputs=sizes[1],
                pooled=True,
                after=f"layers.{len(self.layers) - 1}.graph",
            )
        return found

    def forward(self, images: Tensor) -> Tensor:
        wanted = self.config.in_channels
        if images.dim() != 4 or images.shape[1] != wanted:
            raise ValueError(f"MobileNetGraph: expected images [batch, {wanted}, H, W], got {tuple(images.shape)}")
        x = self.conv1(images)
        for stage in self.layers:
            x = stage(x)
        return self.linear(F.relu(self.bn(x), inplace=True).mean(dim=(2, 3)))

    # what really runs

    @torch.no_grad()
    def _paths(self) -> tuple[dict[str, Tensor], dict[str, Paths]]:
        """The running edges of each wiring, and what lies on a path of them."""
        edges = {name: self.get_submodule(name).running() for name in self.layouts()}
        return edges, paths(self.layouts(), edges)

    def alive_nodes(self) -> list[Tensor]:
        """Nodes on a path of kept edges from the input to a logit: bool [sources] of each stage, then bool
        [features]."""
        return self._alive(self._paths()[1])

    def _alive(self, found: dict[str, Paths]) -> list[Tensor]:
        nodes = [one.nodes for one in found.values()][: len(self.layers)]
        sending = [one[: stage.sources] for one, stage in zip(nodes, self.config.stages, strict=True)]
        return [*sending, nodes[-1][-self.config.features :]]

    @torch.no_grad()
    def counts(self) -> dict[str, int]:
        """What really runs, in evaluation.

        "stored" parameters; "edges" kept, of which "running" are ones the graphs run; "nodes", of which "alive" are on
        a path from the input to a logit; "effective": parameters of these and of edges between them, without batch
        norms, which fold into them; "macs": multiply-adds of an image of config.image_size over these.
        """
        config, (edges, found) = self.config, self._paths()
        alive, pixels = self._alive(found), -(-config.image_size // self.conv1.stride[0])
        effective = 9 * config.in_channels * int(alive[0][: config.stages[0].inputs].sum())
        macs = effective * pixels**2
        for i, stage in enumerate(config.stages):
            pixels = -(-pixels // stage.stride)
            own = 9 * int(alive[i].sum()) + int(found[f"layers.{i}.graph"].edges.sum())
            effective, macs = effective + own, macs + own * pixels**2
        features = int(alive[-1].sum())
        linear = int(found["linear.graph"].edges.sum()) if config.small else features * config.num_classes
        bias = 0 if config.small else config.num_classes
        return {
            "stored": sum(p.numel() for p in self.parameters()),
            "edges": sum(int(self.get_submodule(name).mask().sum()) for name in edges),
            "running": sum(int(one.sum()) for one in edges.values()),
            "nodes": sum(len(nodes) for nodes in alive),
            "alive": sum(int(nodes.sum()) for nodes in alive),
            "effective": effective + linear + bias,
            "macs": macs + linear,
        }

    def check_paths(self) -> None:
        """Raises ValueError when no path of kept edges leads from the input to a logit; it names the wiring."""
        (edges, found), now = self._paths(), self.config.stages[0].inputs
        for name, layout in self.layouts().items():
            inputs, now = now, int(found[name].reached[-layout.outputs :].sum())
            if not now:
                raise ValueError(
                    f"MobileNetGraph: expected a path from the input to the output, got none over the "
                    f"{int(edges[name].sum())} edges of wiring {name!r} (kind {self.config.kind!r}): from the {inputs} "
                    f"of its {layout.inputs} inputs that the network's input reaches, none leads to its "
                    f"{layout.outputs} outputs; keep more edges, or draw them with another seed"
                )
