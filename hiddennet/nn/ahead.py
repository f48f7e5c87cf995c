"""The weights of all layers of a network in one launch on a GPU, before its first layer asks for its own.

A kernel a layer costs more time to launch than to run, and a node of the graph a layer more than a share in one. What
is made is dropped where a layer asks for another dtype than autocast's, or float32 without it; from the next pass on it
is of that one.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hiddennet.nn.rule import Selecting
from hiddennet.ops.fakes import is_looked_at, register_fake
from hiddennet.ops.masked_weight import MaskedWeight

if TYPE_CHECKING:
    from hiddennet.nn.hidden import HiddenMixin

DEVICES = ("cuda",)  # on a CPU a call costs little, and a weight that was just made is in its cache
_network_weight = torch.ops.hiddennet.network_weight_.default
_saved_hooks = torch._C._autograd._top_saved_tensors_default_hooks


@register_fake("network_weight_")
def _(out, scores, selections, bits, steps, parts, numbers, scales) -> None:
    return None


class Ahead:
    """A weight that is taken once: a layer that is called again makes its own."""

    __slots__ = ("asked", "made", "weight")

    def __init__(self, weight: MaskedWeight, made: Tensor) -> None:
        self.weight, self.made = weight, made  # with a gradient, where the scores alone have one
        self.asked: torch.dtype | None = None

    def take(self, dtype: torch.dtype, graph: bool = False) -> Tensor | None:
        """The weight, where it is of this dtype and was not taken. graph: as part of the graph that it is in; None
        where it is in none, or is made in a part of a forward that is to be computed again (checkpoints), which has to
        be as it will be then."""
        made = self.made
        if graph and (made is None or made.grad_fn is None or _saved_hooks(False) is not None):
            return None
        self.made, self.asked = None, dtype
        if made is None or made.dtype is not dtype:
            return None
        return made if graph else made.detach()


class _Node(NamedTuple):
    """A layer's share of the node below."""

    next_functions: tuple


class _Weights(torch.autograd.Function):
    """Weights that were made of scores, as one node; the backward is each layer's own."""

    @staticmethod
    def forward(ctx, weights: list[MaskedWeight], made: list[Tensor], *scores: Tensor):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*scores, *(t for w in weights for t in (w.bits, w.stored, w.plane) if t is not None))
        ctx.weights = weights
        return tuple(made)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor | None):
        ctx.saved_tensors  # noqa: B018  (refuses what was written to since the forward)
        nodes, found = ctx.next_functions, [None, None]
        for i, (grad, weight) in enumerate(zip(grads, ctx.weights, strict=True)):
            own = _Node(nodes[i : i + 1])
            found.append(None if grad is None else weight.gradients(grad, True, False, own)[0])
        return tuple(found)


def serves(layer: HiddenMixin) -> bool:
    """Whether this layer's weight may be made before its forward: its rule draws nothing, and the weight is written."""
    return layer.training and layer.rule.steady and layer.plan != "implicit_gemm"


def begin(layers: Sequence[HiddenMixin], selected: bool) -> None:
    """Make the weights that serve; several calls for several devices. selected: all that select have just done so."""
    if torch.compiler.is_compiling() or is_looked_at():
        return
    devices = defaultdict(list)
    for layer in layers:
        device = layer._buffers["selection"].device
        if device.type in DEVICES and serves(layer):
            devices[device].append(layer)
    for device, members in devices.items():
        if len(members) > 1:
            _make(device, members, selected)


def end(state: dict[str, Any]) -> None:
    """Drop what was not taken. state: a layer's attributes."""
    state["_asked"], state["_ahead"] = state["_ahead"].asked, None


def _weight(layer: HiddenMixin, selected: bool) -> MaskedWeight:
    rule = layer.rule
    if selected and type(rule).state is Selecting.state:
        return layer.weight_of(rule.scores(layer, True), layer._selected.value)
    return layer.masked_weight()


class _Call:
    """What the op is given for these weights, as long as they are the same."""

    def __init__(self, weights: list[MaskedWeight], none: Tensor) -> None:
        self.weights = weights
        parts = [weight.plane if weight.stored is None else weight.stored for weight in weights]
        optional = [w.scores for w in weights], [w.bits for w in weights], [w.step for w in weights], parts
        scores, bits, steps, parts = ([none if t is None else t for t in tensors] for tensors in optional)
        self.tensors = scores, [w.selection for w in weights], bits, steps, parts
        self.numbers = [n for w in weights for n in (w.mask, w.mask_seed, w.source, w.seed, w.layer, w.redraw)]
        self.scales = [weight.scale for weight in weights]
        formats = torch.contiguous_format, torch.channels_last
        self.shapes = [(weight.shape, formats[weight.channels_last]) for weight in weights]

    def fits(self, weights: list[MaskedWeight]) -> bool:
        return len(weights) == len(self.weights) and all(map(operator.is_, weights, self.weights))


_calls: WeakKeyDictionary[HiddenMixin, _Call] = WeakKeyDictionary()  # by the first layer


def _make(device: torch.device, layers: Sequence[HiddenMixin], selected: bool) -> None:
    cast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    weights, call = [_weight(layer, selected) for layer in layers], _calls.get(layers[0])
    if call is None or not call.fits(weights):
        call = _calls[layers[0]] = _Call(weights, torch.empty(0, device=device, dtype=torch.uint8))
    dtypes = [cast or layer._asked or torch.float32 for layer in layers]
    made = [
        torch.empty(shape, dtype=dtype, device=device, memory_format=layout)
        for (shape, layout), dtype in zip(call.shapes, dtypes, strict=True)
    ]
    with torch.no_grad():
        _network_weight(made, *call.tensors, call.numbers, call.scales)
    joined = [i for i, weight in enumerate(weights) if _learns_by_scores_alone(weight)]
    if joined and torch.is_grad_enabled() and not _is_shared():
        own = [weights[i] for i in joined]
        outputs = _Weights.apply(own, [made[i] for i in joined], *(weight.scores for weight in own))
        for i, output in zip(joined, outputs, strict=True):
            made[i] = output
    for layer, weight, tensor in zip(layers, weights, made, strict=True):
        layer.__dict__["_ahead"] = Ahead(weight, tensor)


def _learns_by_scores_alone(weight: MaskedWeight) -> bool:
    stored = weight.stored is not None and weight.stored.requires_grad
    return weight.scores is not None and weight.scores.requires_grad and weight.step is None and not stored


def _is_shared() -> bool:
    """Whether processes exchange gradients, which they do layer by layer while the backward goes on."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
