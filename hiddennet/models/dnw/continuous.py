"""ContinuousGraph: a wiring with cycles as a differential equation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.nn.block_sums import Blocks, node_sum
from hiddennet.nn.reach import GraphLayout

from .base import EPS, SmallGraph, instance_norm, nodes_first
from .config import ContinuousConfig
from .ode import NotConverged, dopri5


class ContinuousGraph(SmallGraph):
    """dS/dt = InstanceNorm(W conv(ReLU(S))), S(0) = the stem's channels and zeros; the end of S(1) is read out.

    Step sizes are chosen for the batch as a whole: an image's logits depend, within tolerance, on the others'.
    `evaluations` says how often the last forward evaluated the right-hand side.

    Raises ValueError: see ContinuousConfig and hiddennet.nn.Wiring; NotConverged: the ODE was not solved; ImportError:
    solver "torchdiffeq" without that package.
    """

    config: ContinuousConfig

    def __init__(self, config: ContinuousConfig | None = None) -> None:
        config = ContinuousConfig() if config is None else config
        super().__init__(config, config.nodes, config.inputs)
        self.graph = self._wire(None, static=False)
        self.norm = nn.InstanceNorm2d(config.nodes, eps=EPS, affine=True)
        self.fc = nn.Linear(config.outputs, config.num_classes)
        self.evaluations = 0
        self._check_fixed()

    def layouts(self) -> dict[str, GraphLayout]:
        return self._layout(run="flow")

    def forward(self, images: Tensor) -> Tensor:
        inputs = self._stem(images)
        if self._exact(inputs):
            state = F.pad(inputs, (0, 0, 0, 0, 0, self.nodes - self.inputs))
        else:  # a view of node-major maps
            state = F.pad(nodes_first(inputs), (0, 0, 0, 0, 0, 0, 0, self.nodes - self.inputs)).transpose(0, 1)
        state = self.solve(state)
        return self._head(state[:, -self.config.outputs :])

    def _exact(self, state: Tensor) -> bool:
        """Whether to sum in the order of the original: of a solution in float64 the last bit decides on step sizes."""
        return self.config.solver == "original" and state.dtype == torch.float64

    def solve(self, state: Tensor) -> Tensor:
        """S(1) from S(0): [batch, nodes, h, w]."""
        blocks = Blocks(((0, self.nodes, 0, self.nodes),))
        weight, (lists,) = self.graph.listed(blocks)
        exact, norm = self._exact(state), self.norm
        self.evaluations = 0

        def slope(rectified: Tensor) -> Tensor:
            self.evaluations += 1
            if exact:
                sent = F.conv2d(rectified, self.conv.weight, padding=1, groups=self.nodes)
                return norm(F.conv2d(sent, weight[:, :, None, None]))
            received = node_sum(self._filter(nodes_first(rectified), 0), weight, blocks, lists)
            return instance_norm(received, norm.weight, norm.bias).transpose(0, 1)

        def left_alone(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return slope(y.relu()), y

        def clamped(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            y = y.relu()
            return slope(y), y

        config = self.config
        if config.solver == "original":
            function = clamped if config.clamp else left_alone
            return dopri5(function, state, tolerance=config.tolerance, max_steps=config.max_steps)
        return _by_torchdiffeq(lambda t, y: slope(y.relu()), state, config)


def _by_torchdiffeq(function, state: Tensor, config: ContinuousConfig) -> Tensor:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError(
            "ContinuousGraph: expected the package torchdiffeq for solver 'torchdiffeq', got none; "
            "pip install torchdiffeq, or take solver='original'"
        ) from error
    times = torch.tensor([0.0, 1.0], dtype=state.dtype if state.dtype == torch.float64 else torch.float32)
    tolerance, options = config.tolerance, {"max_num_steps": config.max_steps}
    try:
        states = odeint(
            function, state, times.to(state.device), rtol=tolerance, atol=tolerance, method="dopri5", options=options
        )
    except AssertionError as error:  # how torchdiffeq gives up
        raise NotConverged(
            f"ContinuousGraph: expected the ODE to be solved to t = 1 with tolerance {tolerance}, got: {error}; "
            "raise tolerance or max_steps, or look for weights that have grown out of bounds"
        ) from error
    return states[-1]
