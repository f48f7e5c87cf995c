"""Read checkpoints of `hidden-networks`, the code of the edge-popup paper, as networks of ours.

Its layers keep `weight` and `scores`, its fully connected layers are 1x1 convolutions. What kind of
layer they belong to stood in a config beside the checkpoint, so the kind is told by the caller or
by the scores. Training state (of the optimiser) is not taken over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import artifact, models
from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint
from hiddennet.nn import Fixed, Sampled, Stored, TopK, hidden_layers, hide
from hiddennet.nn.expose import undrawn

ARCHITECTURES = {
    "FC": "fc",
    "Conv2": "conv2",
    "Conv4": "conv4",
    "Conv6": "conv6",
    "Conv8": "conv8",
    "Conv4Wide": "conv4",
    "Conv6Wide": "conv6",
    "cResNet18": "cifar_resnet18",
    "cResNet34": "cifar_resnet34",
    "cResNet50": "cifar_resnet50",
    "cResNet101": "cifar_resnet101",
    "cResNet152": "cifar_resnet152",
    "ResNet18": "resnet18",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "WideResNet50_2": "wide_resnet50_2",
    "WideResNet101_2": "wide_resnet101_2",
}
KINDS = ("auto", "subnet", "fixed", "sample")
_METHODS = {"subnet": "edge_popup", "fixed": "fine_tune", "sample": "sampled", "dense": "dense"}
_FIRST_CHANNELS = 64  # of the first convolution of every network at width 1


def convert(
    path: str | os.PathLike,
    arch: str | None,
    out: str | os.PathLike,
    *,
    density: float | None = None,
    kind: str = "auto",
    evaluation: str = "expectation",
) -> nn.Module:
    """Import the checkpoint at `path` and write it to `out` as an artifact; arguments as in read().

    Returns the network as read() gives it.
    """
    model, facts = _read(path, arch, density, kind, evaluation)
    artifact.export(model, out, metadata=facts)
    return model


def read(
    path: str | os.PathLike,
    arch: str | None = None,
    *,
    density: float | None = None,
    kind: str = "auto",
    evaluation: str = "expectation",
) -> nn.Module:
    """Return the network of a checkpoint, in evaluation mode; its logits are the original's.

    Args:
        path: what the original wrote: a dict with `state_dict`, or a state dict by itself.
        arch: one of ARCHITECTURES; None takes the name in the checkpoint.
        density: the fraction of each layer that is kept, the original's `prune_rate`, which the
            checkpoint does not hold. Needed for a subnet, meaningless otherwise.
        kind: what the layers with scores are. "subnet": top-k of the scores' magnitudes, as in
            edge-popup. "fixed": scores of 0 and 1 are the mask, weights are learned. "sample":
            masks drawn with probability sigmoid(score). "auto": fixed where all scores are 0 or 1,
            else subnet. Layers without scores are dense.
        evaluation: of a sampled network: "expectation", or "draw" for one fixed draw. The original
            draws anew each time.

    Raises:
        CheckpointError (a ValueError): the file cannot be read safely, or does not fit `arch`.
    """
    return _read(path, arch, density, kind, evaluation)[0]


def _read(path, arch, density, kind, evaluation) -> tuple[nn.Module, dict[str, Any]]:
    if kind not in KINDS:
        raise CheckpointError(f"import: expected kind to be one of {', '.join(KINDS)}, got {kind!r}")
    checkpoint = read_checkpoint(path)
    state = _state(checkpoint, path)
    name = _architecture(arch, checkpoint, path)
    model = _build(name, state)
    scores = _fit(model, state, name)
    if not scores:
        kind = "dense"
    elif kind == "auto":
        kind = "fixed" if all(_is_mask(tensor) for tensor in scores.values()) else "subnet"
    if scores:
        _hide(model, scores, kind, density, evaluation)
    facts = {"method": _METHODS[kind], "imported": _facts(checkpoint, path, name, density)}
    return model.eval(), facts


def _state(checkpoint: Any, path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict, without the prefix that parallel training leaves on every key."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"import: expected a dict with `state_dict` in {path}, got {type(checkpoint).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"import: expected only tensors in the state dict of {path}, got {type(value).__name__} for {key}"
            )
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _architecture(arch: str | None, checkpoint: Mapping, path: str | os.PathLike) -> str:
    """The original's name of the architecture."""
    said = checkpoint.get("arch")
    names = {name.lower(): name for name in ARCHITECTURES}
    wanted = arch if arch is not None else said
    if not isinstance(wanted, str) or wanted.lower() not in names:
        raise CheckpointError(f"import: expected arch to be one of {', '.join(ARCHITECTURES)}, got {wanted!r}")
    if isinstance(said, str) and said.lower() != wanted.lower():
        raise CheckpointError(f"import: expected a checkpoint of {wanted} in {path}, got one that says {said}")
    return names[wanted.lower()]


def _build(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Our model, its width, classes and batch norm read off the tensors' shapes."""
    small = name.startswith(("FC", "Conv"))
    last = "linear.4.weight" if small else "fc.weight"
    first = "convs.0.weight" if small else "conv1.weight"
    for key in (last, *([] if name == "FC" else [first])):
        if key not in state or state[key].dim() < 2:
            _refuse(name, f"a weight {key}", "none")
    arguments: dict[str, Any] = {"name": ARCHITECTURES[name], "num_classes": len(state[last])}
    if name != "FC":
        arguments["in_channels"] = state[first].shape[1]
        arguments["width"] = len(state[first]) / _FIRST_CHANNELS
    if not small:
        arguments["batch_norm"] = "affine" if "bn1.weight" in state else "non_affine"
    with undrawn():
        return models.build(**arguments)


def _fit(model: nn.Module, state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Load all but the scores into the model, comparing every key; returns the scores by layer."""
    left = dict(state)
    scores: dict[str, Tensor] = {}
    for layer_name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        shape = tuple(layer.weight.shape)
        layer.weight.data = _take(left, f"{layer_name}.weight", shape, name)
        if f"{layer_name}.scores" in left:
            scores[layer_name] = _take(left, f"{layer_name}.scores", shape, name)
        if f"{layer_name}.bias" in left:  # a classifier the original was told to keep dense
            layer.bias = nn.Parameter(_take(left, f"{layer_name}.bias", shape[:1], name))
    loaded = model.state_dict()
    for key, tensor in loaded.items():
        owner = model.get_submodule(key.rpartition(".")[0])
        if isinstance(owner, nn.Conv2d | nn.Linear):
            continue
        if key.endswith("num_batches_tracked") and key not in left:
            continue  # older versions of torch did not keep it
        tensor.copy_(_take(left, key, tuple(tensor.shape), name))
    if left:
        key, tensor = next(iter(left.items()))
        _refuse(name, f"no {key}", f"one of shape {tuple(tensor.shape)}")
    return scores


def _take(left: dict[str, Tensor], key: str, shape: tuple[int, ...], name: str) -> Tensor:
    """Remove and return the tensor `key`, its 1x1 kernel dropped where ours is a linear layer."""
    tensor = left.pop(key, None)
    if tensor is None:
        _refuse(name, f"{key} of shape {shape}", "none")
    found = tuple(tensor.shape)
    if found != shape and found != (*shape, 1, 1):
        _refuse(name, f"{key} of shape {shape}", f"shape {found}")
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(dtype).reshape(shape).contiguous()


def _refuse(name: str, wanted: str, got: str) -> None:
    raise CheckpointError(f"import: expected a checkpoint of {name} with {wanted}, got {got}; check the architecture")


def _is_mask(scores: Tensor) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _hide(
    model: nn.Module,
    scores: dict[str, Tensor],
    kind: str,
    density: float | None,
    evaluation: str,
) -> None:
    """Make the layers with scores hidden; subnets and samples keep their scores."""
    if kind == "fixed":
        for name, tensor in scores.items():
            if not _is_mask(tensor):
                raise CheckpointError(
                    f"import: expected scores of 0 and 1 in fixed layer {name}, got others; "
                    "import it as a subnet with its density"
                )
        masks = {name: tensor.bool() for name, tensor in scores.items()}
        source, rule = Stored(trainable=True), lambda name, _: Fixed(masks[name])
    elif kind == "sample":
        source, rule = Stored(), Sampled(evaluation=evaluation)
    else:
        if density is None:
            raise CheckpointError(
                "import: expected a density for a subnet (the fraction kept, the original's "
                "prune_rate), got none; the checkpoint does not hold it"
            )
        source, rule = Stored(), TopK(density)
    hide(model, source, rule, include=lambda name, _: name in scores, score_init=0.0)
    if kind != "fixed":
        for name, layer in hidden_layers(model).items():
            layer.scores.data.copy_(scores[name])


def _facts(checkpoint: Mapping, path: str | os.PathLike, name: str, density: float | None) -> dict[str, Any]:
    """What is known about the checkpoint, for the artifact's header."""
    facts = {"from": "hidden-networks", "file": os.path.basename(path), "arch": name}
    if density is not None:
        facts["density"] = density
    for key in ("epoch", "best_acc1", "best_acc5"):
        value = checkpoint.get(key)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, int | float):
            facts[key] = value
    return facts
