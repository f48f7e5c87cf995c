"""The weights of all layers of a network in one launch on a GPU, before its first layer asks for its own.

A kernel a layer costs more time to launch than to run. What is made is dropped where a layer asks for another dtype
than autocast's, or float32 without it; from the next pass on it is of that one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hiddennet.ops.fakes import is_looked_at, register_fake

if TYPE_CHECKING:
    from hiddennet.nn.hidden import HiddenMixin

DEVICES = ("cuda",)  # on a CPU a call costs little, and a weight that was just made is in its cache
_network_weight = torch.ops.hiddennet.network_weight_.default


@register_fake("network_weight_")
def _(out, scores, selections, bits, steps, parts, numbers, scales) -> None:
    return None


class Ahead:
    """A weight that is taken once: a layer that is called again makes its own."""

    __slots__ = ("asked", "made")

    def __init__(self, made: Tensor) -> None:
        self.made: Tensor | None = made
        self.asked: torch.dtype | None = None

    def take(self, dtype: torch.dtype) -> Tensor | None:
        """The weight, where it is of this dtype and was not taken."""
        made, self.made, self.asked = self.made, None, dtype
        return made if made is not None and made.dtype is dtype else None


def serves(layer: HiddenMixin) -> bool:
    """Whether this layer's weight may be made before its forward: its rule draws nothing, and the weight is written."""
    return layer.training and layer.rule.steady and layer.plan != "implicit_gemm"


def begin(layers: Sequence[HiddenMixin]) -> None:
    """Make the weights that serve; several calls for several devices."""
    if torch.compiler.is_compiling() or is_looked_at():
        return
    devices = defaultdict(list)
    for layer in layers:
        if serves(layer) and layer.selection.device.type in DEVICES:
            devices[layer.selection.device].append(layer)
    for device, members in devices.items():
        if len(members) > 1:
            _make(device, members)


def end(layer: HiddenMixin) -> None:
    """Drop what was not taken."""
    layer._asked, layer._ahead = layer._ahead.ahead.asked, None


def _make(device: torch.device, layers: Sequence[HiddenMixin]) -> None:
    cast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    none, weights, made, numbers = torch.empty(0, device=device, dtype=torch.uint8), [], [], []
    for layer in layers:
        weight = layer.masked_weight()
        layout = torch.channels_last if weight.channels_last else torch.contiguous_format
        dtype = cast or layer._asked or torch.float32
        made.append(torch.empty(weight.shape, dtype=dtype, device=device, memory_format=layout))
        weights.append(weight)
        numbers += (weight.mask, weight.mask_seed, weight.source, weight.seed, weight.layer, weight.redraw)
    parts = [weight.plane if weight.stored is None else weight.stored for weight in weights]
    optional = ([w.scores for w in weights], [w.bits for w in weights], [w.step for w in weights], parts)
    scores, bits, steps, parts = ([none if t is None else t for t in tensors] for tensors in optional)
    with torch.no_grad():
        selections, scales = [w.selection for w in weights], [w.scale for w in weights]
        _network_weight(made, scores, selections, bits, steps, parts, numbers, scales)
    for layer, weight, tensor in zip(layers, weights, made, strict=True):
        layer._ahead = weight._replace(ahead=Ahead(tensor))
