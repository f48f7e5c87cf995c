"""SynFlow's scores at the cost of float32 and the precision of float64, for convolutions and linear layers on a CPU.

Two orders of the scores that differ in a few places become two networks once filters begin to die: what a filter loses
makes it lose more. So activations and their gradients are computed in float64; the scores, of which there are many, are
rounded to float32, and those that are near the threshold are computed once more from the float64 numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.pruning.probe import Probe
from hiddennet.pruning.synflow import Flow
from hiddennet.pruning.targets import Target

MARGIN = 2.0**-14  # relative, around the threshold: about a hundred times the rounding error of a float32 score
FEW_POSITIONS = 64  # up to which products are faster with positions as rows: the weight is then read along its rows
Use = tuple[Tensor, Tensor, bool]  # inputs [positions, row], gradients [positions, rows]: float64; both transposed?


class _Wide:
    """A float64 copy of a weight in one piece of memory that all layers use in turn, while a cache holds it."""

    def __init__(self, weights: Sequence[Tensor]):
        self.memory = torch.empty(max((w.numel() for w in weights), default=0), dtype=torch.float64)

    def __call__(self, weight: Tensor) -> Tensor:
        return self.memory[: weight.numel()].view(weight.shape).copy_(weight)


class _Rows(torch.autograd.Function):
    """inputs [P, J] @ weight [O, J]^T in float64, of a float32 weight; its gradient in float32.

    turned: inputs [J, P], and the product is [O, P].
    """

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, uses: list[Use], wide: _Wide, turned: bool) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.uses, ctx.wide, ctx.turned = uses, wide, turned
        return wide(weight) @ inputs if turned else inputs @ wide(weight).t()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        inputs, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        ctx.uses.append((inputs, gradient, ctx.turned))
        of_inputs = None
        if ctx.needs_input_grad[0]:
            wide = ctx.wide(weight)
            of_inputs = wide.t() @ gradient if ctx.turned else gradient @ wide
        left, right = gradient.float(), inputs.float()
        of_weight = left @ right.t() if ctx.turned else left.t() @ right
        return of_inputs, of_weight, None, None, None


def is_mixed(target: Target) -> bool:
    """Whether a parameter's layer is one that is computed in this way."""
    layer = target.layer
    if target.kind != "weight" or target.value().dtype == torch.float64:  # which float32 does not hold
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


class MixedFlow(Flow):
    """A Flow in float64 whose rankable weights and scores are float32; a layer of another kind is float64 alone."""

    def __init__(
        self, model: nn.Module, targets: Sequence[Target], input_shape: Sequence[int], train_mode: bool
    ) -> None:
        self.uses: list[list[Use] | None] = [[] if is_mixed(t) else None for t in targets]
        super().__init__(model, targets, input_shape, torch.float64, train_mode)
        wide = _Wide([m for m, uses in zip(self.magnitudes, self.uses, strict=True) if uses is not None])
        for target, uses in zip(targets, self.uses, strict=True):
            if uses is not None:
                self.probe.forwards[target.layer_name] = _forward_of(self.probe, target, uses, wide)

    def _magnitudes(self, targets: Sequence[Target]) -> list[Tensor]:
        return [
            self.probe.cast(t.value(), True) if uses is None else t.value().abs().float().contiguous()
            for t, uses in zip(targets, self.uses, strict=True)
        ]

    def scores(self, planes: Sequence[Tensor]) -> list[Tensor]:
        """As of Flow, float32; exact() tells single ones in float64."""
        for uses in self.uses:
            if uses is not None:
                uses.clear()
        self.found = super().scores(planes)
        return [s.float() for s in self.found]

    def exact(self, layer: int, indices: Tensor) -> Tensor:
        """Scores of a layer at these places, in float64."""
        uses, found = self.uses[layer], self.found[layer]
        if uses is None:
            return found.flatten()[indices]
        row = found[0].numel()
        rows, columns = indices // row, indices % row
        slopes = torch.zeros(indices.numel(), dtype=torch.float64)
        for inputs, gradient, turned in uses:
            if turned:
                slopes += (gradient[rows] * inputs[columns]).sum(dim=1)
            else:
                slopes += (gradient[:, rows] * inputs[:, columns]).sum(dim=0)
        return slopes * self.magnitudes[layer].flatten()[indices].double()


def _forward_of(probe: Probe, target: Target, uses: list[Use], wide: _Wide) -> Callable[[Tensor], Tensor]:
    layer, name = target.layer, target.name

    def linear(x: Tensor) -> Tensor:
        out = _Rows.apply(x.reshape(-1, x.shape[-1]), probe.weight(name), uses, wide, False)
        return out.view(*x.shape[:-1], out.shape[-1])

    def convolution(x: Tensor) -> Tensor:
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)[0]
        weight = probe.weight(name).flatten(1)
        if patches.shape[1] > FEW_POSITIONS:
            out = _Rows.apply(patches, weight, uses, wide, True)
        else:
            out = _Rows.apply(patches.t().contiguous(), weight, uses, wide, False).t().contiguous()
        size = [
            (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for n, pad, dilation, kernel, stride in zip(
                x.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
            )
        ]
        return out.view(1, -1, *size)

    return linear if isinstance(layer, nn.Linear) else convolution


def settle(
    flow: MixedFlow,
    scores: Sequence[Tensor],
    planes: Sequence[Tensor],
    thresholds: Tensor,
    counts: Sequence[int],
    scope: str,
) -> None:
    """Right the planes that strike() made of rounded scores, where a score is near its threshold.

    thresholds: of the rankings whose count is not 0, in order.
    """
    groups = [list(range(len(scores)))] if scope == "global" else [[i] for i in range(len(scores))]
    pruned = [(group, count) for group, count in zip(groups, counts, strict=True) if count > 0]
    kept = ops.count_flags(planes).tolist()
    for (group, count), threshold in zip(pruned, thresholds.tolist(), strict=True):
        low, high = threshold * (1 - MARGIN), threshold * (1 + MARGIN)
        near = [((scores[i] >= low) & (scores[i] <= high)).flatten().nonzero().flatten() for i in group]
        was_kept = [scores[i].flatten()[at] > threshold for i, at in zip(group, near, strict=True)]
        values = [flow.exact(i, at) for i, at in zip(group, near, strict=True)]
        all_values = torch.cat(values)
        above = sum(int(k.count_nonzero()) for k in was_kept)
        below = sum(scores[i].numel() - kept[i] for i in group) - (all_values.numel() - above)
        exact = all_values.kthvalue(count - below).values
        for i, at, before, value in zip(group, near, was_kept, values, strict=True):
            for index in at[(value > exact) != before].tolist():  # a handful
                planes[i][index // 8] ^= 1 << index % 8
