"""Weights that were trained before: checkpoints, runs, artifacts, torchvision's models."""

from pathlib import Path

import torch
from torch import Tensor, nn

from hiddennet import artifact
from hiddennet.importers.checkpoint import read_checkpoint
from hiddennet.methods.layers import is_batch_norm
from hiddennet.methods.setting import OpenRun
from hiddennet.nn import hidden_layers

TORCHVISION = "torchvision:"


def read_weights(where: str, key: str, open_run: OpenRun) -> dict[str, Tensor]:
    """Return the state dict that `where` names: a checkpoint, a run or RUN@STAGE, an artifact, torchvision:NAME.

    key: the config's. open_run: of the method's setting.

    Raises FileNotFoundError or ValueError, saying what was expected.
    """
    if where.startswith(TORCHVISION):
        return _torchvision(where.removeprefix(TORCHVISION), key)
    run, path = open_run(where, key), Path(where).expanduser()
    if run is not None or (path.suffix == ".safetensors" and path.is_file()):
        model = artifact.load(path) if run is None else run.model
        state = {key: value for key, value in model.state_dict().items() if torch.is_tensor(value)}
        for name, layer in hidden_layers(model).items():
            state[f"{name}.weight"] = layer.source_weight()
        return state
    if not path.is_file():
        raise FileNotFoundError(
            f"{key}: expected a checkpoint, a run, an artifact or torchvision:NAME, got {where!r}, where there is none"
        )
    return _state_dict(read_checkpoint(path), where, key)


def _torchvision(name: str, key: str) -> dict[str, Tensor]:
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError):
        raise ValueError(f"{key}: expected a classification model of torchvision, got {name!r}") from None
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise ValueError(
            f"{key}: expected torchvision's weights of {name} in "
            f"{torch.hub.get_dir()}/checkpoints or a network to fetch them from {weights.url}, "
            f"got {error}"
        ) from None


def _state_dict(document: object, where: str, config_key: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint: itself, or under model, state_dict or model_state_dict."""
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
            break
    found = {}
    if isinstance(document, dict):
        found = {str(key).removeprefix("module."): value for key, value in document.items() if torch.is_tensor(value)}
    if not found:
        raise ValueError(f"{config_key}: expected a state dict in {where}, got no tensors")
    return found


@torch.no_grad()
def load_weights(model: nn.Module, where: str, open_run: OpenRun) -> list[str]:
    """Copy trained weights into the plain model, in place; return sentences on what was left out.

    All weights, scales, shifts and statistics must be there in the model's shapes. Two things may
    differ: a classifier for other classes keeps the model's own weights, and a bias of the
    classifier is left out where the model has none.

    Raises ValueError naming what is missing or of another shape.
    """
    state, notes = read_weights(where, "method.weights", open_run), []
    classifier = getattr(model, "last_layer", None)
    own = model.state_dict()
    for key in own.keys() - state.keys():
        if key.endswith("num_batches_tracked"):
            state[key] = own[key]
    for key, value in own.items():
        if key not in state:
            raise ValueError(f"method.weights: expected {key} in {where}, got none of this name")
        if state[key].shape != value.shape and state[key].numel() == value.numel():
            state[key] = state[key].reshape(value.shape)  # a linear layer kept as a 1x1 convolution
        if state[key].shape != value.shape:
            if key == f"{classifier}.weight":
                notes.append(f"{key} keeps its own weights: {where} has it for other classes")
                state[key] = value
                continue
            raise ValueError(
                f"method.weights: expected {key} of shape {tuple(value.shape)}, "
                f"got {tuple(state[key].shape)} in {where}"
            )
    for key in state.keys() - own.keys():
        if key == f"{classifier}.bias":
            notes.append(f"{key} of {where} is left out: the model has no biases")
        elif _matters(model, key):
            raise ValueError(
                f"method.weights: expected a model with {key}, which {where} has; "
                "for scales and shifts of batch norm set model.batch_norm=affine"
            )
    model.load_state_dict({key: state[key] for key in own})
    return notes


def _matters(model: nn.Module, key: str) -> bool:
    """Whether leaving out a tensor changes what the network computes, rather than how it learns."""
    owner, _, leaf = key.rpartition(".")
    modules = dict(model.named_modules())
    counted = owner in modules and is_batch_norm(modules[owner]) and leaf != "num_batches_tracked"
    return counted or (owner in modules and leaf in ("weight", "bias"))
