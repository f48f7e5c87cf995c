"""What a graph network is made of: one explicit config a network, checked when it is made."""

from dataclasses import dataclass

from hiddennet.ops.checks import check_counts

WINDOWS = ("original", "centre")
SOLVERS = ("torchdiffeq", "original")


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """What all small graphs share.

    Args:
        inputs: nodes that hold the stem's channels, the first ones.
        outputs: nodes that are read out, the last ones.
        density, edges: kept edges, as a fraction of all nodes x nodes positions or, where `edges` is given, their
            number.
        kind: of graph, see hiddennet.nn.Wiring; drop: of targeted dropout.
        num_classes, in_channels: logits and image channels.
        stem_channels: channels of the stem's first two convolutions.
        window: pixels that the output nodes are averaged over, of the middle of s x s: "original", rows and columns
            s // 2 - 2 and s // 2 - 1; "centre", s // 2 - 1 and s // 2.
        seed: of edges drawn for kind "random".
        compat: the original's edges (hiddennet.nn.Wiring) and its other quirks; see each network.
    """

    outputs: int = 100
    density: float = 0.05
    edges: int | None = None
    kind: str = "dnw"
    drop: float | None = None
    num_classes: int = 10
    in_channels: int = 3
    stem_channels: int = 16
    window: str = "original"
    seed: int = 0
    compat: bool = False

    def _check(self, **counts: int) -> None:
        names = ("outputs", "num_classes", "in_channels", "stem_channels")
        check_counts(self._name, {**{name: getattr(self, name) for name in names}, **counts})
        self._check_choice("window", WINDOWS)

    def _check_choice(self, key: str, choices: tuple[str, ...]) -> None:
        if getattr(self, key) not in choices:
            raise ValueError(f"{self._name}: expected {key} to be one of {choices}, got {getattr(self, key)!r}")

    @property
    def _name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, kw_only=True)
class StaticConfig(GraphConfig):
    """Of StaticGraph.

    Args:
        blocks: nodes of each block, the inputs first; the outputs are the end of the last.
        nodes: what the blocks add up to; None: whatever they do.
        lateral: the last block's nodes, outputs too, also send edges to the outputs, once (the original's last step;
            compat has it always). Without, outputs send none, and the graph is acyclic.
    """

    blocks: tuple[int, ...] = (32, 192, 192, 192, 192)
    nodes: int | None = None
    lateral: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        self._check(**{f"blocks[{i}]": n for i, n in enumerate(self.blocks)})
        if len(self.blocks) < 2:
            raise ValueError(f"StaticConfig: expected at least 2 blocks, inputs and outputs, got {self.blocks}")
        if self.nodes is not None and sum(self.blocks) != self.nodes:
            raise ValueError(
                f"StaticConfig: expected blocks that add up to {self.nodes} nodes, got {self.blocks}, which add up to "
                f"{sum(self.blocks)}"
            )
        if self.outputs > self.blocks[-1]:
            raise ValueError(
                f"StaticConfig: expected outputs to be within the last block of {self.blocks[-1]} nodes, "
                f"got {self.outputs}"
            )


@dataclass(frozen=True, kw_only=True)
class DiscreteConfig(GraphConfig):
    """Of DiscreteGraph. steps: how often the state is updated."""

    nodes: int = 800
    inputs: int = 32
    steps: int = 5

    def __post_init__(self) -> None:
        self._check(nodes=self.nodes, inputs=self.inputs, steps=self.steps)
        _check_nodes(self)


@dataclass(frozen=True, kw_only=True)
class ContinuousConfig(GraphConfig):
    """Of ContinuousGraph.

    Args:
        tolerance: relative and absolute, of a step's error.
        solver: "torchdiffeq" (of that package) or "original", the dopri5 the original was published with.
        clamp: each evaluation cuts the solver's own state at 0, as the original does; for solver "original".
        max_steps: attempted steps, after which the solution is given up.
        compat: also solver "original" with clamp.
    """

    nodes: int = 800
    inputs: int = 32
    tolerance: float = 1e-3
    solver: str = "torchdiffeq"
    clamp: bool = False
    max_steps: int = 1000

    def __post_init__(self) -> None:
        self._check(nodes=self.nodes, inputs=self.inputs, max_steps=self.max_steps)
        _check_nodes(self)
        self._check_choice("solver", SOLVERS)
        if not 0.0 < self.tolerance < float("inf"):
            raise ValueError(f"ContinuousConfig: expected a positive tolerance, got {self.tolerance!r}")
        if self.compat:
            object.__setattr__(self, "solver", "original")
            object.__setattr__(self, "clamp", True)
        if self.clamp and self.solver != "original":
            raise ValueError("ContinuousConfig: expected solver='original' with clamp, got 'torchdiffeq'")


def _check_nodes(config: DiscreteConfig | ContinuousConfig) -> None:
    for name in ("inputs", "outputs"):
        if getattr(config, name) > config.nodes:
            raise ValueError(
                f"{type(config).__name__}: expected at most {config.nodes} {name}, the number of nodes, "
                f"got {getattr(config, name)}"
            )
