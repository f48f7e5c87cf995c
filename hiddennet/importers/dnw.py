"""Read checkpoints of Discovering Neural Wirings (Wortsman et al., NeurIPS 2019) as networks of ours.

They hold all weights, kept or not, and the mask of kinds that fix their edges; how many edges the other kinds keep
stood in a config beside the checkpoint. Which network it is is told by the names and shapes of its tensors. Training
state (optimiser, meters) is not taken over.
"""

import os
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from torch import Tensor, nn

from hiddennet import models
from hiddennet.importers import fit
from hiddennet.importers.checkpoint import CheckpointError, read_checkpoint
from hiddennet.importers.dnw_shapes import architecture_of, mobilenet_config, shape, small_config
from hiddennet.models import dnw
from hiddennet.nn import Fixed, Stored, hide
from hiddennet.nn.edge_rules import KINDS, largest
from hiddennet.nn.expose import skip_init

_INERT = ("train.ScalarMeter", "__main__.ScalarMeter")  # the original's meters, beside the model
_FACTS = ("last_epoch", "best_val", "iter", "epoch", "best_prec1")


def _read(
    path: str | os.PathLike,
    arch: str | None = None,
    *,
    density: float | None = None,
    kind: str = "auto",
    image_size: int | None = None,
    dense_first: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a checkpoint, in evaluation mode; its logits are the original's (compat=True).

    Args:
        path: what the original wrote: a dict with `model` or `state_dict`, or a state dict by itself.
        arch: one of ARCHITECTURES; None: told by the tensors, which it must agree with.
        density: what is kept, which the checkpoint does not hold: of MobileNet-like graphs the width (1 - prune_rate),
            of sparse ResNets the fraction of each layer (1 - prune_rate), of small graphs the fraction of all positions
            (None: 0.05, as published). Not needed where the checkpoint fixes the edges.
        kind: one of hiddennet.nn.wiring.KINDS. "auto": edges are fixed where the checkpoint has masks, unless these
            hold all edges but for one in 65,536, which is what the original's dnw_no_update draws; else "dnw". Sparse
            ResNets are "dnw", "targeted_dropout" or "complete".
        image_size: the side of the images; None: 224 with 1000 classes or of a ResNet, else 32.
        dense_first: of sparse ResNets: the first convolution keeps all weights.

    A discrete graph is read with 5 steps, a MobileNet-like one with strides of 1 and then 2, as published.

    Raises:
        CheckpointError (a ValueError): the file cannot be read safely, or does not fit.
    """
    if kind not in ("auto", *KINDS):
        raise CheckpointError(f"import: expected kind to be one of {', '.join(('auto', *KINDS))}, got {kind!r}")
    if density is not None and not 0.0 <= density <= 1.0:
        raise CheckpointError(f"import: expected a density in [0, 1] (the kept fraction), got {density}")
    checkpoint = read_checkpoint(path, inert=_INERT)
    state = fit.state_dict(checkpoint, path, ("model", "state_dict"))
    name = architecture_of(state, path)
    said = checkpoint.get("arch") if arch is None else arch
    if isinstance(said, str) and said != name:
        raise CheckpointError(f"import: expected a checkpoint of {said} in {path}, got one of {name}")
    facts = fit.facts("dnw", path, name, checkpoint, _FACTS)
    if dense_first and not name.startswith("resnet"):
        raise CheckpointError(f"import: expected no dense_first for {name}, got it; it is for sparse ResNets")
    if name == "mobilenet_v1":
        return _plain(name, state, image_size).eval(), {"method": "dense", "imported": facts}
    if name.startswith("resnet"):
        model, method = _resnet(name, state, density, kind, image_size, dense_first), "magnitude_topk"
    else:
        model, method = _graph(name, state, density, kind, image_size), "dnw"
    facts |= {} if density is None else {"density": density}
    return model.eval(), {"method": method, "imported": facts}


read, convert = fit.importer(_read)


def _graph(name: str, state: dict[str, Tensor], density: float | None, kind: str, size: int | None) -> nn.Module:
    """A network of wirings, its sizes read off the tensors."""
    masks = {key: value for key, value in state.items() if key.endswith("graph.mask")}
    whole = bool(masks) and all(_whole(mask) for mask in masks.values())
    if kind == "auto":
        kind = "dnw" if not masks else "dnw_no_update" if whole else "fine_tune"
    if kind == "random":
        if not masks:
            fit.refuse(name, "the masks of a random graph", "none")
        kind = "fine_tune"  # of the same fixed edges, none drawn
    fixed = kind == "fine_tune" and bool(masks)
    if masks and not fixed and not whole and kind != "dnw_no_update":
        fit.refuse(name, f"masks of all edges for kind {kind!r}", "others")
    if fixed and len(masks) < sum(key.endswith("graph.weight") for key in state):
        fit.refuse(name, "a mask of every graph", f"{len(masks)}")
    if fixed and density is not None:
        raise CheckpointError(
            f"import: expected no density of {name} with fixed edges, got {density}; its masks say which are kept "
            "(kind dnw_no_update takes the largest of them)"
        )
    if kind == "dnw_no_update" and masks:  # what the mask lacks is no edge, whatever its weight
        for key, mask in masks.items():
            weight = key.removesuffix("mask") + "weight"
            state[weight] = state[weight] * (mask != 0)
    if name == "dnw_mobilenet":
        config = mobilenet_config(state, density, kind, size, masks if fixed else {})
    else:
        config = small_config(name, state, density, kind, masks if fixed else {})
    try:
        with skip_init():
            model = dnw.NETWORKS[name][0](config)
        model.load_state_dict(dnw.from_original(model, state))
    except ValueError as error:
        raise CheckpointError(f"import: {error}") from None
    model.architecture = _architecture(name, config, size)
    return model


def _whole(mask: Tensor) -> bool:
    """Whether it is the original's mask of all edges, `rand != 0`: a number in 2^24 that it draws is 0 after all."""
    return int((mask == 0).sum()) <= mask.numel() >> 16


def _architecture(name: str, config: Any, size: int | None) -> dict[str, Any]:
    """The arguments of hiddennet.models.build that make the network again."""
    known = asdict(config)
    return {
        "name": name,
        "num_classes": config.num_classes,
        "in_channels": config.in_channels,
        "image_size": known.get("image_size", 32 if size is None else size),
        "width": known.get("width", 1.0),
        "graph": {key: known[key] for key in dnw.graph_keys(name)},
    }


def _plain(name: str, state: dict[str, Tensor], size: int | None) -> nn.Module:
    """MobileNetV1 as it is, without edges to choose; also a ResNet before its weights are."""
    resnet = name.startswith("resnet")
    channels, in_channels = shape(state, "conv1.weight", name, 4)[:2]
    last = "fc.weight" if resnet else "linear.weight"
    convolution = resnet and last in state and state[last].dim() == 4
    classes = shape(state, last, name, 4 if convolution else 2)[0]

    def make(width: float) -> nn.Module:
        return models.build(
            name,
            num_classes=classes,
            in_channels=in_channels,
            image_size=size if size is not None else 224 if resnet or classes == 1000 else 32,
            width=width,
            batch_norm="affine",
            bias=not resnet,
        )

    model = fit.at_width(make, state, name, channels, 64 if resnet else 32)
    missing = sorted(key for key in model.state_dict() if key not in state and not key.endswith("_tracked"))
    if missing:
        listed = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        fit.refuse(name, "all of its tensors", f"{len(missing)} missing: {listed}")
    fit.load(model, state, name, "mask")
    return model


def _resnet(
    name: str, state: dict[str, Tensor], density: float | None, kind: str, size: int | None, dense_first: bool
) -> nn.Module:
    """A ResNet whose layers keep their largest weights."""
    kind = "dnw" if kind == "auto" else kind
    if kind not in ("dnw", "targeted_dropout", "complete"):
        raise CheckpointError(
            f"import: expected kind dnw, targeted_dropout or complete (dense) of a sparse ResNet, got {kind!r}"
        )
    if density is None and kind != "complete":
        raise CheckpointError(
            "import: expected a density for a sparse ResNet (the fraction kept, 1 - prune_rate), got none; the "
            "checkpoint does not hold it (1, or kind complete, for a dense one)"
        )
    model = _plain(name, state, size)
    if kind == "complete":
        return model
    masks: dict[str, Tensor] = {}
    for key, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear) or (dense_first and key == "conv1"):
            continue
        if kind == "targeted_dropout":  # the original loses the signs
            layer.weight.data.abs_()
        masks[key] = largest(layer.weight, _kept(layer.weight.numel(), density), None)
    hide(model, Stored(trainable=True), lambda key, _: Fixed(masks[key]), include=list(masks))
    return model


def _kept(n: int, density: float) -> int:
    """Of n weights, the rate being the decimal 1 - density, which the original's configs have: 0.3 for 0.7."""
    return n - int(float(1 - Decimal(repr(float(density)))) * n)
