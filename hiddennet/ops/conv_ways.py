"""A masked convolution on a CPU, each of its three directions in the way that is fastest on this machine.

A direction (forward, input gradient, weight gradient) can be computed by the library, or by kernels of our own. Which
is fastest depends on sizes, batch and processor, so it is measured, as cuDNN does: the first time a direction of a
convolution comes by, every way that serves it computes it a few times, on the very tensors of the step. The choice is
kept for the process and in the user's cache (hiddennet.tuned). HIDDENNET_PLANS=fixed, and torch's deterministic mode,
leave every direction to the library. What is not finite spreads through kept weights alone where a way has lists, and
through pruned ones, too, elsewhere: 0 times infinity is NaN.
"""

import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.nn import functional as F

from hiddennet.ops import tile_conv
from hiddennet.ops.channels_last import channels_last
from hiddennet.ops.dense_weight_gradient import dense_conv_weight_gradient
from hiddennet.ops.fakes import is_looked_at
from hiddennet.ops.masked_weight import MaskedWeight, effective_weight, part_gradients
from hiddennet.ops.sparse_conv import sparse_conv_forward, sparse_conv_input_gradient, sparse_conv_weight_gradient
from hiddennet.tuned import Measured

LIBRARY = "effective_weight"
KIND = "convolutions"  # of choices in hiddennet.tuned
ROUNDS = 4
SIZES = 8  # of the input that are measured of one convolution: every step may bring another

Pair = tuple[int, ...]
Kept = Callable[[], Tensor]  # makes ones where weights are kept, for a way that asks


class Conv(NamedTuple):
    """A convolution as the ways to compute it see it: sizes, geometry, and the dtype of its maps."""

    input: Pair
    weight: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    dtype: torch.dtype
    density: float | None = None  # one of DENSITIES, where a way depends on it

    @property
    def geometry(self) -> dict[str, Pair]:
        """The arguments of that name of every convolution."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def __str__(self) -> str:
        sizes = ["x".join(map(str, pair)) for pair in self[:5]]
        words = "{} by {}, stride {}, padding {}, dilation {}".format(*sizes)
        dense = "" if self.density is None else f", density {self.density:g}"
        return f"{words}, {str(self.dtype).removeprefix('torch.')}{dense}"


class Way(NamedTuple):
    """One way to compute the directions, each None where it has none. Maps are channels_last and of the convolution's
    dtype; weights may have any layout."""

    serves: Callable[[Conv], bool]
    forward: Callable[[Conv, Tensor, Tensor], Tensor] | None = None  # of x and the weight
    input_gradient: Callable[[Conv, Tensor, Tensor], Tensor] | None = None  # of dy and the weight
    weight_gradient: Callable[[Conv, Tensor, Tensor], Tensor] | None = None  # of x and dy
    kept_gradient: Callable[[Conv, Tensor, Tensor, Kept], Tensor] | None = None  # and of what is kept


def _library_gradient(conv: Conv, dy: Tensor, x: Tensor, weight: Tensor, which: int) -> Tensor:
    wanted = [which == 0, which == 1, False]
    return torch.ops.aten.convolution_backward(
        dy, x, weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], 1, wanted
    )[which]


_library = Way(
    lambda conv: True,
    lambda conv, x, weight: F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation),
    lambda conv, dy, weight: _library_gradient(conv, dy, dy.new_empty(()).expand(conv.input), weight, 0),
    lambda conv, x, dy: _library_gradient(conv, dy, x, x.new_empty(()).expand(conv.weight), 1),
)
_tiles = Way(
    lambda conv: conv.dtype is torch.bfloat16 and tile_conv.instructions() != "plain",
    lambda conv, x, weight: tile_conv.tile_conv_forward(x, weight, **conv.geometry),
    lambda conv, dy, weight: tile_conv.tile_conv_input_gradient(dy, weight, conv.input, **conv.geometry),
    lambda conv, x, dy: tile_conv.tile_conv_weight_gradient(x, dy, conv.weight, **conv.geometry),
)
_panels = Way(
    lambda conv: conv.dtype is torch.float32,
    weight_gradient=lambda conv, x, dy: dense_conv_weight_gradient(x, dy, conv.weight, **conv.geometry),
)
_lists = Way(
    lambda conv: conv.dtype is torch.float32 and conv.density is not None and conv.density <= 0.5,
    lambda conv, x, weight: sparse_conv_forward(x, weight, **conv.geometry),
    lambda conv, dy, weight: sparse_conv_input_gradient(dy, weight, conv.input, **conv.geometry),
    kept_gradient=lambda conv, x, dy, kept: sparse_conv_weight_gradient(x, dy, kept(), **conv.geometry),
)
WAYS = {LIBRARY: _library, "tiles": _tiles, "panels": _panels, "lists": _lists}
DENSITIES = (1.0, 0.5, 0.3, 0.1, 0.02)  # classes: a choice is made for each

_chosen: dict[tuple[str, Conv], str] = {}
_inputs: dict[tuple[str, Conv], list[Conv]] = {}  # those chosen for, by all but the input's size


def _function(name: str, direction: str) -> Callable | None:
    way = WAYS[name]
    if direction == "kept_gradient" and way.kept_gradient is None and way.weight_gradient is not None:
        return lambda conv, x, dy, kept: way.weight_gradient(conv, x, dy)
    return getattr(way, direction)


def _candidates(direction: str, conv: Conv) -> list[str]:
    return [name for name, way in WAYS.items() if _function(name, direction) is not None and way.serves(conv)]


def _measure(direction: str, conv: Conv, names: list[str], tensors: tuple[Tensor | Kept, ...]) -> dict[str, float]:
    """The shortest time of each way, in milliseconds; in turns, so that a busy neighbour hits all alike, and a single
    thread by its own clock. The first turn warms up, and counts where that took long enough."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(names, float("inf"))
    began = time.perf_counter()
    for turn in range(1 + ROUNDS):
        for name in names:
            begin = clock()
            _function(name, direction)(conv, *tensors)
            best[name] = min(best[name], (clock() - begin) * 1e3)
        spent = time.perf_counter() - began
        if spent > (0.1 if turn else 0.3):
            break
        if turn == 0:
            best = dict.fromkeys(names, float("inf"))
    return best


def choose(direction: str, conv: Conv, tensors: tuple[Tensor | Kept, ...]) -> str:
    """The name of the fastest way for this direction: as measured before, or now on these tensors. Where SIZES other
    sizes of the input were measured (images of every size, batches of every length), that of the nearest."""
    if torch.are_deterministic_algorithms_enabled():  # since the forward
        return LIBRARY
    key = direction, conv
    if key in _chosen:
        return _chosen[key]
    others = _inputs.setdefault((direction, conv._replace(input=())), [])
    known = [other for other in others if (direction, other) in _chosen]
    if len(known) >= SIZES:
        return _chosen[direction, min(known, key=functools.partial(_distance, conv))]
    names = _candidates(direction, conv)
    where = f"{direction.replace('_', ' ')}: {conv}"
    kept = Measured.get(KIND, where) if len(names) > 1 else {"way": names[0]}
    if kept is None or kept.get("way") not in names:
        times = _measure(direction, conv, names, tensors)
        kept = {"way": min(times, key=times.__getitem__), "ms": {n: round(t, 4) for n, t in times.items()}}
        Measured.put(KIND, where, kept)
    _chosen[key] = kept["way"]
    others[:] = [*known, conv]
    return kept["way"]


def _distance(conv: Conv, other: Conv) -> float:
    return sum(abs(math.log(a / b)) for a, b in zip(conv.input, other.input, strict=True))


def _run(direction: str, conv: Conv, name: str | None, *tensors: Tensor | Kept) -> Tensor:
    """One direction in the way of this name, or in the fastest; by the library where that way does not have it."""
    chosen = choose(direction, conv, tensors) if name is None else name
    return (_function(chosen, direction) or _function(LIBRARY, direction))(conv, *tensors)


def _with_density(conv: Conv, weight: Tensor) -> Conv:
    """The convolution with the class of its weight's density, by a sample: what ways over lists depend on."""
    if conv.dtype is not torch.float32:
        return conv
    n = weight.numel()
    step = max(1, n // 4096 - 1) | 1  # odd: no pattern of pairs or fours
    sample = torch.as_strided(weight, (min(n, 4096),), (step,))
    share = max(int(torch.count_nonzero(sample)) / sample.numel(), 1e-4)
    return conv._replace(density=min(DENSITIES, key=lambda density: abs(math.log(share / density))))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, conv, way, *parts):
        weight = MaskedWeight(*parts)
        made = weight.write(conv.dtype)
        weight.save(ctx, x, made)
        ctx.conv, ctx.way = conv, way = _with_density(conv, made), way
        return _run("forward", conv, way, x, made)

    @staticmethod
    def backward(ctx, dy):
        (x, made), weight = MaskedWeight.saved(ctx)
        wanted = [ctx.needs_input_grad[i] for i in (0, 3, 12)]
        if torch.is_grad_enabled() or is_looked_at(dy):  # one that has a gradient itself, or comes in batches
            return _differentiable(ctx.conv, x, weight, dy, wanted)
        dy = channels_last(dy)
        conv, way = ctx.conv, ctx.way
        dx = _run("input_gradient", conv, way, dy, made) if wanted[0] else None
        to_parts = (None, None)
        if wanted[2] and not wanted[1] and not weight.through:  # of kept weights alone

            def kept() -> Tensor:
                return weight.gradients(torch.ones_like(made), False, True)[1]

            to_parts = weight.gradients(_run("kept_gradient", conv, way, x, dy, kept), False, True)
        elif any(wanted[1:]):
            to_parts = weight.gradients(_run("weight_gradient", conv, way, x, dy), *wanted[1:], ctx)
        return dx, None, None, *part_gradients(*to_parts)


def _differentiable(conv: Conv, x: Tensor, weight: MaskedWeight, dy: Tensor, wanted: list[bool]) -> tuple:
    inputs = [part for part, want in zip((x, weight.scores, weight.stored), wanted, strict=True) if want]
    if any(wanted[1:]) and is_legacy_batchedtensor(dy):
        raise RuntimeError(
            "masked_conv2d: expected one gradient at a time for a layer that learns, got a batch of them "
            "(is_grads_batched); freeze the model by requires_grad_(False), or set HIDDENNET_PLANS=fixed"
        )
    again = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        y = _library.forward(conv, x, effective_weight(weight, conv.dtype))
        found = iter(torch.autograd.grad(y, inputs, dy, create_graph=again))
    dx, *to_parts = (next(found) if want else None for want in wanted)
    return dx, None, None, *part_gradients(*to_parts)


def measures() -> bool:
    """Whether what is fastest here is used: not under HIDDENNET_PLANS=fixed, nor in torch's deterministic mode."""
    mode = os.environ.get("HIDDENNET_PLANS") or "auto"
    if mode not in ("auto", "fixed"):
        raise ValueError(f"expected HIDDENNET_PLANS to be auto or fixed, got {mode!r}")
    return mode == "auto" and not torch.are_deterministic_algorithms_enabled()


def conv_of(x: Tensor, shape: Sequence[int], dtype: torch.dtype, stride, padding, dilation, groups: int) -> Conv | None:
    """The convolution that the ways compute; None where they do not: on a GPU, in groups, in other layouts (also where
    the layout is both: the library's result would be contiguous), or where the forward is looked at."""
    if (
        is_looked_at()
        or x.device.type != "cpu"
        or x.dim() != 4
        or groups != 1
        or isinstance(padding, str)
        or x.shape[1] != shape[1]
    ):
        return None
    if not x.is_contiguous(memory_format=torch.channels_last) or x.is_contiguous():
        return None
    return Conv(tuple(x.shape), tuple(shape), tuple(stride), tuple(padding), tuple(dilation), dtype)


def is_measured(conv: Conv) -> bool:
    """Whether there is a choice among ways."""
    return any(way.serves(conv) for name, way in WAYS.items() if name != LIBRARY) and measures()


def convolve(x: Tensor, weight: MaskedWeight | Tensor, bias: Tensor | None, conv: Conv, way: str | None) -> Tensor:
    """The convolution, each direction in the way of this name, or in the fastest."""
    x = x.to(conv.dtype)
    made_of = () if isinstance(weight, Tensor) else (weight.scores, weight.stored)
    parts = [part for part in (x, *made_of) if part is not None]
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        if isinstance(weight, Tensor):  # kept by a frozen layer: only the input has a gradient, and the library's
            return F.conv2d(x, weight, None if bias is None else bias.to(x.dtype), *conv[2:5])
        y = _Convolution.apply(x, conv, way, *weight)
    else:
        made = weight if isinstance(weight, Tensor) else weight.write(conv.dtype)
        y = _run("forward", _with_density(conv, made), way, x, made)
    return y if bias is None else y + bias.to(y.dtype).view(1, -1, 1, 1)
