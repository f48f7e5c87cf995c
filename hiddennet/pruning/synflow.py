"""SynFlow: the scores of each iteration, in float64 (flow.py) or mixed where that is cheaper (synflow_mixed.py)."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hiddennet.pruning.flow import Flow
from hiddennet.pruning.synflow_mixed import MixedFlow
from hiddennet.pruning.targets import Target

log = logging.getLogger("hiddennet.pruning")

MANY_WEIGHTS = 100_000  # from which on float64 throughout is felt


class Synflow:
    """Scores for each iteration.

    Args:
        dtype: float32 or float64, or None for the order of float64 at less cost where it can be had (synflow_mixed.py).
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[Target],
        input_shape: Sequence[int],
        dtype: torch.dtype | None = None,
        train_mode: bool = False,
    ):
        self._how = (model, targets, tuple(input_shape))
        self._dtype, self._train_mode = dtype or torch.float64, train_mode
        self._flow: Flow | None = None
        self.mixed: Flow | None = None
        many = dtype is None and sum(t.shape.numel() for t in targets) >= MANY_WEIGHTS
        if many and targets[0].value().device.type == "cpu":
            self.mixed = MixedFlow(*self._how, train_mode)
        self.last = self.mixed or self.flow
        if many and self.last.reason:
            log.info("synflow: all scores are computed in float64, unscaled: %s", self.last.reason)
            self.mixed, self.last = None, self.flow

    @property
    def flow(self) -> Flow:
        """All scores in one floating type; made when first wanted."""
        if self._flow is None:
            self._flow = Flow(*self._how, self._dtype, self._train_mode)
        return self._flow

    def scores(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """The scores, over 2^exponent(): float32 where they are mixed."""
        self.last = self.mixed or self.flow
        return self.last.scores(planes)

    def precise(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """The same, all in float64."""
        log.info("synflow: all scores of an iteration are computed in float64: float32 cannot hold them")
        self.last = self.flow
        return self.flow.scores(planes)

    def exponent(self) -> int:
        return self.last.exponent()
