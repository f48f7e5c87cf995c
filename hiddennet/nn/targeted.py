"""TargetedDropout: the largest weights, and in training a draw of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hiddennet import ops
from hiddennet.nn.rules import TopK, check_fraction
from hiddennet.nn.sampled import Drawn, recalled
from hiddennet.ops.checks import check_seed
from hiddennet.registry import register


@torch.no_grad()
def not_dropped(weight: Tensor, kept: Tensor, drop: float, *, seed: int, layer: int, step: Tensor) -> Tensor:
    """What takes part in a training step: bool of the weight's shape.

    All of `kept` does, every other element with probability 1 - drop: a function of (seed, layer, index, step), the
    same on every device. No sort, no synchronisation with the host. step: int64, one element, on the device.
    """
    # a uniform number below 1 never exceeds 2
    chance = torch.full_like(weight, 1.0 - drop, dtype=torch.float32).masked_fill_(kept, 2.0)
    every = torch.full(((weight.numel() + 7) // 8,), 255, dtype=torch.uint8, device=weight.device)
    return ops.rule_mask(chance, ops.Mask.rounded_at_random(step, seed, every), weight.shape, layer=layer)


@register("rule", "targeted_dropout")
@dataclass(frozen=True)
class TargetedDropout(TopK):
    """The largest of the layer's own stored weights; in training each other weight too, unless it is dropped.

    Gomez et al. 2019 (arXiv 1905.13678), as "Discovering Neural Wirings" compares with it: the candidates are all
    weights but the largest. Gradients reach what takes part in the step (with a source Stored(trainable=True), whose
    gradient is "masked").

    Args:
        density: kept fraction in [0, 1] in evaluation.
        drop: probability with which a candidate is left out of a training forward, in [0, 1].
        seed: of the draws; a draw is a function of (seed, layer, index, training step).
        scope, rounding: as in TopK.
    """

    steady: ClassVar[bool] = False
    by: str = field(default="magnitude", init=False)
    scope: str = field(default="layer", kw_only=True)
    of: str = field(default="weights", init=False)
    rounding: str = field(default="decimal", kw_only=True)
    drop: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("TargetedDropout", "drop", self.drop, "a probability")
        check_seed("TargetedDropout", "seed", self.seed, 63)

    attach = Drawn.attach
    after_forward = Drawn.after_forward

    def state(self, layer: nn.Module, training: bool) -> ops.Mask:
        largest = layer.selected()
        if not training:
            return largest
        weight, number = layer.stored.detach(), layer.source.layer
        kept = ops.rule_mask(weight, largest, layer.weight_shape, layer=number)
        step = recalled(layer, layer.draw)
        running = not_dropped(weight, kept, self.drop, seed=self.seed, layer=number, step=step)
        return ops.Mask("bits", largest.selection, bits=ops.pack_mask(running))
