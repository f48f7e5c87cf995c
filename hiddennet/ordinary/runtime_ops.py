"""What each operation of a traced network becomes in the graph of hiddennet.runtime."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from hiddennet.ordinary.runtime_parts import Constant, Graph, Shape, Value, folded

aten = torch.ops.aten
Made = Value | tuple
_END = 2**63 - 1  # of a slice without one


@dataclass(frozen=True)
class _Grouped:
    """A value whose channels are seen as [groups, channels of a group], or turned."""

    value: Value
    groups: int
    turned: bool = False


class _Call:
    """One operation of the program with what it reads, by the names of its schema."""

    def __init__(self, graph: Graph, node: fx.Node, values: dict[fx.Node, Any], batch: Any) -> None:
        self.graph, self.node, self.batch = graph, node, batch
        self.args, self.kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values.get(n, n))
        self.given: dict[str, Any] = {}
        if isinstance(node.target, torch._ops.OpOverload):
            schema = node.target._schema.arguments
            self.given = {one.name: one.default_value for one in schema if one.has_default_value()}
            self.given |= dict(zip((one.name for one in schema), self.args, strict=False)) | dict(self.kwargs)

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    def get(self, *names: str) -> Any:
        """The argument that has one of these names."""
        return next(self.given[name] for name in names if name in self.given)

    @property
    def x(self) -> Value:
        """What comes in."""
        found = self.get("input", "self", "x")
        if not isinstance(found, Value):
            self.refuse("of a constant")
        return found

    @property
    def shape(self) -> Shape:
        """Of what is made, without the batch, which has to stay first."""
        return self.shape_of(self.node.meta["val"])

    def shape_of(self, made: Tensor) -> Shape:
        whole = made.shape
        if not whole or whole[0] != self.batch or not all(isinstance(size, int) for size in whole[1:]):
            self.refuse(f"that makes {tuple(whole)}, whose first dimension is not the batch")
        if len(whole) not in (2, 3, 4):
            self.refuse(f"that makes {len(whole)} dimensions")
        return tuple(whole[1:])

    @property
    def name(self) -> str:
        return self.node.name

    def add(self, op: str, *inputs: Value, shape: Shape | None = None, name: str = "", **numbers: Any) -> Value:
        for number in numbers.values():
            if isinstance(number, float) and not math.isfinite(number):  # which JSON does not have
                self.refuse(f"of {number}")
        return self.graph.add(op, inputs, self.shape if shape is None else shape, name or self.name, **numbers)

    def refuse(self, why: str = "") -> None:
        """Raise ValueError that names the operation and the module that calls it."""
        stack = self.node.meta.get("nn_module_stack") or {}
        where = next(reversed(stack.values()))[0] if stack else ""
        target = self.node.target
        op = target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else str(target)
        raise ValueError(
            f"runtime: expected operations of convolutional networks and MLPs, got {op}{' ' if why else ''}{why}"
            f"{f' in {where}' if where else ''}; hiddennet.plain and ONNX keep such a network"
        )


def convert(graph: Graph, node: fx.Node, values: dict[fx.Node, Any], batch: Any) -> Any:
    """Append what a node of the program becomes; return its value, a tuple of some, or a constant.

    Raises ValueError for an operation that the runtime does not have.
    """
    call = _Call(graph, node, values, batch)
    if node.target is operator.getitem:
        return call.args[0][call.args[1]]
    read = torch.utils._pytree.tree_leaves((call.args, call.kwargs))
    if node.target is aten.sym_size.int or any(isinstance(one, fx.Node) for one in read):
        if node.target is aten.sym_size.int or not any(isinstance(one, (Value, _Grouped)) for one in read):
            return node  # a number that depends on the batch
    elif not any(isinstance(one, (Value, _Grouped)) for one in read):
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            call.refuse("that draws random numbers")
        return folded(node.target, call.args, call.kwargs)
    handler = HANDLERS.get(getattr(node.target, "overloadpacket", node.target))
    if handler is None:
        call.refuse()
    return handler(call)


def _spread(numbers: Any, dims: int, missing: int) -> list[int]:
    """[height, width] of an argument of one or `dims` numbers; the height of one dimension is `missing`."""
    numbers = [numbers] if isinstance(numbers, int) else list(numbers)
    numbers = numbers * dims if len(numbers) == 1 else numbers
    return [missing] * (2 - dims) + numbers


def _convolution(call: _Call) -> Value:
    weight, bias = call["weight"], call["bias"]
    if call.given.get("transposed"):
        call.refuse("that is transposed")
    if not isinstance(weight, Constant) or isinstance(bias, Value):
        call.refuse("whose weight is computed")
    dims = weight.tensor.dim() - 2
    if dims not in (1, 2):
        call.refuse(f"of {dims} dimensions")
    dilation, padding = _spread(call["dilation"], dims, 1), call["padding"]
    if isinstance(padding, str):
        kernel = _spread(weight.tensor.shape[2:], dims, 1)
        total = [0 if padding == "valid" else d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [*(t // 2 for t in total), *(t - t // 2 for t in total)]
    else:
        pads = _spread(padding, dims, 0) * 2
    return call.add(
        "conv",
        call.x,
        name=_layer_name(weight, call),
        weight=call.graph.weight(weight),
        bias=call.graph.tensor(bias) if bias is not None else None,
        stride=_spread(call["stride"], dims, 1),
        pads=pads,
        dilation=dilation,
        groups=call["groups"],
    )


def _layer_name(weight: Constant, call: _Call) -> str:
    return weight.layer or weight.key.removeprefix("state.").removesuffix(".weight") or call.name


def _linear(call: _Call) -> Value:
    weight, bias = call["weight"], call["bias"]
    if not isinstance(weight, Constant) or isinstance(bias, Value):
        call.refuse("whose weight is computed")
    if len(call.x.shape) != 1:
        call.refuse(f"on {len(call.x.shape) + 1} dimensions")
    return call.add(
        "linear",
        call.x,
        name=_layer_name(weight, call),
        weight=call.graph.weight(weight),
        bias=call.graph.tensor(bias) if bias is not None else None,
    )


def _named(call: _Call, *names: str) -> dict[str, str | None]:
    """Tensors of arguments, by what the graph calls them."""
    found = {}
    for name in names:
        key = {"running_mean": "mean", "running_var": "var"}.get(name, name)
        tensor = call.given.get(name)
        if isinstance(tensor, Value):
            call.refuse(f"whose {name} is computed")
        found[key] = call.graph.tensor(tensor) if tensor is not None else None
    return found


def _batch_norm(call: _Call) -> Made:
    if call.given.get("training") or call["running_mean"] is None:
        call.refuse("that takes its statistics from the batch")
    named = _named(call, "weight", "bias", "running_mean", "running_var")
    made = call.add("norm", call.x, shape=call.x.shape, eps=call["eps"], **named)
    return (made, None, None) if isinstance(call.node.meta["val"], (tuple, list)) else made


def _instance_norm(call: _Call) -> Value:
    if not call["use_input_stats"]:
        call.refuse("that uses running statistics")
    return call.add("instance_norm", call.x, eps=call["eps"], **_named(call, "weight", "bias"))


def _activation(kind: str, **bounds: str | float) -> Callable[[_Call], Value]:
    def handle(call: _Call) -> Value:
        numbers = {key: float(call[name]) if isinstance(name, str) else name for key, name in bounds.items()}
        return call.add("activation", call.x, kind=kind, **numbers)

    return handle


def _clamp(call: _Call) -> Value:
    low, high = (call.given.get(name, call.given.get(f"{name}_val")) for name in ("min", "max"))
    most = torch.finfo(torch.float32).max
    bounds = [float(one) if isinstance(one, (int, float)) else one for one in (low, high)]
    if any(one is not None and not isinstance(one, float) for one in bounds):
        call.refuse("by tensors")
    low, high = (least if one is None else one for one, least in zip(bounds, (-math.inf, math.inf), strict=True))
    if math.isinf(low) or math.isinf(high):  # what no number reaches but an infinity
        low, high = max(low, -most), min(high, most)
    return call.add("activation", call.x, kind="clamp", low=low, high=high)


def _gelu(call: _Call) -> Value:
    if call["approximate"] != "none":
        call.refuse(f"with approximate={call['approximate']!r}")
    return call.add("activation", call.x, kind="gelu")


def _add(sign: int) -> Callable[[_Call], Value]:
    def handle(call: _Call) -> Value:
        a, b = call.given["self"], call.given["other"]
        factor = sign * call.given.get("alpha", 1)
        if isinstance(a, Value) and isinstance(b, Value):
            if factor != 1:
                b = call.add("scale", b, shape=b.shape, scale=float(factor))
            return _of_two(call, "add", a, b)
        if isinstance(a, Value):
            return _with_constant(call, a, b, lambda c: (None, factor * c), "add")
        scaled = call.add("scale", b, shape=b.shape, scale=float(factor)) if factor != 1 else b
        return _with_constant(call, scaled, a, lambda c: (None, c), "add")

    return handle


def _subtract_from(call: _Call) -> Value:
    """Of a number what comes in."""
    call.given |= {"self": call.given["other"], "other": call.given["self"]}
    return _add(-1)(call)


def _multiply(call: _Call) -> Value:
    a, b = call.given["self"], call.given["other"]
    if isinstance(a, Value) and isinstance(b, Value):
        return _of_two(call, "multiply", a, b)
    value, other = (a, b) if isinstance(a, Value) else (b, a)
    return _with_constant(call, value, other, lambda c: (c, None), "multiply")


def _divide(call: _Call) -> Value:
    a, b = call.given["self"], call.given["other"]
    if isinstance(b, Value) or call.given.get("rounding_mode") is not None:
        call.refuse("by a value" if isinstance(b, Value) else "that rounds")
    if isinstance(b, (int, float)) and b == 0:
        call.refuse("by zero")
    return _with_constant(call, a, b, lambda c: (1.0 / c, None), "multiply")


def _of_two(call: _Call, op: str, a: Value, b: Value) -> Value:
    """Of values of one shape, or one that has one pixel, one channel, or both."""
    if len(a.shape) != len(b.shape):
        call.refuse(f"of shapes {a.shape} and {b.shape}")
    if math.prod(a.shape) < math.prod(b.shape):
        a, b = b, a
    pixels = b.shape[1:] in (a.shape[1:], (1,) * (len(a.shape) - 1))
    if b.shape[0] not in (1, a.shape[0]) or not pixels:
        call.refuse(f"of shapes {a.shape} and {b.shape}")
    return call.add(op, a, b)


def _with_constant(call: _Call, value: Value, other: Any, numbers: Callable[[Any], tuple], op: str) -> Value:
    """Of a value and a number, a tensor of one number a channel, or one of a sample's shape."""
    if isinstance(other, (int, float)):
        scale, shift = numbers(float(other))
        return call.add("scale", value, shape=value.shape, scale=scale, shift=shift)
    if not isinstance(other, Constant) or call.shape != value.shape:
        call.refuse("of a number that depends on the batch" if not isinstance(other, Constant) else "that broadcasts")
    tensor, dims = other.tensor.detach().double(), len(value.shape)
    tensor = tensor.reshape((1,) * (dims + 1 - tensor.dim()) + tuple(tensor.shape))
    if tensor.shape[0] != 1:
        call.refuse("of a constant with a batch")
    tensor = tensor[0]
    scale, shift = numbers(tensor)
    if tensor.numel() in (1, tensor.shape[0]) and tensor.shape[0] in (1, value.shape[0]):
        named = {
            key: call.graph.tensor(Constant(one.flatten().expand(value.shape[0])))
            for key, one in (("scale", scale), ("shift", shift))
            if one is not None
        }
        return call.add("scale", value, **named)
    whole = (scale if shift is None else shift).expand(value.shape)
    held = call.add("constant", shape=value.shape, dims=list(value.shape), tensor=call.graph.tensor(Constant(whole)))
    return call.add(op, value, held)


def _cat(call: _Call) -> Value:
    parts, dim = call["tensors"], call["dim"]
    if not all(isinstance(one, Value) for one in parts):
        call.refuse("with constants")
    if dim % (len(parts[0].shape) + 1) != 1:
        call.refuse(f"along dimension {dim}")
    return call.add("concat", *parts)


def _pool(op: str, dims: int) -> Callable[[_Call], Made]:
    def handle(call: _Call) -> Made:
        kernel = call["kernel_size"]
        return call.add(
            op,
            call.x,
            kernel=_spread(kernel, dims, 1),
            stride=_spread(call["stride"] or kernel, dims, 1),
            pads=_spread(call["padding"], dims, 0) * 2,
            dilation=_spread(call.given.get("dilation", 1), dims, 1),
            ceil=bool(call["ceil_mode"]) or None,
            count_pads=call.given.get("count_include_pad"),
            divisor=call.given.get("divisor_override"),
        )

    return handle


def _adaptive(op: str, dims: int) -> Callable[[_Call], Made]:
    def handle(call: _Call) -> Made:
        made = call.node.meta["val"]
        several = isinstance(made, (tuple, list))
        shape = call.shape_of(made[0] if several else made)
        found = call.add(op, call.x, shape=shape, size=[1] * (2 - dims) + list(shape[1:]))
        return (found, None) if several else found

    return handle


def _reduce(op: str) -> Callable[[_Call], Value]:
    """A mean or a maximum over all pixels."""

    def handle(call: _Call) -> Value:
        x, dims = call.x, call["dim"]
        rank = len(x.shape) + 1
        over = sorted(dim % rank for dim in ([dims] if isinstance(dims, int) else dims or range(rank)))
        if rank < 3 or over != list(range(2, rank)):
            call.refuse(f"over dimensions {dims}, which are not all of a channel's pixels")
        kept = (x.shape[0],) + (1,) * (rank - 2)
        made = call.add(op, x, shape=kept, size=[1, 1])
        return made if call.shape == kept else _shaped(call, made)

    return handle


def _shaped(call: _Call, value: Value) -> Value:
    return value if call.shape == value.shape else call.add("reshape", value, dims=list(call.shape))


def _reshape(call: _Call) -> Value | _Grouped:
    """Also a shuffle of channels: seen as groups, these turned with what they hold, seen as channels again."""
    x, made = call.get("input", "self"), tuple(call.node.meta["val"].shape)
    if isinstance(x, _Grouped):
        if not x.turned or call.shape != x.value.shape:
            call.refuse("of groups of channels")
        return call.add("shuffle", x.value, groups=x.groups)
    if len(made) == 5 and made[0] == call.batch and made[3:] == x.shape[1:]:
        return _Grouped(x, made[1])
    return _shaped(call, x)


def _transpose(call: _Call) -> Value | _Grouped:
    x = call.get("self")
    if not isinstance(x, _Grouped) or x.turned or sorted(dim % 5 for dim in (call["dim0"], call["dim1"])) != [1, 2]:
        call.refuse()
    return _Grouped(x.value, x.groups, turned=True)


def _shuffle(call: _Call) -> Value:
    return call.add("shuffle", call.x, groups=call["groups"])


def _same(call: _Call) -> Value | _Grouped:
    return call.get("input", "self")


def _dropout(call: _Call) -> Value:
    if call.given.get("train", call.given.get("training", False)):
        call.refuse("that drops in evaluation")
    return call.x


def _cast(call: _Call) -> Value:
    if call.node.meta["val"].dtype != torch.float32:
        call.refuse(f"to {call.node.meta['val'].dtype}")
    return call.x


def _softmax(op: str) -> Callable[[_Call], Value]:
    def handle(call: _Call) -> Value:
        if call["dim"] % (len(call.x.shape) + 1) != 1:
            call.refuse(f"along dimension {call['dim']}")
        return call.add(op, call.x)

    return handle


def _pad(call: _Call) -> Value:
    x, pads = call.x, [*call["pad"], *[0] * 8]
    if call.given.get("mode", "constant") != "constant":
        call.refuse(f"in mode {call['mode']}")
    value, pixels = float(call["value"] or 0.0), 2 * (len(x.shape) - 1)
    before, after = pads[pixels : pixels + 2]
    if any(pads[pixels + 2 :]) or min(before, after) < 0:
        call.refuse(f"of {list(call['pad'])}")
    left, right, top, bottom = ([*pads[:pixels], 0, 0, 0, 0])[:4]
    sides = [top, left, bottom, right]
    if any(sides):
        held = str(value) if math.isinf(value) else value  # the text inf or -inf, which JSON has no number for
        x = call.add("pad", x, shape=(x.shape[0], *call.shape[1:]), pads=sides, value=held)
    if not before and not after:
        return x
    parts = [_filled(call, (before, *x.shape[1:]), value), x, _filled(call, (after, *x.shape[1:]), value)]
    return call.add("concat", *(one for one in parts if one.shape[0]))


def _filled(call: _Call, shape: Shape, value: float) -> Value:
    """A constant of one value; of no channels it is left out."""
    if not shape[0]:
        return Value(-1, shape)
    held = call.graph.tensor(Constant(torch.full(shape, value)))
    return call.add("constant", shape=shape, dims=list(shape), tensor=held)


def _slice(call: _Call) -> Value:
    dim, start, end, step = call["dim"], call["start"] or 0, call["end"], call["step"]
    x = call.x
    dim %= len(x.shape) + 1
    if step != 1 or dim == 0:
        whole = step == 1 and start == 0 and (end is None or end == _END)
        return x if whole else call.refuse(f"along dimension {dim} by steps of {step}")
    size = x.shape[dim - 1]
    start = min(max(start + size if start < 0 else start, 0), size)
    end = size if end is None else min(max(end + size if end < 0 else end, start), size)
    if (start, end) == (0, size):
        return x
    if dim == 1:
        return call.add("slice", x, first=start, count=end - start)
    crop = [0, 0, 0, 0]  # top, left, bottom, right
    axis = dim - len(x.shape) + 1  # of height and width; lines have widths alone
    crop[axis], crop[axis + 2] = -start, end - size
    return call.add("pad", x, pads=crop)


def _split(call: _Call) -> tuple:
    if call["dim"] % (len(call.x.shape) + 1) != 1:
        call.refuse(f"along dimension {call['dim']}")
    parts, first = [], 0
    for made in call.node.meta["val"]:
        shape = call.shape_of(made)
        parts.append(call.add("slice", call.x, shape=shape, first=first, count=shape[0]))
        first += shape[0]
    return tuple(parts)


_BY_HANDLER: dict[Callable[[_Call], Any], tuple[Any, ...]] = {
    _convolution: (aten.conv1d, aten.conv2d, aten.convolution),
    _linear: (aten.linear,),
    _batch_norm: (aten.batch_norm, aten._native_batch_norm_legit_no_training),
    _instance_norm: (aten.instance_norm,),
    _activation("relu"): (aten.relu,),
    _activation("clamp", low=0.0, high=6.0): (aten.relu6,),
    _clamp: (aten.clamp, aten.clamp_min, aten.clamp_max, aten.hardtanh),
    _activation("leaky_relu", low="negative_slope"): (aten.leaky_relu,),
    _activation("silu"): (aten.silu,),
    _activation("hardswish"): (aten.hardswish,),
    _activation("hardsigmoid"): (aten.hardsigmoid,),
    _activation("sigmoid"): (aten.sigmoid,),
    _gelu: (aten.gelu,),
    _activation("tanh"): (aten.tanh,),
    _add(1): (aten.add,),
    _add(-1): (aten.sub,),
    _subtract_from: (aten.rsub,),
    _multiply: (aten.mul,),
    _divide: (aten.div,),
    _cat: (aten.cat,),
    _pool("max_pool", 1): (aten.max_pool1d,),
    _pool("max_pool", 2): (aten.max_pool2d,),
    _pool("average_pool", 1): (aten.avg_pool1d,),
    _pool("average_pool", 2): (aten.avg_pool2d,),
    _adaptive("adaptive_average_pool", 1): (aten.adaptive_avg_pool1d,),
    _adaptive("adaptive_average_pool", 2): (aten.adaptive_avg_pool2d,),
    _adaptive("adaptive_max_pool", 1): (aten.adaptive_max_pool1d,),
    _adaptive("adaptive_max_pool", 2): (aten.adaptive_max_pool2d,),
    _reduce("adaptive_average_pool"): (aten.mean,),
    _reduce("adaptive_max_pool"): (aten.amax,),
    _reshape: (aten.flatten, aten.view, aten.reshape, aten._unsafe_view, aten.squeeze, aten.unsqueeze),
    _transpose: (aten.transpose,),
    _shuffle: (aten.channel_shuffle, aten.native_channel_shuffle),
    _dropout: (aten.dropout, aten.feature_dropout),
    _same: (aten.alias, aten.clone, aten.contiguous, aten.detach, aten.lift_fresh_copy),
    _cast: (aten._to_copy, aten.to),
    _softmax("softmax"): (aten.softmax, aten._softmax),
    _softmax("log_softmax"): (aten.log_softmax, aten._log_softmax),
    _pad: (aten.constant_pad_nd, aten.pad),
    _slice: (aten.slice,),
    _split: (aten.split, aten.split_with_sizes, aten.chunk),
}
HANDLERS = {operation: handler for handler, operations in _BY_HANDLER.items() for operation in operations}
