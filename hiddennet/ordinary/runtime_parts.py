"""What a graph for hiddennet.runtime is made of: values, constants, nodes."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hiddennet.container import GRAPH_TENSORS

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """What a node makes: its number, and its shape without the batch."""

    number: int
    shape: Shape


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the input. layer: whose weight it is; key: its name in the file; else empty."""

    tensor: Tensor
    layer: str = ""
    key: str = ""


@dataclass
class Graph:
    """The graph while it is made."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, op: str, inputs: Sequence[Value], shape: Shape, name: str, **numbers: Any) -> Value:
        """Append a node; numbers that are None are left out."""
        numbers = {key: number for key, number in numbers.items() if number is not None}
        self.nodes.append({"op": op, "in": [one.number for one in inputs], "name": name, **numbers})
        return Value(len(self.nodes), tuple(shape))

    def tensor(self, constant: Constant) -> str:
        """The name of a constant's tensor in the file."""
        if constant.key:
            return constant.key
        name = f"{GRAPH_TENSORS}{len(self.tensors)}"
        self.tensors[name] = constant.tensor.detach().float().cpu().clone(memory_format=torch.contiguous_format)
        return name

    def weight(self, constant: Constant) -> dict[str, str]:
        """Where a layer's weight is."""
        return {"layer": constant.layer} if constant.layer else {"tensor": self.tensor(constant)}


def folded(target: Any, args: Any, kwargs: Any) -> Any:
    """What an operation makes of constants alone: constants."""
    plain_args, plain_kwargs = torch.utils._pytree.tree_map(
        lambda one: one.tensor if isinstance(one, Constant) else one, (args, kwargs)
    )
    with torch.no_grad():
        made = target(*plain_args, **plain_kwargs)
    if target is operator.getitem or not isinstance(made, (tuple, list)):
        return Constant(made) if isinstance(made, Tensor) else made
    return tuple(Constant(one) if isinstance(one, Tensor) else one for one in made)
