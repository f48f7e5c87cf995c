"""Whether a model is the one an artifact was made from."""

from typing import Any

import torch
from torch import Tensor, nn

from hiddennet.analysis.paths import shape_of
from hiddennet.artifact.layers import kind
from hiddennet.container import ArtifactError
from hiddennet.nn import Wiring, hidden_layers
from hiddennet.nn.hidden import HiddenMixin
from hiddennet.nn.other_layers import hideable


def check_architecture(model: nn.Module, layers: list[dict[str, Any]], state: dict[str, Tensor]) -> None:
    """Compare names and shapes of the artifact's hidden layers and state with the model's.

    Raises ArtifactError that names the first difference and both shapes.
    """
    found = {name: m for name, m in model.named_modules() if hideable(m) or isinstance(m, (HiddenMixin, Wiring))}
    for entry in layers:
        name, wanted = entry["name"], tuple(entry["shape"])
        module = found.get(name)
        if module is None:
            _refuse(f"{entry['kind']} layer {name} of shape {wanted}", "no such layer")
        if kind(module) != entry["kind"] or shape_of(module) != wanted:
            _refuse(
                f"{entry['kind']} layer {name} of shape {wanted}",
                f"{kind(module)} of shape {shape_of(module)}",
            )
    expected = _dense_state(model, {entry["name"] for entry in layers})
    for key, (shape, dtype) in expected.items():
        if key not in state:
            _refuse(f"no {key}", f"one of shape {shape}")
        if tuple(state[key].shape) != shape:
            _refuse(f"{key} of shape {tuple(state[key].shape)}", f"shape {shape}")
        if state[key].dtype != dtype and not (state[key].is_floating_point() and dtype.is_floating_point):
            _refuse(f"{key} of {state[key].dtype}", f"{dtype}")
    for key, tensor in sorted(state.items()):
        if key not in expected:
            _refuse(f"{key} of shape {tuple(tensor.shape)}", "no such tensor")


def _refuse(wanted: str, got: str) -> None:
    raise ArtifactError(
        f"artifact: expected a model with {wanted}, got {got}; load it into the architecture it was exported from"
    )


def _dense_state(model: nn.Module, hidden: set[str]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of what the state dict holds when the layers named in `hidden`, and no others, are."""
    modules = {id(model.get_submodule(name)) for name in hidden}
    shapes = {}
    for key, value in model.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        module = model.get_submodule(owner)
        if not isinstance(value, Tensor) or (id(module) in modules and leaf == "weight"):
            continue
        if leaf in getattr(module, "plain_names", ()) or not isinstance(module, (HiddenMixin, Wiring)):
            shapes[key] = tuple(value.shape), value.dtype
    for name, layer in hidden_layers(model).items():
        if name not in hidden:
            shapes[f"{name}.weight"] = tuple(layer.weight_shape), torch.float32
    return shapes
