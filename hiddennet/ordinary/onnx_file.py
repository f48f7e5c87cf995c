"""A network as an ONNX file: by torch's exporter, weights as they are or as integers with scales."""

import copy
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiddennet.files import write_atomic
from hiddennet.ordinary import plain
from hiddennet.ordinary.opened import example_of, open_network

WEIGHTS = ("float32", "int8", "int4")
OPSET = 23
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
_MOST = 127  # of int8, in both directions


@dataclass(frozen=True)
class Exported:
    """What an ONNX file came to.

    Attributes:
        bytes: of the file. layers: whose weights are integers.
        weight_error: the largest difference of a weight from what it was, as a fraction of its channel's largest.
        logit_error: the largest difference of ONNX Runtime's outputs from torch's on a random batch; outputs, the
            largest of those.
    """

    path: Path
    bytes: int
    layers: int
    weight_error: float
    logit_error: float
    outputs: float


def export_onnx(
    model: nn.Module | str | os.PathLike,
    path: str | os.PathLike,
    example: Tensor | None = None,
    *,
    weights: str = "float32",
) -> Exported:
    """Write a network's ordinary form (hiddennet.plain) as an ONNX file of any batch size, atomically; run it once.

    Args:
        model: a model, or the path of an artifact, a run or a checkpoint.
        path: of the file; its input is called `input`, its output `logits`.
        example: an input, batch first, whose other dimensions are the file's. None: of the images that the network says
            it takes.
        weights: of convolutions and linear layers. "float32"; "int4": for weights of -c, 0 and +c, as sub-networks of
            signed constants have, exactly, as DequantizeLinear of 4 bits with one scale a layer; "int8": as
            DequantizeLinear of 8 bits with a scale a channel, exact for those, rounded for others (`weight_error`).

    Raises:
        ValueError: a package that is missing; weights that are not of the form for int4, by name; a network that
            torch's exporter does not take; no example where the network does not say what it takes.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"onnx: expected the packages {', '.join(_PACKAGES)}, got no {' and no '.join(missing)}; "
            "pip install 'hiddennet[onnx]'"
        )
    if weights not in WEIGHTS:
        raise ValueError(f"onnx: expected weights to be one of {', '.join(WEIGHTS)}, got {weights!r}")
    given = model if isinstance(model, nn.Module) else open_network(model, "onnx").model
    example = example_of(given, "onnx") if example is None else example
    made = plain(given)
    integers = {} if weights == "float32" else _integers(made, weights)
    program, x, want = _program(made, example)
    _use(program.model, integers)
    program.optimize()
    proto = program.model_proto
    _without_traces(proto)
    target = Path(path).expanduser()
    data = proto.SerializeToString()
    got = _run(data, x)
    error, outputs = (float(np.abs(a).max(initial=0.0)) for a in (got - want, want))
    write_atomic(target, lambda file: file.write(data))
    worst = max((one.error for one in integers.values()), default=0.0)
    return Exported(target, len(data), len(integers), worst, error, outputs)


@torch.no_grad()
def _program(model: nn.Module, example: Tensor) -> tuple[Any, np.ndarray, np.ndarray]:
    """torch's ONNX program, not optimised; three random inputs and what torch makes of them."""
    x = torch.randn(3, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    try:
        want = copy.deepcopy(model)(x).numpy()
        program = torch.onnx.export(
            model,
            (torch.cat([example, example])[:2],),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["input"],
            output_names=["logits"],
            verbose=False,
            optimize=False,
        )
        return program, x.numpy(), want
    except Exception as error:  # the exporter has many
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"onnx: expected a network that torch's exporter takes with any batch size, got {type(model).__name__} "
            f"({reason:.200})"
        ) from None


@dataclass(frozen=True)
class _Integers:
    """Values int8 of the weight's shape; scale, float32 [] or [channels] along `axis`; bits they need."""

    values: np.ndarray
    scale: np.ndarray
    axis: int
    bits: int
    error: float


def _weights_of(model: nn.Module) -> dict[str, tuple[np.ndarray, int]]:
    """Weights of convolutions and linear layers by name, and the dimension of their output channels."""
    found, held = {}, set()
    for name, module in model.named_modules():
        leaf = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
        own = module._parameters.get(leaf)
        if own is None or id(own) in held or not isinstance(module, (*_LAYERS, nn.MultiheadAttention)):
            continue
        held.add(id(own))
        axis = 1 if getattr(module, "transposed", False) else 0
        found[f"{name}.{leaf}".lstrip(".")] = own.detach().float().cpu().numpy(), axis
    return found


def _integers(model: nn.Module, weights: str) -> dict[str, _Integers]:
    found = _weights_of(model)
    if weights == "int8":
        return {name: _by_channel(weight, axis) for name, (weight, axis) in found.items()}
    made = {name: _signs(weight) for name, (weight, _) in found.items()}
    others = [name for name, one in made.items() if one is None]
    if others:
        more = f" and {len(others) - 4} more" if len(others) > 4 else ""
        raise ValueError(
            f"onnx: expected weights of -c, 0 and +c in each layer for int4, which is exact, got others in "
            f"{', '.join(others[:4])}{more}; take int8 or float32"
        )
    return {name: one for name, one in made.items() if one is not None}


def _signs(weight: np.ndarray) -> _Integers | None:
    """The weight as signs of one constant, where it is that."""
    magnitude = np.abs(weight)
    constant = magnitude.max(initial=0.0)
    if not np.all((magnitude == constant) | (magnitude == 0)) or not np.isfinite(constant):
        return None
    return _Integers(np.sign(weight).astype(np.int8), np.float32(constant or 1.0).reshape(()), 0, 4, 0.0)


def _by_channel(weight: np.ndarray, axis: int) -> _Integers:
    """The weight in 8 bits with a scale for each index along `axis`; a channel of one constant is exact."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    magnitude = np.abs(weight)
    largest = magnitude.max(axis=others, keepdims=True, initial=0.0)
    exact = np.all((magnitude == largest) | (magnitude == 0), axis=others, keepdims=True)
    scale = np.where(largest > 0, np.where(exact, largest, largest / np.float32(_MOST)), 1).astype(np.float32)
    values = np.clip(np.rint(weight / scale), -_MOST, _MOST).astype(np.int8)
    error = np.abs(values * scale - weight) / np.where(largest > 0, largest, 1)
    return _Integers(values, scale.reshape(-1), axis, 8, float(error.max(initial=0.0)))


def _use(model: Any, integers: dict[str, _Integers]) -> None:
    """Put integers and their DequantizeLinear in place of the weights, in an onnx_ir model."""
    import ml_dtypes
    import onnx_ir as ir

    graph = model.graph
    for name, one in integers.items():
        weight = graph.initializers.get(name)
        if weight is None:  # of a layer that does not run
            continue
        values = one.values.astype(ml_dtypes.int4) if one.bits == 4 else one.values
        parts = []
        for suffix, array in (("integers", values), ("scale", one.scale)):
            tensor = ir.Tensor(array, name=f"{name}.{suffix}")
            value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            graph.register_initializer(value)
            parts.append(value)
        axis = [ir.AttrInt64("axis", one.axis)] if one.scale.ndim else []
        node = ir.Node("", "DequantizeLinear", parts, axis, name=f"{name}.dequantized")
        out = node.outputs[0]
        out.name, out.shape, out.type = f"{name}.dequantized", weight.shape, weight.type
        ir.convenience.replace_all_uses_with(weight, out)
        graph.insert_before(graph[0], node)
        del graph.initializers[name]


def _without_traces(proto: Any) -> None:
    """Drop what the exporter says of where each node came from: more bytes than the weights, and paths of files."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        if hasattr(part, "doc_string"):
            part.doc_string = ""


def _run(data: bytes, x: np.ndarray) -> np.ndarray:
    """ONNX Runtime's outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]
