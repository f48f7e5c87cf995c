"""What a hidden layer with a TargetedDropout rule trains with: its largest weights, and a draw of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hiddennet import ops
from hiddennet.nn.rules import TargetedDropout

if TYPE_CHECKING:
    from hiddennet.nn.hidden import HiddenMixin


@torch.no_grad()
def targeted_state(layer: HiddenMixin, largest: ops.Rule) -> ops.Rule:
    """The rule as the ops take it in training: bits of all that takes part in this forward, 1 a weight.

    A weight takes part with the probability 1 where `largest` reveals it and 1 - drop elsewhere. No sort, no
    synchronisation with the host; the draw is that of the layer's step, the same on every device.
    """
    rule: TargetedDropout = layer.rule
    weight, number = layer.weight.detach(), layer.source.layer
    kept = ops.rule_mask(weight, largest, layer.weight_shape, layer=number)
    chance = torch.full_like(weight, 1.0 - rule.drop).masked_fill_(kept, 2.0)  # a uniform below 1 never exceeds it
    drawn = ops.Rule("rounded", layer.selection, bits=layer.all_bits, step=layer.draw, seed=rule.seed)
    running = ops.rule_mask(chance, drawn, layer.weight_shape, layer=number)
    return ops.Rule("bits", layer.selection, bits=ops.pack_mask(running))
