"""What a MobileNet-like wiring is made of, and how many edges its width lets each stage keep."""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from hiddennet.nn.edge_rules import KINDS
from hiddennet.ops.checks import check_counts

MOST_BLOCKS = 10_000  # modules of a network


class StageShape(NamedTuple):
    """One graph: `inputs` nodes and `blocks` - 1 blocks of `outputs` nodes send, as many blocks of `outputs` receive.

    stride: of the input nodes' convolutions.
    """

    inputs: int
    outputs: int
    stride: int
    blocks: int

    @property
    def sources(self) -> int:
        return self.inputs + self.outputs * (self.blocks - 1)

    @property
    def destinations(self) -> int:
        return self.outputs * self.blocks

    @property
    def positions(self) -> int:
        """Elements of the weight."""
        return self.sources * self.destinations

    @property
    def usable(self) -> int:
        """Positions that are edges of the acyclic graph: from a block into later ones."""
        return self.destinations * self.inputs + self.outputs**2 * (self.blocks * (self.blocks - 1) // 2)

    @property
    def pointwise(self) -> int:
        """Weights of MobileNetV1's pointwise convolutions in its place."""
        return self.inputs * self.outputs + (self.blocks - 1) * self.outputs**2


STAGES = (
    StageShape(32, 64, 1, 1),
    StageShape(64, 128, 2, 2),
    StageShape(128, 256, 2, 2),
    StageShape(256, 512, 2, 6),
    StageShape(512, 1024, 2, 2),
)


@dataclass(frozen=True, kw_only=True)
class MobileNetConfig:
    """Of MobileNetGraph.

    Args:
        width: a stage keeps as many edges as the pointwise convolutions of a MobileNetV1 of this width (times its
            channels) have weights: width^2 of those of width 1, rounded up. Unused by kind "complete".
        small: the classifier is a wiring, too, that keeps a fraction `width` of its weights, without a bias.
        kind: of graph, see hiddennet.nn.Wiring; drop: of targeted dropout.
        num_classes, in_channels: logits and image channels.
        image_size: of the square images: at most 64, the first convolution has stride 1, else 2.
        seed: of edges drawn for kind "random".
        compat: the original's edges: kept ones are counted, and searched, over the whole weight, in which only a part
            of the positions is ever run; see also hiddennet.nn.Wiring.
        stages: (inputs, outputs, stride, blocks) each.
    """

    width: float = 0.225
    small: bool = False
    kind: str = "dnw"
    drop: float | None = None
    num_classes: int = 1000
    in_channels: int = 3
    image_size: int = 224
    seed: int = 0
    compat: bool = False
    stages: tuple[StageShape, ...] = STAGES

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(StageShape(*stage) for stage in self.stages))
        names = ("num_classes", "in_channels", "image_size")
        counts = {name: getattr(self, name) for name in names}
        for i, stage in enumerate(self.stages):
            counts |= {f"stages[{i}] {name}": value for name, value in stage._asdict().items()}
        check_counts("MobileNetConfig", counts)
        if not self.stages:
            raise ValueError("MobileNetConfig: expected at least one stage, got none")
        if sum(stage.blocks for stage in self.stages) > MOST_BLOCKS:
            raise ValueError(f"MobileNetConfig: expected at most {MOST_BLOCKS} blocks, got stages {self.stages!r:.80}")
        for i in range(1, len(self.stages)):
            before, after = self.stages[i - 1].outputs, self.stages[i].inputs
            if before != after:
                raise ValueError(
                    f"MobileNetConfig: expected stages[{i}] to have {before} inputs, the outputs of the stage before, "
                    f"got {after}"
                )
        if self.kind not in KINDS:
            raise ValueError(f"MobileNetConfig: expected kind to be one of {KINDS}, got {self.kind!r}")
        self._check_width()

    def _check_width(self) -> None:
        width = self.width
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0.0 <= width < float("inf"):
            raise ValueError(f"MobileNetConfig: expected width to be a number of at least 0, got {width!r}")
        if self.kind == "complete":
            return
        most = [("linear.graph", 1.0)] if self.small else []
        most += [(f"layers.{i}.graph", math.sqrt(s.usable / s.pointwise)) for i, s in enumerate(self.stages)]
        for name, limit in most:
            if width > limit:
                raise ValueError(
                    f"MobileNetConfig: expected a width of at most {limit:.4g}, at which wiring {name!r} keeps every "
                    f"usable edge, got {width}; use a smaller width, or kind 'complete'"
                )

    @property
    def features(self) -> int:
        """Channels that are classified."""
        return self.stages[-1].outputs

    @property
    def _rate(self) -> float:
        """The original's prune rate: the decimal 1 - width, so that 0.7 gives 0.3 and not 0.30000000000000004."""
        return float(1 - Decimal(repr(round(float(self.width), 15))))

    def stage_rate(self, i: int) -> float:
        """The fraction of stage i's positions that the original prunes, in its own order of float operations."""
        stage, rate = self.stages[i], self._rate
        factor = (1 - rate) * (1 - rate)
        edges = 0.0
        edges += stage.inputs * stage.outputs * factor
        for _ in range(stage.blocks - 1):
            edges += stage.outputs * stage.outputs * factor
        return 1 - edges / stage.positions

    def stage_edges(self, i: int) -> int:
        """How many edges stage i keeps (kinds without a constant number a destination)."""
        stage = self.stages[i]
        if self.compat:
            return stage.positions - int(self.stage_rate(i) * stage.positions)
        return min(math.ceil(stage.pointwise * self._exact_width**2), stage.usable)

    @property
    def classifier_rate(self) -> float:
        """The fraction of a `small` classifier's weights that is pruned."""
        return self._rate

    @property
    def classifier_edges(self) -> int:
        """How many weights a `small` classifier keeps."""
        n = self.num_classes * self.features
        return n - int(self._rate * n) if self.compat else min(math.ceil(n * self._exact_width), n)

    @property
    def _exact_width(self) -> Fraction:
        return Fraction(Decimal(repr(round(float(self.width), 15))))
