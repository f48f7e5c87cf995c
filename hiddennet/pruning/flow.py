"""SynFlow's scores |W dR/dW|, R the sum of the outputs for ones, all numbers by their magnitude. Tanaka et al. 2020.

R leaves float32's range in deep networks, and in very deep ones float64's, so the activations are divided by powers of
two on the way (cuts.py), which changes no score but by one power of two. Where that would not be exact they are not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.pruning.cuts import NotHomogeneous, Renormalise, scaled_graph
from hiddennet.pruning.probe import Probe
from hiddennet.pruning.targets import Target

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
