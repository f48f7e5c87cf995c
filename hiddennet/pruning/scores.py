"""The scores of the one-shot pruners: magnitude, random, SNIP and GraSP."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.ops.generate_weight import fill
from hiddennet.pruning.probe import Probe
from hiddennet.pruning.targets import Target

Batches = Sequence[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

TEMPERATURE = 200.0  # of GraSP's logits
EPSILON = 1e-10  # beside the sum that GraSP's scores are divided by


class Magnitude:
    """|w|, whatever the masks: float32, or float64 for weights of that type."""

    def __init__(self, targets: Sequence[Target]):
        values = [t.value() for t in targets]
        wide = any(v.dtype == torch.float64 for v in values)
        self.values = [v.abs().to(torch.float64 if wide else torch.float32).contiguous() for v in values]

    def scores(self, masks: Sequence[Tensor]) -> list[Tensor]:
        return self.values


class Random:
    """Standard normals of the counter generator: by seed, number of the parameter, index, and iteration."""

    def __init__(self, targets: Sequence[Target], seed: int):
        self.targets, self.seed, self.iteration = targets, seed, 0

    def scores(self, masks: Sequence[Tensor]) -> list[Tensor]:
        normal = ops.InitScale("normal", 1.0)
        drawn = [
            fill(torch.empty(mask.shape, device=mask.device), normal, seed=self.seed, layer=i, redraw=self.iteration)
            for i, mask in enumerate(masks)
        ]
        self.iteration += 1
        return drawn


class _WithData:
    """What SNIP and GraSP share: the model on masked weights, and the data in the probe's type and on its device."""

    def __init__(self, model: nn.Module, targets: Sequence[Target], batches: Batches, loss: Loss, **how):
        self.probe = Probe(model, targets, **how)
        self.names = [t.name for t in targets]
        self.values = self.probe.values(targets)
        self.batches = [(self._on(x), self._on(y)) for x, y in batches]
        self.loss = loss

    def _on(self, tensor: Tensor) -> Tensor:
        kind = self.probe.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device=self.probe.device, dtype=kind)

    def leaves(self, masks: Sequence[Tensor]) -> dict[str, Tensor]:
        masked = (value * mask for value, mask in zip(self.values, masks, strict=True))
        return {name: weight.requires_grad_() for name, weight in zip(self.names, masked, strict=True)}

    def summed(self, leaves: dict[str, Tensor], loss: Callable[[Tensor, Tensor], Tensor | None]) -> list[Tensor]:
        """The gradients of a loss of (input, target), over all batches; None: one that is 0."""
        total = [torch.zeros_like(v) for v in self.values]
        for x, y in self.batches:
            found = loss(x, y)
            if found is not None:
                torch._foreach_add_(total, self.gradients(leaves, found))
        return total

    def gradients(self, leaves: dict[str, Tensor], loss: Tensor, **how) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, **how)
        return [torch.zeros_like(w) if g is None else g for g, w in zip(found, leaves.values(), strict=True)]


class Snip(_WithData):
    """|m dL/dm| = |w dL/dW| over the sum of all, W = m w: pruned weights have scores too. Lee et al. 2019, eq. 6."""

    def scores(self, masks: Sequence[Tensor]) -> list[Tensor]:
        with self.probe.still():
            leaves = self.leaves(masks)
            total = self.summed(leaves, lambda x, y: self.loss(self.probe(leaves, x), y))
        scores = [(t * v).abs_() for t, v in zip(total, self.values, strict=True)]
        norm = sum(s.sum() for s in scores)
        return [s / norm for s in scores] if float(norm) > 0 else scores


class Grasp(_WithData):
    """w (H g) over the |sum| of all: g the loss's gradient at a high temperature, H its Hessian; the largest are kept.

    Wang et al. 2020, eq. 8, of the sign of Tanaka et al. 2020. Pruned weights score 0; others may score below.
    """

    def scores(self, masks: Sequence[Tensor]) -> list[Tensor]:
        with self.probe.still():
            leaves = self.leaves(masks)

            def loss(x: Tensor, y: Tensor) -> Tensor:
                return self.loss(self.probe(leaves, x) / TEMPERATURE, y)

            first = [g * m for g, m in zip(self.summed(leaves, loss), masks, strict=True)]

            def along(x: Tensor, y: Tensor) -> Tensor | None:
                found = self.gradients(leaves, loss(x, y), create_graph=True)
                product = sum((a * b).sum() for a, b in zip(first, found, strict=True))
                return product if product.requires_grad else None  # of a loss that is linear in the weights

            product = self.summed(leaves, along)
        scores = [p * m * v for p, m, v in zip(product, masks, self.values, strict=True)]
        norm = abs(sum(s.sum() for s in scores)) + EPSILON
        return [s / norm for s in scores]


def as_batches(batches: Iterable | None, method: str) -> list[tuple[Tensor, Tensor]]:
    """The batches as a list of (input, target); one pair of tensors is one batch.

    Raises ValueError where there are none, or something else.
    """
    if batches is None:
        raise ValueError(f"prune: expected batches for {method!r}, got none; give a list of (input, target)")
    if isinstance(batches, tuple) and len(batches) == 2 and all(isinstance(part, Tensor) for part in batches):
        batches = [batches]
    found = list(batches)
    if not found:
        raise ValueError(f"prune: expected batches for {method!r}, got an empty {type(batches).__name__}")
    for batch in found:
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not all(isinstance(part, Tensor) for part in batch):
            raise ValueError(f"prune: expected batches of (input, target) tensors, got {type(batch).__name__}")
    return [(x, y) for x, y in found]
