"""Which parameters of a model are pruned: the weights of convolutions and linear layers, and biases if asked for."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from hiddennet.nn.hidden import HiddenMixin

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*CONVOLUTIONS, nn.Linear)


@dataclass(frozen=True)
class Target:
    """A parameter to be pruned: the tensor `kind` ("weight" or "bias") of a layer."""

    name: str
    layer_name: str
    layer: nn.Module
    kind: str = "weight"

    @property
    def of_source(self) -> bool:
        """Whether it is a hidden layer's weight: all that its source makes, whatever its rule reveals."""
        return self.kind == "weight" and isinstance(self.layer, HiddenMixin)

    @torch.no_grad()
    def value(self) -> Tensor:
        """The parameter, or the weights of a hidden layer's source; detached."""
        return self.layer.source_weight() if self.of_source else getattr(self.layer, self.kind).detach()

    @property
    def shape(self) -> torch.Size:
        return self.layer.weight_shape if self.of_source else getattr(self.layer, self.kind).shape


def _own(name: str, layer: nn.Module, kind: str) -> None:
    """The layer's tensor must be a parameter of its own, with values."""
    parameter = layer._parameters.get(kind)
    if parameter is None:
        raise ValueError(
            f"prune: expected {name} to be a parameter, got one made of other parameters; "
            "remove the parametrization, or exclude the layer"
        )
    if isinstance(parameter, UninitializedParameter) or parameter.is_meta:
        raise ValueError(f"prune: expected {name} to have values, got none; initialise the model first")
    if not parameter.is_floating_point() or parameter.numel() == 0:
        raise ValueError(
            f"prune: expected {name} to hold real numbers, got {parameter.dtype} of {tuple(parameter.shape)}"
        )


def _met(pattern: str, name: str, layer_name: str) -> bool:
    """Whether a pattern names the parameter, its layer, or a module that holds the layer."""
    parts = layer_name.split(".")
    holders = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch.fnmatchcase(candidate, pattern) for candidate in (name, *holders))


def find_targets(model: nn.Module, exclude: Iterable[str] | str = (), *, biases: bool = False) -> list[Target]:
    """The parameters to be pruned, in module order; a shared one once, under its first name.

    Args:
        exclude: names or glob patterns of parameters, of layers, or of modules that hold them.
        biases: the layers' biases too, each after its weight.

    Raises:
        TypeError, ValueError: no module, nothing to prune, a pattern that meets nothing, weights without values.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"prune: expected model to be an nn.Module, got {type(model).__name__}")
    found: list[Target] = []
    for layer_name, layer in model.named_modules():
        if not isinstance(layer, LAYERS):
            continue
        dot = f"{layer_name}." if layer_name else ""
        found.append(Target(f"{dot}weight", layer_name, layer))
        if biases and layer.bias is not None:
            found.append(Target(f"{dot}bias", layer_name, layer, "bias"))
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    for pattern in patterns:
        if not any(_met(pattern, t.name, t.layer_name) for t in found):
            names = ", ".join(t.name for t in found) or "none"
            raise ValueError(
                f"prune: expected exclude to name a convolution or linear layer, got {pattern!r}; there are {names}"
            )
    kept = [t for t in found if not any(_met(pattern, t.name, t.layer_name) for pattern in patterns)]
    if not kept:
        raise ValueError(
            f"prune: expected a model with weights to prune, got none of {len(found)} convolutions and linear layers"
        )
    seen: set[int] = set()
    unique = []
    for target in kept:
        if not target.of_source:
            _own(target.name, target.layer, target.kind)
            key = id(getattr(target.layer, target.kind))
            if key in seen:
                continue
            seen.add(key)
        unique.append(target)
    return unique
