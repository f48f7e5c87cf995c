"""SynFlow's scores |W dR/dW|, R the sum of the outputs for ones, all numbers by their magnitude. Tanaka et al. 2020.

R leaves float32's range in deep networks, and in very deep ones float64's, so the activations are divided by powers of
two on the way (cuts.py), which changes no score but by one power of two. Where that would not be exact they are not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.pruning.cuts import NotHomogeneous, Renormalise, scaled_graph
from hiddennet.pruning.probe import Probe
from hiddennet.pruning.targets import Target

log = logging.getLogger("hiddennet.pruning")

MANY_WEIGHTS = 100_000  # from which on float64 throughout is felt
TINY = 2.0**-100  # a threshold below it, of scores whose sum is about 1, may have tied what underflowed


class Flow:
    """The scores in one floating type: static magnitudes, one forward and one backward to the pruned weights only."""

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[Target],
        input_shape: Sequence[int],
        dtype: torch.dtype,
        train_mode: bool,
    ):
        self.probe = Probe(model, targets, dtype, absolute=True, train_mode=train_mode)
        self.names = [t.name for t in targets]
        self.magnitudes = self._magnitudes(targets)
        self.input = torch.ones(1, *input_shape, dtype=dtype, device=self.probe.device)
        self.graph: nn.Module | None = None
        self.cuts: list[Renormalise] = []
        self.reason = ""
        values = {**self.probe.fixed, **dict(zip(self.names, self.magnitudes, strict=True))}
        try:
            with self.probe.still():
                biases = any(t.kind == "bias" for t in targets)
                self.graph, self.cuts, zeroed = scaled_graph(model, values, biases)
        except NotHomogeneous as error:
            self.reason = str(error)
        else:
            for name in zeroed:
                self.probe.fixed[name].zero_()

    def _magnitudes(self, targets: Sequence[Target]) -> list[Tensor]:
        return self.probe.values(targets)

    def masked(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """|W| where the planes say so, +0 elsewhere."""
        return [masked(m, plane) for m, plane in zip(self.magnitudes, planes, strict=True)]

    def scores(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """W dR/dW of the masked magnitudes, over 2^exponent(); on a GPU nothing waits for it."""
        weights = [w.requires_grad_() for w in self.masked(planes)]
        with self.probe.still():
            flow = self.probe(dict(zip(self.names, weights, strict=True)), self.input, self.graph).sum()
            gradients = torch.autograd.grad(flow, weights, allow_unused=True)
        with torch.no_grad():
            return [_product(g, w) for g, w in zip(gradients, weights, strict=True)]

    def exponent(self) -> int:
        """Of the power of two that the last scores were divided by."""
        return sum(int(cut.exponent) for cut in self.cuts)


@torch.no_grad()
def masked(magnitude: Tensor, plane: Tensor) -> Tensor:
    """A magnitude where the plane says so, +0 elsewhere."""
    if magnitude.dtype != torch.float32:
        return magnitude * ops.unpack_mask(plane, magnitude.shape)
    source = ops.WeightSource("stored", magnitude.shape, stored=magnitude)
    row = torch.zeros(4, dtype=torch.int32, device=magnitude.device)
    return ops.masked_weight(None, ops.Mask("bits", row, bits=plane), source=source)


def _product(gradient: Tensor | None, weight: Tensor) -> Tensor:
    if gradient is None:
        return torch.zeros_like(weight)
    if gradient.is_contiguous() and gradient.dim() > 1:  # of a layer's weight: its own memory
        return gradient.mul_(weight)
    return gradient.contiguous() * weight


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
        from hiddennet.pruning.synflow_mixed import MixedFlow  # which is a Flow

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
