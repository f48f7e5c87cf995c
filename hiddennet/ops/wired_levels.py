"""wired_levels: a small graph of nodes of 8 x 8 pixels, level by level, with its gradients in one go; on a CPU.

For Discovering Neural Wirings (arXiv 1906.00586): each image's maps are normalised by themselves, so that images go
through the whole graph in groups whose maps stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiddennet.ops.checks import check_same_device, check_tensor
from hiddennet.ops.fakes import register_fake

_wired_levels = torch.ops.hiddennet.wired_levels.default
_wired_levels_backward = torch.ops.hiddennet.wired_levels_backward.default

SIDE = 8  # pixels
_UNIT, _NUMBERS = 4, 12  # csrc/ops/wired_levels/wired_levels.h: images that room is made for; a node's gradients


@register_fake("wired_levels")
def _(start, weight, scale, shift, taps, levels, eps, first_norm, lateral, kept) -> Tensor:
    return start.new_empty(start.shape[0], levels[-4], SIDE, SIDE)


@register_fake("wired_levels_backward")
def _(gradient, start, weight, scale, shift, taps, *rest) -> tuple[Tensor, ...]:
    d_weight = torch.empty_like(weight) if rest[-1] else weight.new_empty(0)
    return torch.empty_like(start), d_weight, *map(torch.empty_like, (scale, shift, taps))


@dataclass(frozen=True)
class Levels:
    """What each level of a graph receives from whom.

    Args:
        of: (row, rows, column, columns, first) for each level: the sums of rows [row, row + rows) of the weight over
            columns [column, column + columns), whose nodes are what levels before it send, counted from their `first`
            one on. The first level sums nothing and reads no columns, the last one does not send.
        eps: of the instance norms.
        first_norm: the first level is normalised, too; else it is rectified and filtered alone.
        lateral: the last level's rows are in the level before, too, and the sums of both are added.
    """

    of: tuple[tuple[int, int, int, int, int], ...]
    eps: float = 1e-5
    first_norm: bool = True
    lateral: bool = False

    @property
    def usable(self) -> int:
        """Positions that sums read, those of the same weight at several levels each time."""
        return sum(rows * columns for _, rows, _, columns, _ in self.of)

    def numbers(self) -> list[int]:
        """As the op takes them."""
        return [number for level in self.of for number in level]

    def room(self, images: int, nodes: int) -> tuple[int, int]:
        """Floats that a training step keeps, and that its backward needs beside them."""
        images = -(-images // _UNIT) * _UNIT
        sending = sum(rows for _, rows, *_ in self.of[:-1])
        scratch = images * ((sending + self.of[-1][1]) * SIDE**2 + nodes * _NUMBERS)
        return images * sending * (2 * SIDE**2 + 1), scratch


class Rooms:
    """Memory of a model's steps, used again: fresh memory costs more than what is written to it.

    One piece of a name is kept, the largest. Copies and pickles are empty.
    """

    def __init__(self) -> None:
        self._free: dict[str, Tensor] = {}

    def take(self, name: str, n: int) -> Room:
        """`n` floats, until the Room is dropped."""
        memory = self._free.pop(name, None)
        if memory is None or memory.numel() < n:
            memory = torch.empty(n, dtype=torch.float32, device="cpu")
        return Room(self, name, memory, n)

    def back(self, name: str, memory: Tensor) -> None:
        """Take it for the next step."""
        kept = self._free.get(name)
        if kept is None or kept.numel() < memory.numel():
            self._free[name] = memory

    def __deepcopy__(self, _: dict) -> Rooms:
        return Rooms()

    def __reduce__(self) -> tuple:
        return Rooms, ()


class Room:
    """A piece of memory that goes back when nobody holds it any more."""

    def __init__(self, rooms: Rooms, name: str, memory: Tensor, n: int) -> None:
        self._rooms, self._name, self._memory = rooms, name, memory
        self.floats = memory[:n]

    def __del__(self) -> None:
        self._rooms.back(self._name, self._memory)


class _WiredLevels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start, weight, scale, shift, taps, levels: Levels, rooms: Rooms) -> Tensor:
        kept = rooms.take("kept", levels.room(len(start), len(weight))[0])
        given = start, weight, scale, shift, taps
        ctx.save_for_backward(*given)
        ctx.levels, ctx.rooms, ctx.kept = levels, rooms, kept
        options = levels.numbers(), levels.eps, levels.first_norm, levels.lateral
        return _wired_levels(*given, *options, kept.floats)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        given, levels = ctx.saved_tensors, ctx.levels
        scratch = ctx.rooms.take("scratch", levels.room(len(given[0]), len(given[1]))[1])
        options = levels.numbers(), levels.eps, levels.first_norm, levels.lateral
        room = ctx.kept.floats, scratch.floats
        found = _wired_levels_backward(gradient.contiguous(), *given, *options, *room, ctx.needs_input_grad[1])
        wanted = zip(found, ctx.needs_input_grad, strict=False)
        return *(g if want else None for g, want in wanted), None, None


def wired_levels(
    start: Tensor,
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    taps: Tensor,
    levels: Levels,
    rooms: Rooms | None = None,
) -> Tensor:
    """Return the last level's sums: [images, rows, 8, 8], differentiable once in all tensors.

    A node v sends z_v = conv(ReLU(scale_v norm(I_v) + shift_v)), conv the 3x3 filter taps_v with zeros around the map,
    norm an instance norm; I_v is the sum over u of weight[v, u] z_u. The gradient of `weight` is that at every position
    that sums read, edges or not, and 0 elsewhere.

    Args:
        start: float32 [images, nodes of the first level, 8, 8], what these received.
        weight: float32 [nodes, nodes], effective: elements that are not 0 are edges.
        scale, shift: float32 [nodes]. taps: float32 [nodes, 1, 3, 3]. levels: what is summed. rooms: memory to use
            again.

    Raises:
        TypeError, ValueError, RuntimeError: anything outside what is said above.
    """
    op = "wired_levels"
    given = {"start": start, "weight": weight, "scale": scale, "shift": shift, "taps": taps}
    for name, tensor in given.items():
        check_tensor(op, name, tensor, dtypes=(torch.float32,))
        check_same_device(op, name, tensor, "start", start)
    given = [tensor.contiguous() for tensor in given.values()]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return _WiredLevels.apply(*given, levels, Rooms() if rooms is None else rooms)
    return _wired_levels(*given, levels.numbers(), levels.eps, levels.first_norm, levels.lateral, None)
