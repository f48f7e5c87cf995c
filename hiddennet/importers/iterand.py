"""Read checkpoints of IteRand (Chijiwa et al., NeurIPS 2021) as networks of ours.

Its masked layers keep `weight`, `weight_score` and maybe `bias`; revealed is what scores at least as much as the kth
smallest. How many are revealed stood in a config. What its modules are called is not compared: their tensors are taken
in the order of the file, which is the order in which a network computes, and each must have the shape of ours.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import models
from hiddennet.importers import fit
from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint
from hiddennet.nn import KthValue, Stored, hidden_layers, hide

ARCHITECTURES = ("conv4", "conv6", "resnet18", "resnet34", "resnet50", "resnet101")
_KEYS = ("model", "state_dict", "net", "network", "net_state_dict", "model_state_dict")
_SCRATCH = "twin"  # a tensor of the redraw's, as large as the weight


def _read(
    path: str | os.PathLike, arch: str | None = None, *, density: float | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a checkpoint, in evaluation mode; its logits are the original's.

    Args:
        path: a state dict, or a dict that holds one under a usual name.
        arch: one of ARCHITECTURES; those for CIFAR and for ImageNet are told by the first layer.
        density: the fraction of each layer that is revealed, 1 minus the original's conv_sparsity, which the
            checkpoint does not hold. 1: a network whose weights were trained.

    Raises:
        CheckpointError (a ValueError): the file cannot be read safely, or does not fit `arch`.
    """
    checkpoint = read_checkpoint(path)
    state = fit.state_dict(checkpoint, path, _KEYS)
    known = {name: name for name in ARCHITECTURES}
    name, _ = fit.architecture(arch, checkpoint, path, lambda said: known.get(said.lower()), ", ".join(known))
    if density is None or not 0.0 < density <= 1.0:
        raise CheckpointError(
            f"import: expected a density in (0, 1] (the fraction revealed, 1 - conv_sparsity), got {density}; the "
            "checkpoint does not hold it"
        )
    layers, norms = _modules(state, name)
    model = _build(name, layers, norms)
    scores = _load(model, layers, norms, name)
    hide(model, Stored(), KthValue(density), include=list(scores), score_init=0.0)
    with torch.no_grad():
        for key, layer in hidden_layers(model).items():
            layer.scores.copy_(scores[key])
    facts = fit.facts("iterand", path, name, checkpoint, ("epoch",)) | {"density": density}
    return model.eval(), {"method": "iterand", "imported": facts, "data_options": {"normalization": "imagenet"}}


read, convert = fit.importer(_read)

_Parts = list[dict[str, Tensor]]


def _modules(state: Mapping[str, Tensor], name: str) -> tuple[_Parts, _Parts]:
    """The tensors of each masked layer and of each batch norm, by leaf, in the order of the file."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        owner, _, leaf = key.rpartition(".")
        if _SCRATCH not in leaf:
            found.setdefault(owner, {})[leaf] = tensor
    layers = [part for part in found.values() if "weight_score" in part]
    norms = [part for part in found.values() if "running_mean" in part]
    if len(layers) + len(norms) < len(found) or any("weight" not in part for part in layers) or len(layers) < 2:
        other = next((k for k, p in found.items() if "weight_score" not in p and "running_mean" not in p), "others")
        fit.refuse(name, "a weight and a weight_score of each layer, and batch norms", other)
    return layers, norms


def _build(name: str, layers: _Parts, norms: _Parts) -> nn.Module:
    """Our network, its sizes read off the shapes."""
    first, second, last = (layers[i]["weight"] for i in (0, 1, -1))
    if first.dim() != 4 or second.dim() != 4:
        fit.refuse(name, "convolutions first", f"weights of {first.dim()} and {second.dim()} dimensions")
    options: dict[str, Any] = {"num_classes": len(last), "in_channels": first.shape[1], "bias": "bias" in layers[-1]}
    if name.startswith("conv"):
        return models.build(name, width=len(first) / 64, **options)
    options["batch_norm"] = "affine" if norms and "weight" in norms[0] else "non_affine"
    cifar = first.shape[-1] == 3
    return models.build(f"cifar_{name}" if cifar else name, width=len(second) / 64, stem_scaled=False, **options)


@torch.no_grad()
def _load(model: nn.Module, layers: _Parts, norms: _Parts, name: str) -> dict[str, Tensor]:
    """Copy the tensors into our network; returns the scores by layer."""
    scores: dict[str, Tensor] = {}
    ours = [(key, m) for key, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    normed = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if (len(ours), len(normed)) != (len(layers), len(norms)):
        fit.refuse(name, f"{len(ours)} layers and {len(normed)} batch norms", f"{len(layers)} and {len(norms)}")
    for (key, module), part in zip(ours, layers, strict=True):
        shape = tuple(module.weight.shape)
        module.weight.copy_(fit.take(part, "weight", shape, f"{name} ({key})"))
        scores[key] = fit.take(part, "weight_score", shape, f"{name} ({key})")
        if module.bias is not None:
            module.bias.copy_(fit.take(part, "bias", shape[:1], f"{name} ({key})"))
    for module, part in zip(normed, norms, strict=True):
        for leaf, tensor in module.state_dict().items():
            if leaf != "num_batches_tracked" or leaf in part:
                tensor.copy_(fit.take(part, leaf, tuple(tensor.shape), name))
    left = next((leaf for part in (*layers, *norms) for leaf in part), None)
    if left is not None:
        fit.refuse(name, f"no {left}", "one")
    return scores
