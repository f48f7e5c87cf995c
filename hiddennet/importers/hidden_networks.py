"""Read checkpoints of `hidden-networks`, the code of the edge-popup paper, as networks of ours.

Its layers keep `weight` and `scores`, its fully connected layers are 1x1 convolutions. What kind of
layer they belong to stood in a config beside the checkpoint, so the kind is told by the caller or
by the scores. Training state (of the optimiser) is not taken over.
"""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hiddennet import models
from hiddennet.importers import fit
from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint
from hiddennet.nn import Fixed, Sampled, Stored, TopK, hidden_layers, hide

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


def _read(
    path: str | os.PathLike,
    arch: str | None = None,
    *,
    density: float | None = None,
    kind: str = "auto",
    evaluation: str = "expectation",
) -> tuple[nn.Module, dict[str, Any]]:
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
    if kind not in KINDS:
        raise CheckpointError(f"import: expected kind to be one of {', '.join(KINDS)}, got {kind!r}")
    checkpoint = read_checkpoint(path)
    state = fit.state_dict(checkpoint, path, ("state_dict",))
    names = {name.lower(): name for name in ARCHITECTURES}
    known = ", ".join(ARCHITECTURES)
    name, _ = fit.architecture(arch, checkpoint, path, lambda said: names.get(said.lower()), known)
    model = _build(name, state)
    scores = fit.load(model, state, name, "scores")
    if not scores:
        kind = "dense"
    elif kind == "auto":
        kind = "fixed" if all(fit.is_mask(tensor) for tensor in scores.values()) else "subnet"
    if scores:
        _hide(model, scores, kind, density, evaluation)
    facts = {"method": _METHODS[kind], "imported": _facts(checkpoint, path, name, density)}
    return model.eval(), facts


read, convert = fit.importer(_read)


def _build(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Our model, its width, classes and batch norm read off the tensors' shapes."""
    small = name.startswith(("FC", "Conv"))
    last = "linear.4.weight" if small else "fc.weight"
    first = "convs.0.weight" if small else "conv1.weight"
    fit.need(state, name, last, *([] if name == "FC" else [first]))
    arguments: dict[str, Any] = {"name": ARCHITECTURES[name], "num_classes": len(state[last])}
    if not small:
        arguments["batch_norm"] = "affine" if "bn1.weight" in state else "non_affine"
    if name == "FC":
        return fit.at_width(lambda _: models.build(**arguments), state, name, 1, 1)
    arguments["in_channels"] = state[first].shape[1]
    return fit.at_width(
        lambda width: models.build(**arguments, width=width), state, name, len(state[first]), _FIRST_CHANNELS
    )


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
            if not fit.is_mask(tensor):
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
    hide(model, source, rule, include=list(scores), score_init=0.0)
    if kind != "fixed":
        for name, layer in hidden_layers(model).items():
            layer.scores.data.copy_(scores[name])


def _facts(checkpoint: Mapping, path: str | os.PathLike, name: str, density: float | None) -> dict[str, Any]:
    """What is known about the checkpoint, for the artifact's header."""
    facts = fit.facts("hidden-networks", path, name, checkpoint, ("epoch", "best_acc1", "best_acc5"))
    return facts if density is None else {**facts, "density": density}
