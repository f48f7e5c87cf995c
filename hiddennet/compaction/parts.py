"""The parts compact networks are made of: sums over edges, node operations, and one workspace for all maps."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.ops import Edges, filter_nodes_, pack_edges, wired_sum_
from hiddennet.ops.wired_sum import SPARSE_UP_TO

Tensors = Mapping[str, Tensor]
_LINE = 16  # floats of a cache line


class Frozen(nn.Module):
    """A part of fixed tensors: floating ones are parameters without gradients, others buffers."""

    def hold(self, tensors: Tensors, **shapes: tuple[int, ...]) -> None:
        """Register copies of the named tensors, contiguous.

        Raises:
            ValueError: one is missing, or of another shape.
        """
        for name, shape in shapes.items():
            found = tensors.get(name)
            if found is None or tuple(found.shape) != shape:
                got = "none" if found is None else f"shape {tuple(found.shape)}"
                raise ValueError(f"{type(self).__name__}: expected {name} of shape {shape}, got {got}")
            own = found.detach().clone(memory_format=torch.contiguous_format)
            if own.is_floating_point():
                self.register_parameter(name, nn.Parameter(own, requires_grad=False))
            else:
                self.register_buffer(name, own)


def part(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with "prefix.", without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def packed(weight: Tensor) -> dict[str, Tensor]:
    """A product's tensors, of its weight [n_destinations, n_sources]: a list, or dense where that is faster."""
    edges = int(weight.count_nonzero())
    if edges > SPARSE_UP_TO["cpu"] * weight.numel():
        return {"weight": weight}
    if weight.dtype == torch.float32:
        listed = pack_edges(weight)
        starts, sources, values = listed.starts, listed.sources, listed.values
    else:
        rows, sources = weight.nonzero(as_tuple=True)
        starts, values = starts_of(rows, weight.shape[0]), weight[rows, sources]
    return {"starts": starts, "sources": narrow(sources, weight.shape[1]), "values": values}


def starts_of(rows: Tensor, n_destinations: int) -> Tensor:
    """int32 [n_destinations + 1]: where each destination's edges begin, of the edges' ascending destinations."""
    return torch.searchsorted(rows.contiguous(), torch.arange(n_destinations + 1, device=rows.device)).int()


def narrow(sources: Tensor, n_sources: int) -> Tensor:
    """Sources in 2 bytes where they fit: the bits of uint16 in int16, which every torch pickles."""
    return sources.to(torch.uint16).view(torch.int16) if n_sources <= 1 << 16 else sources.int()


def sources_of(narrowed: Tensor) -> Tensor:
    """What `narrow` made, as uint16 or int32."""
    return narrowed.view(torch.uint16) if narrowed.dtype == torch.int16 else narrowed


class Product(Frozen):
    """Sums over the edges from n_sources to n_destinations channels: a list or a dense weight.

    tensors: `starts`, `sources` and `values` (hiddennet.ops.Edges; sources as `narrow` makes them), or `weight`.
    """

    def __init__(self, n_destinations: int, n_sources: int, tensors: Tensors) -> None:
        super().__init__()
        self.n_destinations, self.n_sources = n_destinations, n_sources
        self.is_dense = "weight" in tensors
        if self.is_dense:
            self.hold(tensors, weight=(n_destinations, n_sources))
            return
        edges = tensors["values"].numel() if "values" in tensors else 0
        self.hold(tensors, starts=(n_destinations + 1,), sources=(edges,), values=(edges,))

    @property
    def edges(self) -> Edges:
        return Edges(self.starts, sources_of(self.sources), self.values, self.n_sources, _packed=True)

    @property
    def n_edges(self) -> int:
        """Edges in the list, or elements of the dense weight that are not 0."""
        return int(self.weight.count_nonzero()) if self.is_dense else self.values.numel()

    def matrix(self) -> Tensor:
        """The dense weight [n_destinations, n_sources]."""
        if self.is_dense:
            return self.weight
        dense = self.values.new_zeros(self.n_destinations, self.n_sources)
        counts = self.starts.diff().long()
        rows = torch.arange(self.n_destinations, device=counts.device).repeat_interleave(counts)
        dense[rows, sources_of(self.sources).long()] = self.values
        return dense

    def sum_into(self, out: Tensor, x: Tensor, *, accumulate: bool = False) -> None:
        """Write the sums of x [N, n_sources, H, W] into out [N, n_destinations, H, W], or add them."""
        if not self.is_dense and x.dtype == torch.float32:
            wired_sum_(out, x, self.edges, accumulate=accumulate)
            return
        sums, maps, weight = out.flatten(2), x.flatten(2), self.matrix()
        if x.shape[0] == 1:
            torch.addmm(sums[0], weight, maps[0], beta=int(accumulate), out=sums[0])
        elif accumulate:
            sums += torch.matmul(weight, maps)
        else:
            sums.copy_(torch.matmul(weight, maps))

    def extra_repr(self) -> str:
        kind = "dense" if self.is_dense else f"{self.values.numel()} edges"
        return f"{self.n_sources}, {self.n_destinations}, {kind}"


class Nodes(Frozen):
    """Operations of nodes: conv(ReLU(scale x + shift)), a 3x3 convolution of each map, with zeros around it."""

    def __init__(self, count: int, tensors: Tensors) -> None:
        super().__init__()
        self.count = count
        self.hold(tensors, scale=(count,), shift=(count,), taps=(count, 3, 3))

    def send_into(self, out: Tensor, x: Tensor, first: int, stride: int = 1, *, plain: bool = False) -> None:
        """Write what nodes from `first` on send, of the sums x [N, n, H, W] they received; plain: without scale and
        shift."""
        if out.numel() == 0:
            return
        span = slice(first, first + x.shape[1])
        scale, shift, taps = self.scale[span], self.shift[span], self.taps[span]
        if plain:
            scale, shift = torch.ones_like(scale), torch.zeros_like(shift)
        if x.dtype == torch.float32:
            filter_nodes_(out, x, scale, shift, taps, stride=stride)
            return
        ready = F.relu(torch.addcmul(shift[:, None, None], x, scale[:, None, None]))
        out.copy_(F.conv2d(ready, taps[:, None], stride=stride, padding=1, groups=len(taps)))


class Space:
    """Maps of one forward in one piece of memory: `left` takes from its beginning, `right` from its end."""

    def __init__(self, size: int, like: Tensor) -> None:
        with torch.inference_mode(False):
            self.memory = torch.empty(size, dtype=like.dtype, device=like.device)

    def left(self, *shape: int) -> Tensor:
        return self.memory[: math.prod(shape)].view(shape)

    def right(self, *shape: int) -> Tensor:
        size = math.prod(shape)
        begin = (self.memory.numel() - size) // _LINE * _LINE
        return self.memory[begin : begin + size].view(shape)


def folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation, computed in float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    shift = shift if norm.bias is None else shift + norm.bias.double()
    return scale.to(norm.running_mean.dtype), shift.to(norm.running_mean.dtype)


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """torch's convolution, also to no channels."""
    if len(weight):
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)
    sides = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
    return x.new_empty(len(x), 0, *sides)


def features_of(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Means of ReLU(scale x + shift) over pixels: [N, channels]."""
    return F.relu(torch.addcmul(shift[:, None, None], x, scale[:, None, None])).mean(dim=(2, 3))
