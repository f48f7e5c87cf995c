"""SynFlow: the scores of each iteration, in float64 (flow.py) or mixed where that is cheaper: at the cost of float32
and the precision of float64, for convolutions and linear layers on a CPU.

Two orders of the scores that differ in a few places become two networks once filters begin to die: what a filter loses
makes it lose more. So activations and their gradients are computed in float64; the scores, of which there are many, are
rounded to float32, and those that are near the threshold are computed once more from the float64 numbers.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.pruning.flow import TINY, Flow, masked
from hiddennet.pruning.probe import Probe
from hiddennet.pruning.targets import Target

MARGIN = 2.0**-14  # relative, around the threshold: about a hundred times the rounding error of a float32 score


def is_mixed(target: Target) -> bool:
    """Whether a parameter's layer is one that is computed in this way."""
    layer = target.layer
    if target.kind != "weight" or target.value().dtype == torch.float64:  # which float32 does not hold
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


class _Layer:
    """A layer's weight where it lies, its scores, and what they were made of. A linear layer is a 1x1 convolution."""

    def __init__(self, target: Target):
        layer = target.layer
        value = target.value().float().contiguous()
        self.linear = isinstance(layer, nn.Linear)
        self.weight = value.view(*value.shape, 1, 1) if self.linear else value
        self.scores = torch.zeros_like(self.weight)
        self.shape = value.shape
        names = ("stride", "padding", "dilation")
        self.geometry = {} if self.linear else {name: getattr(layer, name) for name in names}
        self.bits = torch.empty(0, dtype=torch.uint8)
        self.uses: list[tuple[Tensor, Tensor]] = []  # images [C, H, W] and their outputs' gradients, float64

    def exact(self, indices: Tensor) -> Tensor:
        """Scores at these places in float64."""
        slopes = torch.zeros(indices.numel(), dtype=torch.float64)
        for x, dy in self.uses if indices.numel() else ():
            slopes += ops.magnitude_conv_slopes(x, dy, self.weight.shape, indices, **self.geometry)
        return slopes * self.weight.flatten()[indices].abs().double()


class _Product(torch.autograd.Function):
    """An image through a layer. Its weight's gradient does not come back but is written, as scores, into the layer."""

    @staticmethod
    def forward(ctx, image: Tensor, anchor: Tensor, layer: _Layer) -> Tensor:
        ctx.save_for_backward(image)
        ctx.layer = layer
        return ops.magnitude_conv(image, layer.weight, layer.bits, **layer.geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        (image,) = ctx.saved_tensors
        layer, gradient = ctx.layer, gradient.contiguous()
        of_image = ops.magnitude_conv_backward_(
            image,
            gradient,
            layer.weight,
            layer.bits,
            layer.scores,
            accumulate=bool(layer.uses),
            want_dx=ctx.needs_input_grad[0],
            **layer.geometry,
        )
        layer.uses.append((image, gradient))
        return of_image, None, None


class MixedFlow(Flow):
    """A Flow in float64 whose rankable weights and scores are float32; a layer of another kind is float64 alone."""

    def __init__(
        self, model: nn.Module, targets: Sequence[Target], input_shape: Sequence[int], train_mode: bool
    ) -> None:
        self.layers = [_Layer(t) if is_mixed(t) else None for t in targets]
        super().__init__(model, targets, input_shape, torch.float64, train_mode)
        for target, layer in zip(targets, self.layers, strict=True):
            if layer is not None:
                self.probe.forwards[target.layer_name] = _forward_of(self.probe, target.name, layer)

    def _magnitudes(self, targets: Sequence[Target]) -> list[Tensor]:
        """Of a mixed layer nothing: the graph needs a leaf there, and the layer has its weight."""
        return [
            self.probe.cast(t.value(), True) if layer is None else torch.empty(0)
            for t, layer in zip(targets, self.layers, strict=True)
        ]

    def masked(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """As of Flow; of a mixed layer a leaf that stands for its weight."""
        weights = []
        for layer, magnitude, plane in zip(self.layers, self.magnitudes, planes, strict=True):
            if layer is not None:
                layer.bits = plane
                layer.uses.clear()
            weights.append(masked(magnitude, plane) if layer is None else torch.empty_like(magnitude))
        return weights

    def scores(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """As of Flow, float32, overwritten by the next call; exact() tells single ones in float64."""
        self.found = [
            found if layer is None else layer.scores.view(layer.shape)
            for found, layer in zip(super().scores(planes), self.layers, strict=True)
        ]
        for layer in self.layers:
            if layer is not None and not layer.uses:
                layer.scores.zero_()
        return [s.float() for s in self.found]

    def exact(self, layer: int, indices: Tensor) -> Tensor:
        """Scores of a layer at these places, in float64."""
        mixed = self.layers[layer]
        return self.found[layer].flatten()[indices] if mixed is None else mixed.exact(indices)


def _forward_of(probe: Probe, name: str, layer: _Layer) -> Callable[[Tensor], Tensor]:
    def linear(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = _Product.apply(rows.t().unsqueeze(2).contiguous(), probe.weight(name), layer)
        return out.squeeze(2).t().reshape(*x.shape[:-1], out.shape[0])

    def convolution(x: Tensor) -> Tensor:
        if x.dim() == 3:
            return _Product.apply(x.contiguous(), probe.weight(name), layer)
        if x.shape[0] == 1:
            return _Product.apply(x.squeeze(0).contiguous(), probe.weight(name), layer).unsqueeze(0)
        return torch.stack([_Product.apply(image.contiguous(), probe.weight(name), layer) for image in x])

    return linear if layer.linear else convolution


def settle(
    flow: MixedFlow, scores: Sequence[Tensor], planes: Sequence[Tensor], counts: Sequence[int], scope: str
) -> bool:
    """Write into the planes which scores are above the counts[g]-th smallest, as strike() does, in float64's order.

    Returns:
        Whether it was done: not, and the planes are as they were, if a score is not finite or a threshold is so low
        that what float32 made 0 would tie with it.
    """
    groups = [list(range(len(scores)))] if scope == "global" else [[i] for i in range(len(scores))]
    struck = [torch.empty_like(planes[i]) if counts[g] > 0 else planes[i] for g, ids in enumerate(groups) for i in ids]
    for group, count in zip(groups, counts, strict=True):
        chosen, written = [scores[i] for i in group], [struck[i] for i in group]
        if count == 0:
            if not all(bool(s.isfinite().all()) for s in chosen):
                return False
            continue
        threshold, below, near = ops.strike_near_(chosen, written, count, MARGIN)
        if not float(threshold) >= TINY:
            return False
        values = [flow.exact(i, at) for i, at in zip(group, near, strict=True)]
        exact = torch.cat(values).kthvalue(count - int(below)).values
        for score, plane, at, value in zip(chosen, written, near, values, strict=True):
            was_kept = score.flatten()[at] > threshold
            for index in at[(value > exact) != was_kept].tolist():  # a handful
                plane[index // 8] ^= 1 << index % 8
    for plane, new in zip(planes, struck, strict=True):
        plane.copy_(new)
    return True


log = logging.getLogger("hiddennet.pruning")

MANY_WEIGHTS = 100_000  # from which on float64 throughout is felt


class Synflow:
    """Scores for each iteration.

    Args:
        dtype: float32 or float64, or None for the order of float64 at less cost where it can be had.
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
