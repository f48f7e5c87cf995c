"""What a network computes as the graph that hiddennet.runtime reads: traced by torch.export, operation by operation.

The graph is JSON: `input`, the shape of a sample, and `nodes`, each with its operation, the values it reads (0 is the
input, n what node n - 1 makes) and its numbers; csrc/runtime/graph_reader.cpp reads them. Weights are named where the
artifact has them; others are tensors beside it, `graph.0` and so on. What torch's operations become: runtime_ops.py.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from hiddennet.compaction.base import CompactNetwork
from hiddennet.nn.network import hidden_layers
from hiddennet.ordinary import plain
from hiddennet.ordinary.compact_form import CompactForm, compact_form
from hiddennet.ordinary.opened import example_of
from hiddennet.ordinary.runtime_ops import convert
from hiddennet.ordinary.runtime_parts import Constant, Graph, Value

VERSION = 1
_HELD = ("values", "constant", "signs", "redraws")  # ways in which an artifact holds weights that the runtime reads
_STATE = "state."


def runtime_graph(
    model: nn.Module, layers: Sequence[dict[str, Any]], state: dict[str, Tensor], example: Tensor | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph of a model and the tensors that it needs beside the artifact's.

    Args:
        model: as it is exported. layers: the artifact's entries. state: its state, by key.
        example: an input, batch first; None: of the images that the network says it takes.

    Raises:
        TypeError: an example that is no tensor.
        ValueError: what the runtime cannot compute, by the operation's name; a layer whose weights only a source of
            one's own can read; no example where the network does not say what it takes.
    """
    kinds = _kinds(model, layers)
    made = plain(model).float()
    hidden = {id(made.get_submodule(name).weight): name for name in hidden_layers(model)}
    held = {_STATE + key: tensor for key, tensor in state.items()}
    return _graph(made, example_of(model, "runtime") if example is None else example, hidden, held, _STATE, kinds)


def compact_graph(model: CompactNetwork, example: Tensor | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """As runtime_graph, of a compact network, whose products are its layers."""
    made = compact_form(model)
    example = example_of(model, "runtime") if example is None else example
    return _graph(made, example, made.products(), model.state_dict(), "", {})


def _graph(
    made: nn.Module,
    example: Tensor,
    layers: dict[int, str],
    state: dict[str, Tensor],
    prefix: str,
    kinds: dict[str, str],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """layers: names by the id of their weight in `made`. state: tensors of the file, by their names there, which begin
    with the prefix and go on as in `made`."""
    if not isinstance(example, Tensor):
        raise TypeError(
            f"runtime: expected example to be a tensor, batch first, got {type(example).__name__}; give the one tensor "
            "that the network is called with (torch.from_numpy makes it of an array)"
        )
    example = example.detach().float().cpu()
    if example.dim() not in (2, 3, 4):
        raise ValueError(
            f"runtime: expected an example of 2 to 4 dimensions, batch first, got shape {tuple(example.shape)}"
        )
    program = _traced(made, example)
    found = _constants(program, made, layers, state, prefix)
    graph = Graph()
    values: dict[fx.Node, Any] = {}
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node in inputs:
        values[node] = found.get(node.name) or Value(0, tuple(example.shape[1:]))
    batch = next(node for node in inputs if isinstance(values[node], Value)).meta["val"].shape[0]
    for node in program.graph.nodes:
        if node.op == "call_function":
            values[node] = convert(graph, node, values, batch)
        elif node.op == "output":
            return _whole(graph, program, node, values, example, kinds), graph.tensors
    raise AssertionError("a program without an output")


def _whole(
    graph: Graph,
    program: torch.export.ExportedProgram,
    node: fx.Node,
    values: dict[fx.Node, Any],
    example: Tensor,
    kinds: dict[str, str],
) -> dict[str, Any]:
    """node: the program's output, which also has the buffers and the inputs that it changes."""
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        changed = ", ".join(signature.buffers_to_mutate.values())
        raise ValueError(
            f"runtime: expected a network whose forward keeps its buffers in evaluation, got one that changes {changed}"
            "; change them in training alone"
        )
    made = [one for one in torch.utils._pytree.tree_leaves(node.args) if isinstance(one, fx.Node)]
    outputs = [one for one in made if one.name in signature.user_outputs]
    if len(outputs) != 1 or not isinstance(values[outputs[0]], Value):
        raise ValueError(
            f"runtime: expected a network with one output, got {len(outputs)}; export the part that is run"
        )
    output = values[outputs[0]].number
    return {
        "version": VERSION,
        "input": list(example.shape[1:]),
        "kinds": kinds,
        "nodes": graph.nodes,
        "output": output,
    }


def _kinds(model: nn.Module, layers: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The kind of numbers of each generated layer, which its initialisation's name alone does not tell the runtime."""
    modules, kinds = hidden_layers(model), {}
    for entry in layers:
        name, held = entry["name"], (entry.get("weights") or {}).get("as")
        if entry["source"]["kind"] == "generated":
            kinds[name] = modules[name].scaled.kind
        elif held not in _HELD:
            raise ValueError(
                f"runtime: expected weights that are held as {', '.join(_HELD)}, got layer {name}, which holds them as "
                f"{held}; let its source ship plain values"
            )
    return kinds


def _traced(made: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """torch's program of functional operations, of any batch size."""
    shapes: tuple = ({0: torch.export.Dim("batch")},)
    first = next(iter(inspect.signature(made.forward).parameters.values()), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:  # forward(*x), whose one argument is a tuple
        shapes = (shapes,)
    try:
        program = torch.export.export(made, (torch.cat([example, example])[:2],), dynamic_shapes=shapes, strict=False)
        return program.run_decompositions({})
    except Exception as error:  # torch.export has many
        reason = " ".join(str(error).split())
        raise ValueError(
            f"runtime: expected a network that torch.export traces with any batch size, got {type(made).__name__} "
            f"({reason:.200})"
        ) from None


def _constants(
    program: torch.export.ExportedProgram,
    made: nn.Module,
    layers: dict[int, str],
    state: dict[str, Tensor],
    prefix: str,
) -> dict[str, Constant]:
    """The parameters and buffers of a program by the name of their placeholder."""
    signature = program.graph_signature
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    found = {}
    for name, key in named.items():
        tensor = program.state_dict[key] if key in program.state_dict else program.constants[key]
        owner, _, leaf = key.rpartition(".")
        where = prefix + key.removeprefix("model.") if isinstance(made, CompactForm) else prefix + key
        own, kept = getattr(made.get_submodule(owner), leaf, None), state.get(where)
        same = kept is not None and kept.shape == tensor.shape and torch.equal(kept.to(tensor.dtype), tensor)
        found[name] = Constant(tensor, layers.get(id(own), ""), where if same and tensor.is_floating_point() else "")
    for name, key in signature.inputs_to_lifted_tensor_constants.items():
        found[name] = Constant(program.constants[key])
    return found
