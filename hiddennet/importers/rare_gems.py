"""Read checkpoints of Rare Gems' code (Sreenivasan et al., NeurIPS 2022) as networks of ours.

They are state dicts by themselves. Each masked layer keeps `weight`, `scores` and `flag` (1: not struck out), and the
same three of its bias, which are dummies of one element where it has none. Which algorithm made it stood in a config.
Magnitude pruning (imp_main.py) keeps its masks apart: its files are read as dense networks.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import models, ops
from hiddennet.importers import fit
from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint
from hiddennet.nn import Fixed, Rounded, Stored, TopK, hidden_layers, hide

# the original's name: ours, channels of the first layer at width 1
ARCHITECTURES = {
    "resnet20": ("resnet20", 16),
    "resnet32": ("resnet32", 16),
    "resnet32_double": ("resnet32_double", 32),
    "cResNet18": ("cifar_resnet18", 64),
    "cResNet50": ("cifar_resnet50", 64),
    "TinyResNet18": ("tiny_resnet18", 64),
    "ResNet18": ("resnet18", 64),
    "ResNet50": ("resnet50", 64),
    "ResNet101": ("resnet101", 64),
    "WideResNet28": ("wide_resnet28_2", 16),
    "MobileNetV2": ("mobilenet_v2", 32),
    "vgg16": ("vgg16", 64),
    **{f"Conv{n}": (f"conv{n}", 64) for n in (2, 4, 6, 8)},
}
KINDS = ("auto", "rounded", "subnet", "global", "dense")
_METHODS = {"rounded": "gem_miner", "subnet": "edge_popup", "global": "global_edge_popup", "fixed": "fine_tune"}


def _read(
    path: str | os.PathLike,
    arch: str | None = None,
    *,
    density: float | None = None,
    kind: str = "auto",
    threshold: float = 0.5,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a checkpoint, in evaluation mode; its logits are the original's.

    Args:
        path: the state dict that the original wrote, or a dict with it as `state_dict` or `model`.
        arch: one of ARCHITECTURES; the checkpoint does not say.
        density: the fraction that "subnet" keeps of each layer, "global" of all; the checkpoint does not hold it.
        kind: what the scores are. "rounded" (hc, hc_iter): kept is what is above the threshold and flagged; scores and
            flags stay. "subnet" (ep) and "global" (global_ep): the largest magnitudes. "dense": nothing, all weights
            are used. "auto": a fixed mask whose weights are trained where all scores are 0 or 1, as fine-tuning leaves
            them; dense where it masks nothing; rounded where all scores lie in [0, 1]; else subnet.
        threshold: of "rounded" and of "auto", the original's quantize_threshold.

    Raises:
        CheckpointError (a ValueError): the file cannot be read safely, or does not fit `arch`.
    """
    if kind not in KINDS:
        raise CheckpointError(f"import: expected kind to be one of {', '.join(KINDS)}, got {kind!r}")
    checkpoint = _without_dummies(read_checkpoint(path))
    state = fit.state_dict(checkpoint, path, ("state_dict", "model"))
    name, _ = fit.architecture(arch, checkpoint, path, _known, ", ".join(ARCHITECTURES))
    flags = {key.removesuffix(".flag"): state.pop(key) for key in list(state) if key.endswith(".flag")}
    _mask_biases(state, name, kind, threshold)
    model, theirs = _build(name, state), _theirs(name)
    scores = fit.load(model, state, name, "scores", theirs)
    flags = {layer: _flag(flags.pop(theirs(layer), None), tensor, name) for layer, tensor in scores.items()}
    if kind == "auto":
        kind = _kind_of(scores, flags)
    if kind in ("subnet", "global") and density is None:
        raise CheckpointError(
            "import: expected a density for scores of edge-popup (the fraction kept), got none; it stood in a config"
        )
    if kind not in ("subnet", "global") and density is not None:
        raise CheckpointError(
            f"import: expected no density, got {density}; the scores and flags say what is kept (kind {kind})"
        )
    if kind != "dense":
        _hide(model, scores, flags, kind, density, threshold)
    facts = fit.facts("rare-gems", path, name, checkpoint, ())
    facts |= {} if density is None else {"density": density}
    return model.eval(), {"method": _METHODS.get(kind, "dense"), "imported": facts}


read, convert = fit.importer(_read)


def _known(said: str) -> str | None:
    return {name.lower(): name for name in ARCHITECTURES}.get(said.lower())


def _without_dummies(checkpoint: Any) -> Any:
    """The checkpoint without the score and the flag, memory that nobody wrote, of biases that are not there."""
    if not isinstance(checkpoint, Mapping):
        return checkpoint
    ends = (".bias_flag", ".bias_scores")
    return {
        key: _without_dummies(value)
        for key, value in checkpoint.items()
        if not (isinstance(key, str) and key.endswith(ends) and f"{key.rpartition('.')[0]}.bias" not in checkpoint)
    }


def _mask_biases(state: dict[str, Tensor], name: str, kind: str, threshold: float) -> None:
    """Leave of each bias what the original computes with."""
    for key in [key for key in state if key.endswith(".bias_scores")]:
        layer = key.removesuffix(".bias_scores")
        scores, flag = state.pop(key), state.pop(f"{layer}.bias_flag", None)
        if kind in ("subnet", "global"):
            fit.refuse(name, f"no biases for kind {kind}, which ranks them apart", f"{layer}.bias")
        if flag is None or not scores.shape == flag.shape == state[f"{layer}.bias"].shape:
            fit.refuse(name, f"scores and flags of {layer}.bias, one each", "others")
        if kind != "dense":
            state[f"{layer}.bias"] = state[f"{layer}.bias"] * ((scores > threshold) & (flag != 0))


def _build(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Our model, its width, classes and batch norm read off the tensors' shapes."""
    ours, channels = ARCHITECTURES[name]
    theirs = _theirs(name)
    first = next((key for key in ("conv1.weight", "convs.0.weight", "features.0.weight") if key in state), None)
    last = next((theirs(k) for k in ("fc", "classifier", "linear.4") if f"{theirs(k)}.weight" in state), None)
    if first is None or last is None or min(state[first].dim(), state[f"{last}.weight"].dim()) < 2:
        fit.refuse(name, "a first convolution and a classifier", "others")
    norm = next((key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")), None)
    arguments: dict[str, Any] = {"num_classes": len(state[f"{last}.weight"]), "in_channels": state[first].shape[1]}
    if norm is not None:
        arguments["batch_norm"] = "affine" if f"{norm}.weight" in state else "non_affine"
    return fit.at_width(
        lambda width: models.build(ours, **arguments, width=width), state, name, len(state[first]), channels, theirs
    )


def _theirs(name: str) -> Callable[[str], str]:
    """The original's name of a key or a layer of ours."""

    def key(ours: str) -> str:
        if name == "WideResNet28":
            ours = re.sub(r"^(block\d)\.", r"\1.layer.", ours)
            return re.sub(r"\.shortcut(?=\.|$)", ".convShortcut", ours)
        if name == "MobileNetV2":
            ours = re.sub(r"^blocks\.", "layers.", ours)
            return re.sub(r"^fc(?=\.|$)", "linear", ours)
        return ours

    return key


def _flag(flag: Tensor | None, scores: Tensor, name: str) -> Tensor:
    """Which weights are not struck out, bool of the scores' shape."""
    if flag is None or flag.numel() != scores.numel() or not fit.is_mask(flag):
        fit.refuse(name, f"a flag of 0 or 1 for each of {scores.numel()} scores", "others")
    return flag.reshape(scores.shape) != 0


def _kind_of(scores: Mapping[str, Tensor], flags: Mapping[str, Tensor]) -> str:
    """The kind that the scores tell."""
    if all(map(fit.is_mask, scores.values())):
        masked = any(not bool(((score > 0) & flags[layer]).all()) for layer, score in scores.items())
        return "fixed" if masked else "dense"
    inside = all(bool(((score >= 0) & (score <= 1)).all()) for score in scores.values())
    return "rounded" if inside else "subnet"


@torch.no_grad()
def _hide(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    flags: Mapping[str, Tensor],
    kind: str,
    density: float | None,
    threshold: float,
) -> None:
    if kind == "fixed":
        source, rule = Stored(trainable=True), lambda name, _: Fixed((scores[name] > 0) & flags[name])
    elif kind == "rounded":
        source, rule = Stored(), Rounded(threshold)
    else:
        source, rule = Stored(), TopK(density, scope="layer" if kind == "subnet" else "global")
    hide(model, source, rule, include=list(scores), score_init=0.0)
    for name, layer in hidden_layers(model).items() if kind != "fixed" else ():
        layer.scores.copy_(scores[name])
        if kind == "rounded":
            layer.flags.copy_(ops.pack_mask(flags[name]))
