"""wired_sum: the sum over the edges of a wiring, a sparse product over channels.

y[v] = sum over edges (u, v) of w[v, u] * x[u]. For Discovering Neural Wirings (arXiv 1906.00586): nodes are channels,
and 0.8 to 25 % of the edges exist. A *plan* is one way to compute the same sum; the default is the fastest one known
for the device and the density, and every plan can be forced.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops.checks import check_choice, check_counts, check_same_device, check_tensor
from hiddennet.ops.fakes import register_fake, register_void

_wired_sum = torch.ops.hiddennet.wired_sum.default
_wired_sum_into = torch.ops.hiddennet.wired_sum_.default
_edge_starts = torch.ops.hiddennet.edge_starts.default
_pack_edges = torch.ops.hiddennet.pack_edges.default

WIRED_PLANS = {
    "sparse": "our kernel reads the list of edges; forward and input gradient",
    "dense": "torch's 1x1 convolution by the dense weight (oneDNN, cuDNN)",
}
# Densities up to which the list is faster. CPU: measured, LADDER.md. CUDA: predicted, not run on a GPU yet.
SPARSE_UP_TO = {"cpu": 0.35, "cuda": 0.02, "meta": 0.35}
register_void("wired_sum_")


@register_fake("edge_starts")
def _(weight) -> Tensor:
    return torch.empty(weight.shape[0] + 1, dtype=torch.int32, device=weight.device)


@register_fake("pack_edges")
def _(weight, starts, n_edges) -> tuple[Tensor, Tensor]:
    sources = torch.empty(n_edges, dtype=torch.int32, device=weight.device)
    return sources, torch.empty(n_edges, dtype=torch.float32, device=weight.device)


@register_fake("wired_sum")
def _(x, starts, sources, values) -> Tensor:
    shape = (x.shape[0], starts.shape[0] - 1, *x.shape[2:])
    return torch.empty(shape, dtype=torch.float32, device=x.device)


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of a wiring by destination: those of v are [starts[v], starts[v + 1]) of sources and values.

    Made by `pack_edges` once for a weight (an optimiser's step, an evaluation) and good for any number of sums.
    Of lists made by hand kinds and sizes are checked, on a CPU what is in them, too: TypeError, ValueError.
    """

    starts: Tensor  # int32 [n_destinations + 1]
    sources: Tensor  # int32 or uint16 [n_edges], ascending in a destination
    values: Tensor  # float32 [n_edges]
    n_sources: int
    _kept: dict[str, Edges] = field(default_factory=dict, repr=False)
    _packed: bool = field(default=False, repr=False)  # made here, of a weight

    def __post_init__(self) -> None:
        if not self._packed:
            _check_lists(self)

    @property
    def n_destinations(self) -> int:
        """Channels of the sum."""
        return self.starts.shape[0] - 1

    @property
    def n_edges(self) -> int:
        """Edges in the lists, or room for them."""
        return self.sources.shape[0]

    @property
    def density(self) -> float:
        """Kept fraction of all pairs of a source and a destination."""
        return self.n_edges / max(1, self.n_sources * self.n_destinations)

    @property
    def transposed(self) -> Edges:
        """The same edges by source, for the input gradient; made at the first use, on a GPU without waiting for it."""
        if "transposed" not in self._kept:
            self._kept["transposed"] = _transposed(self)
        return self._kept["transposed"]

    def destinations(self, begin: int, end: int) -> Edges:
        """The edges into destinations [begin, end), a view on a CPU: a block of a larger wiring.

        Raises:
            ValueError: a range outside [0, n_destinations].
        """
        if not 0 <= begin <= end <= self.n_destinations:
            raise ValueError(
                f"Edges.destinations: expected 0 <= begin <= end <= {self.n_destinations}, got {begin} and {end}"
            )
        starts, sources, values = self.starts[begin : end + 1], self.sources, self.values
        if starts.device.type == "cpu":  # else the host would wait for the device: the whole lists stay
            first, last = int(starts[0]), int(starts[-1])
            starts, sources, values = starts - first, sources[first:last], values[first:last]
        return Edges(starts, sources, values, self.n_sources, _packed=True)


def _check_lists(edges: Edges) -> None:
    op, starts, sources = "Edges", edges.starts, edges.sources
    check_counts(op, {"n_sources": edges.n_sources})
    integers, floats = (torch.int32, torch.uint16), (torch.float32,)
    lists = {"starts": (starts, integers[:1]), "sources": (sources, integers), "values": (edges.values, floats)}
    for name, (t, dtypes) in lists.items():
        check_tensor(op, name, t, dtypes=dtypes)
        check_same_device(op, name, t, "starts", starts)
        if t.dim() != 1 or not t.is_contiguous():
            raise ValueError(f"{op}: expected {name} of one dimension, contiguous, got shape {tuple(t.shape)}")
    if not len(starts) or len(sources) != len(edges.values):
        raise ValueError(
            f"{op}: expected starts of a number more than destinations and as many sources as values, got "
            f"{len(starts)}, {len(sources)} and {len(edges.values)}"
        )
    if starts.device.type != "cpu":
        return
    if int(starts[0]) < 0 or int(starts[-1]) > len(sources) or bool((starts.diff() < 0).any()):
        raise ValueError(f"{op}: expected starts that do not descend, in [0, {len(sources)}], got others")
    if len(sources) and not 0 <= int(sources.int().min()) <= int(sources.int().max()) < edges.n_sources:
        raise ValueError(
            f"{op}: expected sources in [0, {edges.n_sources}), got others; the edges are of another wiring"
        )


def _transposed(edges: Edges) -> Edges:
    place = torch.arange(edges.n_edges, dtype=torch.int32, device=edges.starts.device)
    destination = torch.searchsorted(edges.starts, place, right=True, out_int32=True) - 1
    outside = (destination < 0) | (destination >= edges.n_destinations)
    source = torch.where(outside, edges.n_sources, edges.sources.int())
    ordered, order = source.sort(stable=True)
    nodes = torch.arange(edges.n_sources + 1, dtype=torch.int32, device=source.device)
    starts = torch.searchsorted(ordered.int(), nodes, out_int32=True)
    destination = torch.where(outside, 0, destination)
    return Edges(starts, destination[order].int(), edges.values[order], edges.n_destinations, _packed=True)


def pack_edges(weight: Tensor, n_edges: int | None = None) -> Edges:
    """Return the edges of a dense effective weight: its elements that are not 0.

    Args:
        weight: float32 [n_destinations, n_sources], or [n_destinations, n_sources, 1, 1]; also a part of a larger one.
        n_edges: room for edges, at least as many as there are. None counts them, for which a GPU is waited for. On a
            GPU a room that is too small is not noticed by the host: all values become NaN.

    Returns:
        Edges, detached: gradients of the weight come from `wired_sum(x, edges, weight)`.

    Raises:
        TypeError, ValueError: anything outside what is said above; on a CPU a room that is too small.
    """
    op = "pack_edges"
    matrix = _matrix(op, weight).detach()
    if matrix.shape[1] > 1 and matrix.stride(1) != 1:
        matrix = matrix.contiguous()
    starts = _edge_starts(matrix)
    if n_edges is not None:
        if isinstance(n_edges, bool) or not isinstance(n_edges, int):
            raise TypeError(f"{op}: expected n_edges to be an int or None, got {type(n_edges).__name__}")
        if not 0 <= n_edges <= matrix.numel():
            raise ValueError(f"{op}: expected n_edges in [0, {matrix.numel()}], got {n_edges}")
    if n_edges is None or matrix.device.type == "cpu":
        found = int(starts[-1])
        if n_edges is not None and n_edges < found:
            raise ValueError(f"{op}: expected n_edges of at least {found}, got {n_edges}; None counts them")
        return Edges(starts, *_pack_edges(matrix, starts, found), matrix.shape[1], _packed=True)
    sources, values = _pack_edges(matrix, starts, n_edges)
    values = values.masked_fill(starts[-1] > n_edges, float("nan"))
    return Edges(starts, sources, values, matrix.shape[1], _packed=True)


def _matrix(op: str, weight: object) -> Tensor:
    check_tensor(op, "weight", weight, dtypes=(torch.float32,))
    shape = tuple(weight.shape)
    if len(shape) not in (2, 4) or shape[2:] not in ((), (1, 1)):
        raise ValueError(f"{op}: expected a weight [n_destinations, n_sources] or with 1x1 behind, got {shape}")
    return weight.reshape(shape[:2])


class _Sparse(torch.autograd.Function):
    """The list forward and for the input; the gradient of the weight is dense, that of absent edges too."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, edges: Edges) -> Tensor:
        ctx.edges = edges
        ctx.shape = None if weight is None else weight.shape
        ctx.save_for_backward(x if weight is not None and weight.requires_grad else None)
        return _wired_sum(x, edges.starts, edges.sources, edges.values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy: Tensor):
        (x,) = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            edges = ctx.edges.transposed
            dx = _wired_sum(_maps(dy), edges.starts, edges.sources, edges.values)
        if ctx.needs_input_grad[1]:
            dw = weight_gradient(x, dy).reshape(ctx.shape)
        return dx, dw, None


def weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """[n_destinations, n_sources]: sum over images and pixels of dy[v] * x[u], by torch's matrix product."""
    return torch.matmul(dy.flatten(2), x.flatten(2).transpose(1, 2)).sum(0)


def _maps(x: Tensor) -> Tensor:
    """`x` itself where its maps are contiguous and side by side, in whatever buffer of images; else a copy."""
    n, c, h, w = x.shape
    image, channel, row, pixel = x.stride()
    inside = (w == 1 or pixel == 1) and (h == 1 or row == w) and (c == 1 or channel == h * w)
    return x if inside and (n == 1 or image >= c * h * w) else x.contiguous()


def default_wired_plan(x: Tensor, edges: Edges, weight: Tensor | None = None) -> str:
    """The fastest plan known today: "sparse" up to a density the device has, or where there is no dense weight."""
    return "sparse" if weight is None or edges.density <= SPARSE_UP_TO[x.device.type] else "dense"


def _check(op: str, x: object, edges: object) -> None:
    if not isinstance(edges, Edges):
        raise TypeError(
            f"{op}: expected edges to be Edges, got {type(edges).__name__}; make them by pack_edges(weight)"
        )
    check_tensor(op, "x", x, dtypes=(torch.float32,))
    if x.dim() != 4:
        raise ValueError(f"{op}: expected x of 4 dimensions [N, n_sources, H, W], got shape {tuple(x.shape)}")
    if x.shape[1] != edges.n_sources:
        raise ValueError(f"{op}: expected x of {edges.n_sources} channels, the edges' sources, got {x.shape[1]}")
    check_same_device(op, "edges", edges.starts, "x", x)


def wired_sum(x: Tensor, edges: Edges, weight: Tensor | None = None, *, plan: str | None = None) -> Tensor:
    """Return the sum over the edges. Equivalent to `F.conv2d(x, weight.view(n_destinations, n_sources, 1, 1))`.

    A sum runs in the order of the edges, a fused multiply-add each: plan "sparse" gives the same bits on all devices.

    Args:
        x: float32 [N, n_sources, H, W]. Maps must be contiguous, else they are copied (channels_last, too); a range of
            channels of a wider buffer is read where it lies.
        edges: of `pack_edges(weight)`.
        weight: the dense weight of these edges, [n_destinations, n_sources] or with 1x1 behind, where it needs a
            gradient, which is dense: absent edges get theirs, too (straight through a top-k in front of it).
        plan: a name of WIRED_PLANS, or None for `default_wired_plan`.

    Returns:
        float32 [N, n_destinations, H, W], contiguous in plan "sparse".

    Raises:
        TypeError, ValueError: anything outside what is said above; plan "dense" without a weight.
    """
    op = "wired_sum"
    _check(op, x, edges)
    if weight is not None:
        matrix = _matrix(op, weight)
        check_same_device(op, "weight", weight, "x", x)
        if tuple(matrix.shape) != (edges.n_destinations, edges.n_sources):
            want = (edges.n_destinations, edges.n_sources)
            raise ValueError(f"{op}: expected a weight of shape {want} like the edges, got {tuple(matrix.shape)}")
    plan = default_wired_plan(x, edges, weight) if plan is None else check_choice(op, "plan", plan, tuple(WIRED_PLANS))
    if plan == "sparse":
        return _Sparse.apply(_maps(x), weight, edges)
    if weight is None:
        raise ValueError(f"{op}: expected a weight for plan 'dense', got None; give the one the edges were made from")
    return F.conv2d(x, matrix[:, :, None, None])


def wired_sum_(out: Tensor, x: Tensor, edges: Edges, *, accumulate: bool = False) -> Tensor:
    """Write the sum into `out`, or add it there, and return `out`. No gradient; for evaluation and written backwards.

    With `accumulate` the sum starts from the old value and goes on edge by edge.

    Args:
        out: float32 [N, n_destinations, H, W], contiguous maps side by side: also a range of channels of a wider
            buffer, even of the one x is a range of, in other channels.
        x, edges: as in wired_sum.

    Raises:
        TypeError, ValueError: anything outside what is said above.
        RuntimeError: out and x overlap.
    """
    op = "wired_sum_"
    _check(op, x, edges)
    check_tensor(op, "out", out, dtypes=(torch.float32,))
    check_same_device(op, "out", out, "x", x)
    want = (x.shape[0], edges.n_destinations, *x.shape[2:])
    if tuple(out.shape) != want:
        raise ValueError(f"{op}: expected out of shape {want}, got {tuple(out.shape)}")
    if _maps(out) is not out:
        raise ValueError(f"{op}: expected out with contiguous maps side by side, got strides {out.stride()}")
    if torch.is_grad_enabled() and (out.requires_grad or x.requires_grad):
        raise ValueError(f"{op}: expected tensors without gradients, got some; use wired_sum, or torch.no_grad()")
    _wired_sum_into(out, _maps(x), edges.starts, edges.sources, edges.values, accumulate)
    return out
