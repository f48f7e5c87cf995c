"""MobileNetGraph: MobileNetV1 with wirings in place of its stages of separable convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.nn.graph_layout import GraphLayout
from hiddennet.nn.wiring import Wiring

from .mobilenet_config import MobileNetConfig
from .mobilenet_counts import Counted
from .stage import GraphStage, wire


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


class MobileNetGraph(Counted):
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
