"""The weights of all layers of a network in one launch on a GPU, before its first layer asks for its own.

A kernel a layer costs more time to launch than to run, and a node of the graph a layer more than a share in one. What
is made is dropped where a layer asks for another dtype than autocast's, or float32 without it; from the next pass on it
is of that one. As long as a network's parts stay the same objects, a pass asks them nothing: see Standing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from hiddennet.nn.memo import keep_all, plainly, state_of
from hiddennet.nn.rule import Selecting
from hiddennet.nn.rules import Ranking, TopK, joined_rows, rows_of
from hiddennet.nn.sources import Generated
from hiddennet.nn.stored import Stored
from hiddennet.ops.fakes import is_looked_at, register_fake
from hiddennet.ops.masked_weight import DTYPE_CODES, MaskedWeight

if TYPE_CHECKING:
    from hiddennet.nn.hidden import HiddenMixin

DEVICES = ("cuda",)  # on a CPU a call costs little, and a weight that was just made is in its cache
_FORMATS = torch.contiguous_format, torch.channels_last
_network_weight = torch.ops.hiddennet.network_weight.default
_saved_hooks = torch._C._autograd._top_saved_tensors_default_hooks


@register_fake("network_weight")
def _(scores, selections, bits, steps, parts, numbers, scales, shapes, dtypes) -> list[Tensor]:
    found, at, kinds = [], 0, {code: dtype for dtype, code in DTYPE_CODES.items()}
    for last, dimensions, dtype in zip(numbers[6::8], numbers[7::8], dtypes, strict=True):
        how = {"dtype": kinds[dtype], "device": selections[0].device, "memory_format": _FORMATS[last]}
        found.append(torch.empty(shapes[at : at + dimensions], **how))
        at += dimensions
    return found


class Ahead:
    """A weight that is taken once: a layer that is called again makes its own."""

    __slots__ = ("asked", "device", "made", "weight")

    def __init__(self, weight: MaskedWeight, made: Tensor, device: str) -> None:
        self.weight, self.device = weight, device
        self.made: Tensor | None = made  # with a gradient, where the scores alone have one
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


_WRITTEN = (
    "hiddennet: expected scores and weights to stay as they are from forward to backward, got some that were modified "
    "by an inplace operation in between; do the backward first, or the forward again"
)


class _Weights(torch.autograd.Function):
    """Weights that were made of scores, as one node; the backward is each layer's own."""

    @staticmethod
    def forward(ctx, call: _Call, places: list[int], made: list[Tensor], *scores: Tensor):
        ctx.set_materialize_grads(False)
        ctx.call, ctx.places, ctx.state = call, places, call.state(places)
        return tuple(made)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor | None):
        call, places, state = ctx.call, ctx.places, ctx.call.state(ctx.places)
        if state != ctx.state and [version for _, version in state] != [version for _, version in ctx.state]:
            raise RuntimeError(_WRITTEN)
        may, state = getattr(call.weights[places[0]].scores, "may_owe", bool)(), iter(state)
        found: list[Tensor | None] = [None] * 3
        with plainly():
            for i, grad, node in zip(places, grads, ctx.next_functions, strict=True):
                own = [*islice(state, len(call.read[i]))]
                found.append(None if grad is None else call.gradient(i, grad, node, may, own))
        return tuple(found)


class _Call:
    """What the op is given for these weights, as long as they are the same."""

    def __init__(self, weights: list[MaskedWeight], none: Tensor) -> None:
        def optional(tensors: list[Tensor | None]) -> list[Tensor]:
            return [none if t is None else t for t in tensors] if any(t is not None for t in tensors) else []

        self.weights, self.bare = weights, [weight._replace(scores=None) for weight in weights]
        self.read = [[t for t in (w.scores, w.bits, w.stored, w.plane) if t is not None] for w in weights]
        parts = [weight.plane if weight.stored is None else weight.stored for weight in weights]
        lists = [w.scores for w in weights], [w.bits for w in weights], [w.step for w in weights], parts
        scores, bits, steps, parts = map(optional, lists)
        rows = joined_rows([w.selection for w in weights])
        self.tensors = scores, [w.selection for w in weights] if rows is None else [rows], bits, steps, parts
        self.numbers = [
            n
            for w in weights
            for n in (w.mask, w.mask_seed, w.source, w.seed, w.layer, w.redraw, w.channels_last, len(w.shape))
        ]
        self.scales, self.shapes = [weight.scale for weight in weights], [n for w in weights for n in w.shape]

    def fits(self, weights: list[MaskedWeight]) -> bool:
        return len(weights) == len(self.weights) and all(map(is_, weights, self.weights))

    def learning(self) -> list[int]:
        """Which of them learn by their scores alone."""
        stored = [w.stored is not None and w.stored.requires_grad for w in self.weights]
        return [
            i
            for i, (w, learns) in enumerate(zip(self.weights, stored, strict=True))
            if w.scores is not None and w.scores.requires_grad and w.step is None and not learns
        ]

    def make(self, dtypes: list[int]) -> list[Tensor]:
        """The weights in dtypes of these codes."""
        with torch.no_grad(), plainly():
            return _network_weight(*self.tensors, self.numbers, self.scales, self.shapes, dtypes)

    def state(self, places: Iterable[int]) -> list[tuple[int, int]]:
        """What tells whether that was written to of which the gradients of these weights are made."""
        return state_of([part for i in places for part in self.read[i]])

    def gradient(self, i: int, grad: Tensor, node: tuple, may: bool, state: list) -> Tensor | None:
        """dL/dscores of the weight i; None: the scores take dL/dweight in its place (hiddennet.optim).

        may, state: as in Deferred.owe.
        """
        weight = self.weights[i]
        owe = None if grad.requires_grad else getattr(weight.scores, "owe", None)
        if owe is not None and owe(self.bare[i], grad, (node,), may, state):
            return None
        return weight.gradients(grad, True, False)[0]


def serves(layer: HiddenMixin) -> bool:
    """Whether this layer's weight may be made before its forward: its rule draws nothing, and the weight is written."""
    return layer.training and layer.rule.steady and layer.plan != "implicit_gemm"


def begin(model: nn.Module, layers: Sequence[HiddenMixin], selected: bool) -> None:
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
            call = _call(device, members, [_weight(layer, selected) for layer in members])
            _hand_out(device, members, call, call.learning())
            if len(members) == len(layers):
                Standing.begin_with(model, device, members, call)


def end(state: dict[str, Any]) -> None:
    """Drop what was not taken. state: a layer's attributes."""
    state["_asked"], state["_ahead"] = state["_ahead"].asked, None


def _weight(layer: HiddenMixin, selected: bool) -> MaskedWeight:
    rule = layer.rule
    if selected and type(rule).state is Selecting.state:
        return layer.weight_of(rule.scores(layer, True), layer._selected.value)
    return layer.masked_weight()


_calls: WeakKeyDictionary[HiddenMixin, _Call] = WeakKeyDictionary()  # by the first layer


def _call(device: torch.device, layers: Sequence[HiddenMixin], weights: list[MaskedWeight]) -> _Call:
    call = _calls.get(layers[0])
    if call is None or not call.fits(weights):
        call = _calls[layers[0]] = _Call(weights, torch.empty(0, device=device, dtype=torch.uint8))
    return call


def _hand_out(device: torch.device, layers: Sequence[HiddenMixin], call: _Call, joined: list[int]) -> None:
    """Make the weights, and give each layer its own. joined: those whose gradients one node makes."""
    kind = device.type
    if torch.is_autocast_enabled(kind):
        made = call.make([DTYPE_CODES[torch.get_autocast_dtype(kind)]] * len(layers))
    else:
        made = call.make([DTYPE_CODES.get(layer._asked, 0) for layer in layers])
    if joined and torch.is_grad_enabled() and not _is_shared():
        outputs = _Weights.apply(call, joined, [made[i] for i in joined], *(call.weights[i].scores for i in joined))
        for i, output in zip(joined, outputs, strict=True):
            made[i] = output
    for layer, weight, tensor in zip(layers, call.weights, made, strict=True):
        state = layer.__dict__
        state["_in_pass"], state["_ahead"] = True, Ahead(weight, tensor, kind)


def _is_shared() -> bool:
    """Whether processes exchange gradients, which they do layer by layer while the backward goes on."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


_MODULES = attrgetter("_modules")
_REQUIRES_GRAD = Tensor.requires_grad.__get__


class Standing:
    """A network whose selection and weights are those of its last pass but for the numbers: every hidden layer selects
    by TopK and has its weight made ahead, of tensors that are its own. A pass looks whether all are the same objects,
    and calls the ops as before. Its first layer keeps it; copies and pickles are None.
    """

    _RULE, _SOURCES = ("state", "select", "ranked", "scores", "group"), (Generated.state, Stored.state)

    def __init__(self, model: nn.Module, device: torch.device, layers: Sequence[HiddenMixin], call: _Call) -> None:
        self.device, self.layers, self.call = device, layers, call
        self.modules = [module for module in model.modules() if module is not model]
        self.leaves = [module for module in self.modules if not module._modules]
        self.holders = [module for module in self.modules if module._modules]
        self.own = [self._own(layer) for layer in layers]
        self.tensors = [t for w in call.weights for t in (w.scores, w.stored) if t is not None]
        self.numbers, self.joined = self._numbers(), call.learning()
        self.structure = self._structure(model)
        groups = defaultdict(list)
        for layer in layers:
            groups[layer.rule.group(layer)].append(layer)
        self.groups = []
        for members in groups.values():
            rules = [layer.rule for layer in members] if members[0].rule.alone else [members[0].rule]
            ranking = Ranking([layer.scores for layer in members], rules, rows_of(members))
            memos = [layer._selected for layer in members]
            self.groups.append((ranking, memos, [memo.value for memo in memos], [(t,) for t in ranking.ranked]))

    @classmethod
    def begin_with(cls, model: nn.Module, device: torch.device, layers: Sequence[HiddenMixin], call: _Call) -> None:
        """Keep one for this network from now on, where it is such a network."""
        if "_is_replica" not in model.__dict__ and all(map(cls._stands, layers, call.weights)):
            made = layers[0].__dict__["_standing"] = cls(model, device, layers, call)
            standing[model] = ref(made)

    @classmethod
    def _stands(cls, layer: HiddenMixin, weight: MaskedWeight) -> bool:
        rule = type(layer.rule)
        return (
            all(getattr(rule, name) is getattr(TopK, name) for name in cls._RULE)
            and type(layer.source).state in cls._SOURCES
            and layer.scores is not None
            and weight.scores is layer.scores
            and weight.stored is layer.stored
        )

    @staticmethod
    def _own(layer: HiddenMixin) -> tuple:
        """What the layer's selection and weight are made of."""
        state = layer.__dict__
        parameters, buffers = state["_parameters"], state["_buffers"]
        return (
            *(state["training"], state.get("plan"), state["rule"], state["source"], state.get("scaled")),
            *(parameters["scores"], parameters["weight"], buffers["selection"], buffers.get("sign_plane")),
            state["_selected"].value,
        )

    def _numbers(self) -> list[Any]:
        """What of the tensors the call hangs on."""
        with plainly():
            return [*map(Tensor.stride, self.tensors), *map(_REQUIRES_GRAD, self.tensors)]

    def _structure(self, model: nn.Module) -> list[Any]:
        children = [[*module._modules.values()] for module in (model, *self.holders)]
        return [any(map(_MODULES, self.leaves)), *map(type, self.modules), *children]

    def begin(self, model: nn.Module) -> bool:
        """Select, and make the weights, as the layers would; False: something is not as it was, and nothing done."""
        if self._structure(model) != self.structure or self._numbers() != self.numbers:
            return False
        for layer, own in zip(self.layers, self.own, strict=True):
            if not all(map(is_, self._own(layer), own)):
                return False
        if self.device.type not in DEVICES or is_looked_at():
            return False
        with torch.no_grad():
            for ranking, memos, masks, ranked in self.groups:
                ranking.select(learns=True)
                keep_all(memos, masks, ranked)
        _hand_out(self.device, self.layers, self.call, self.joined)
        return True

    def __deepcopy__(self, _: dict) -> None:
        return None

    def __reduce__(self) -> tuple:
        return type(None), ()


standing: WeakKeyDictionary[nn.Module, ref[Standing]] = WeakKeyDictionary()
