"""Read checkpoints of Peek-a-Boo (Chen et al., ICLR 2022) as networks of ours with fixed masks.

Its masked layers keep `weight`, never zeroed, and `weight_mask` (and `bias`, `bias_mask`); its Seed
layers also `t`, which tells the sign of each frozen weight. Files of its CIFAR script do not say
which network they are of. Training state (of the optimisers) is not taken over.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hiddennet import models
from hiddennet.importers import fit
from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint
from hiddennet.nn import Fixed, Stored, hide


@dataclass(frozen=True)
class Source:
    """A network of the original: ours, the original's name of the first convolution, its channels at
    width 1, and the original's name of the classifier."""

    ours: str
    first: str
    channels: int
    last: str


def _sources() -> dict[str, Source]:
    found = {f"Conv{n}": Source(f"conv{n}_bn", "convs.0", 64, "linear.6") for n in (4, 6)}
    for depth in (20, 110):
        found[f"ResNet{depth}"] = Source(f"resnet{depth}_projection", "conv1", 16, "linear")
    for depth in (18, 34, 50, 101, 152):
        found[f"ResNet{depth}"] = Source(f"cifar_resnet{depth}", "conv1", 64, "linear")
    found["WideResNet28_10"] = Source("wide_resnet28_10", "conv1", 16, "linear")
    for depth in (11, 13, 16, 19):
        found[f"VGG{depth}"] = Source(f"vgg{depth}", "features.0", 64, "classifier")
    wide = ("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2")
    for name in (*(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)), *wide):
        found[name] = Source(name, "conv1", 64, "fc")
    return found


ARCHITECTURES = _sources()  # lower case: for ImageNet
ACTIVATIONS = ("auto", "flipping", "pruning", "ternary", "none")
_PREFIXES = re.compile("(Psg)?(Seed)?(psg_)?(seed_)?")
_FACTS = ("epoch", "acc", "best_acc1", "acc5")


def _read(
    path: str | os.PathLike, arch: str | None = None, *, hidden_act: str = "auto"
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a checkpoint, in evaluation mode; its logits are the original's.

    Layers with a mask are hidden, with rule Fixed(mask) and trainable weights; the others are plain.

    Args:
        path: what the original wrote: a dict with `net` (CIFAR) or `state_dict` (ImageNet), or a state
            dict by itself.
        arch: one of ARCHITECTURES, with or without its Psg and Seed prefixes; None takes the name in
            the checkpoint.
        hidden_act: what the `t` of Seed layers does to their weights, the original's --hidden-act,
            which the checkpoint does not hold. "flipping": sign(t). "pruning": t > 0. "ternary": 1
            above `hi`, -1 below `lo`, else 0. "none": nothing. "auto": ternary where a layer has `lo`
            and `hi`, else flipping, as all Psg Seed layers.

    Raises:
        CheckpointError (a ValueError): the file cannot be read safely, or does not fit `arch`.
    """
    if hidden_act not in ACTIVATIONS:
        raise CheckpointError(f"import: expected hidden_act to be one of {', '.join(ACTIVATIONS)}, got {hidden_act!r}")
    checkpoint = read_checkpoint(path)
    state = fit.state_dict(checkpoint, path, ("net", "state_dict"))
    known = f"{', '.join(ARCHITECTURES)} (with Psg or Seed before it or not)"
    name, said = fit.architecture(arch, checkpoint, path, _without_prefix, known)
    state = _plain(state, name, hidden_act)
    model = _build(name, state)
    masks = fit.load(model, state, name, "weight_mask", _theirs(name))
    for layer, mask in masks.items():
        if not fit.is_mask(mask):
            raise CheckpointError(f"import: expected a weight_mask of 0 and 1 in layer {layer} of {path}, got others")
    if masks:
        hide(model, Stored(trainable=True), lambda layer, _: Fixed(masks[layer].bool()), include=list(masks))
    found = {
        "method": "peek_a_boo" if masks else "dense",
        "imported": fit.facts("peek-a-boo", path, said, checkpoint, _FACTS),
        "data_options": {"normalization": _normalization(name, model)},
    }
    return model.eval(), found


read, convert = fit.importer(_read)


def _without_prefix(full: str) -> str | None:
    name = full[_PREFIXES.match(full).end() :]
    return name if name in ARCHITECTURES else None


def _normalization(name: str, model: nn.Module) -> str:
    """Of the images that it was trained on, which are told by the script that knows the network, and its classes."""
    if name[0].islower() or model.architecture["in_channels"] != 3:
        return "own"
    return {10: "peek_a_boo_cifar10", 100: "peek_a_boo_cifar100"}.get(model.architecture["num_classes"], "own")


def _plain(state: Mapping[str, Tensor], name: str, hidden_act: str) -> dict[str, Tensor]:
    """The state with weights and biases as the original computes with them, but for `weight_mask`."""
    left = {key: value for key, value in state.items() if not key.endswith(".quant_input.running_max_values")}
    for layer in [key.removesuffix(".t") for key in left if key.endswith(".t")]:
        weight = left.get(f"{layer}.weight")
        if weight is None:
            fit.refuse(name, f"a weight {layer}.weight", "none")
        factor = _activation(left, layer, hidden_act)
        left[f"{layer}.weight"] = _times(weight, factor, f"{layer}.t", name)
        if f"{layer}.scale" in left:  # of the layer's input
            left[f"{layer}.weight"] = _times(
                left[f"{layer}.weight"], left.pop(f"{layer}.scale"), f"{layer}.scale", name
            )
    for layer in [key.removesuffix(".bias_mask") for key in left if key.endswith(".bias_mask")]:
        mask = left.pop(f"{layer}.bias_mask")
        if f"{layer}.bias" not in left:
            fit.refuse(name, f"a bias {layer}.bias", "none")
        left[f"{layer}.bias"] = _times(left[f"{layer}.bias"], mask, f"{layer}.bias_mask", name)
    return left


def _activation(left: dict[str, Tensor], layer: str, hidden_act: str) -> Tensor:
    """What a Seed layer's frozen weights are multiplied by; takes its tensors out of the state."""
    t, low, high = (left.pop(f"{layer}.{leaf}", None) for leaf in ("t", "lo", "hi"))
    bounded = low is not None and high is not None
    kind = ("ternary" if bounded else "flipping") if hidden_act == "auto" else hidden_act
    if kind == "ternary":
        if not bounded:
            raise CheckpointError(f"import: expected lo and hi of the ternary layer {layer}, got none; see hidden_act")
        return (t > high).float() - (t < low).float()
    if kind == "pruning":
        return (t > 0).float()
    return torch.ones_like(t) if kind == "none" else t.sign()


def _times(values: Tensor, factor: Tensor, key: str, name: str) -> Tensor:
    """values * factor, whose dimensions of 1 are shared."""
    shape, found = tuple(values.shape), tuple(factor.shape)
    if len(found) != len(shape) or any(theirs not in (1, ours) for theirs, ours in zip(found, shape, strict=True)):
        fit.refuse(name, f"{key} of shape {shape}, or 1 where it is shared", f"shape {found}")
    return values.detach() * factor.detach()


def _build(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Our model, its width, its classes and whether convolutions have biases read off the tensors."""
    source = ARCHITECTURES[name]
    first, last = f"{source.first}.weight", f"{source.last}.weight"
    fit.need(state, name, first, last)
    ours = source.ours
    if name == "ResNet20" and not any(".shortcut." in key for key in state):
        ours = "resnet20"  # the Seed variant's skip paths have no weights

    def make(width: float) -> nn.Module:
        return models.build(
            ours,
            num_classes=len(state[last]),
            in_channels=state[first].shape[1],
            width=width,
            bias=not name.startswith("Conv"),
            conv_bias=f"{source.first}.bias" in state and name.startswith("VGG"),
        )

    return fit.at_width(make, state, name, len(state[first]), source.channels, _theirs(name))


def _theirs(name: str) -> Callable[[str], str]:
    """The original's name of a key or a layer of ours."""
    wide = name == "WideResNet28_10"
    renamed = wide or name.startswith("ResNet")

    def key(ours: str) -> str:
        if renamed:
            ours = re.sub(r"^fc(?=\.|$)", "linear", ours)
        if wide:
            ours = re.sub(r"^block(?=\d)", "layer", ours)
            ours = re.sub(r"\.shortcut(?=\.|$)", ".shortcut.0", ours)
        return ours

    return key
