"""Which network of Discovering Neural Wirings a state dict is of, and its sizes, by the tensors' names and shapes."""

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hiddennet.importers import fit
from hiddennet.importers.checkpoint import CheckpointError
from hiddennet.models import dnw
from hiddennet.models.dnw.mobilenet_config import StageShape

_RESNETS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
ARCHITECTURES = ("dnw_static", "dnw_discrete", "dnw_continuous", "dnw_mobilenet", "mobilenet_v1", *_RESNETS.values())


def architecture_of(state: Mapping[str, Tensor], path: str | os.PathLike) -> str:
    """Which network the names of the tensors are of."""
    for pattern, name in (
        (r"odesolve\.", "dnw_continuous"),
        (r"norm\.\d", "dnw_static"),
        (r"graph\.", "dnw_discrete"),
        (r"layers\.\d+\.graph\.", "dnw_mobilenet"),
        (r"layers\.\d+\.conv2\.", "mobilenet_v1"),
    ):
        if any(re.match(pattern, key) for key in state):
            return name
    blocks = tuple(len({k.split(".")[1] for k in state if k.startswith(f"layer{i}.")}) for i in range(1, 5))
    found = _RESNETS.get(("layer1.0.conv3.weight" in state, blocks))
    if found is None:
        raise CheckpointError(
            f"import: expected the tensors of one of {', '.join(ARCHITECTURES)} in {path}, "
            f"got {', '.join(list(state)[:3])}"
        )
    return found


def shape(state: Mapping[str, Tensor], key: str, name: str, dims: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there."""
    if key not in state or state[key].dim() != dims:
        fit.refuse(name, f"a tensor {key} of {dims} dimensions", "none" if key not in state else f"{state[key].dim()}")
    return tuple(state[key].shape)


def _count(state: Mapping[str, Tensor], pattern: str, name: str) -> int:
    """How many numbers the pattern finds in the names: all from 0 on."""
    found = {int(match[1]) for match in (re.match(pattern, key) for key in state) if match}
    if found and max(found) != len(found) - 1:
        refuse = f"the numbers 0 to {len(found) - 1} in {pattern.replace(chr(92), '')}"
        fit.refuse(name, refuse, f"{max(found)}")
    return len(found)


def small_config(
    name: str, state: Mapping[str, Tensor], density: float | None, kind: str, masks: Mapping[str, Tensor]
) -> dnw.GraphConfig:
    """The config of a small graph; masks: of the edges that the checkpoint fixes."""
    stem = shape(state, "downsample.0.weight", name, 4)
    classes, outputs = shape(state, "fc.weight", name, 2)
    edges = "odesolve.odefunc.graph.weight" if name == "dnw_continuous" else "graph.weight"
    common: dict[str, Any] = {
        "outputs": outputs,
        "kind": kind,
        "num_classes": classes,
        "in_channels": stem[1],
        "stem_channels": stem[0],
        "compat": True,
    }
    if masks:
        common["edges"] = int((next(iter(masks.values())) != 0).count_nonzero())
    elif density is not None:
        common["density"] = density
    try:
        if name == "dnw_static":
            count = _count(state, r"norm\.(\d+)\.", name)
            blocks = tuple(shape(state, f"norm.{i}.weight", name, 1)[0] for i in range(count))
            return dnw.StaticConfig(blocks=blocks, nodes=shape(state, edges, name, 4)[0], **common)
        nodes, inputs = shape(state, edges, name, 4)[0], shape(state, "downsample.4.weight", name, 4)[0]
        make = dnw.DiscreteConfig if name == "dnw_discrete" else dnw.ContinuousConfig
        return make(nodes=nodes, inputs=inputs, **common)
    except ValueError as error:
        raise CheckpointError(f"import: {error}") from None


def mobilenet_config(
    state: Mapping[str, Tensor], density: float | None, kind: str, size: int | None, masks: Mapping[str, Tensor]
) -> dnw.MobileNetConfig:
    """The config of a MobileNet-like graph; masks: of the edges that the checkpoint fixes."""
    name, stages = "dnw_mobilenet", []
    for i in range(_count(state, r"layers\.(\d+)\.", name)):
        inputs = shape(state, f"layers.{i}.downsample.0.weight", name, 4)[0]
        rows, columns = shape(state, f"layers.{i}.graph.weight", name, 4)[:2]
        blocks = _count(state, rf"layers\.{i}\.norm\.(\d+)\.", name)
        if blocks == 0 or rows % blocks:
            fit.refuse(name, f"a norm of each block in layers.{i}, of {rows} destinations", f"{blocks}")
        if columns != inputs + rows // blocks * (blocks - 1):
            fit.refuse(name, f"a norm of each block in layers.{i}, of {columns} sources", f"{blocks}")
        stages.append(StageShape(inputs, rows // blocks, 1 if i == 0 else 2, blocks))
    small = any(key.startswith("linear.graph.") for key in state)
    classes = shape(state, "linear.graph.weight" if small else "linear.weight", name, 4 if small else 2)[0]
    if density is None:
        if not masks and kind != "complete":
            raise CheckpointError(
                "import: expected a density for a MobileNet-like graph (its width, 1 - prune_rate), got none; the "
                "checkpoint does not hold it"
            )
        density = _width(stages, masks) if masks else 1.0
    try:
        return dnw.MobileNetConfig(
            width=density,
            small=small,
            kind=kind,
            num_classes=classes,
            in_channels=shape(state, "conv1.weight", name, 4)[1],
            image_size=size if size is not None else 224 if classes == 1000 else 32,
            compat=True,
            stages=tuple(stages),
        )
    except ValueError as error:
        raise CheckpointError(f"import: {error}") from None


def _width(stages: list[StageShape], masks: Mapping[str, Tensor]) -> float:
    """About the width whose budget the masks of all stages use up; for the record, the masks say what is kept."""
    kept = sum(int((mask != 0).count_nonzero()) for key, mask in masks.items() if key.startswith("layers."))
    return min(1.0, round((kept / sum(stage.pointwise for stage in stages)) ** 0.5, 3))
