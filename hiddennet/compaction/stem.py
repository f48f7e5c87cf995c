"""What the small compact graphs share: the stem with its norms folded in, the head, instance norm without scale."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.models.dnw import SmallGraph
from hiddennet.models.dnw.base import EPS
from hiddennet.nn.wiring import Wiring

from .parts import Frozen, Tensors, conv, folded

_CONVS = ("first", "middle", "last")


class Stem(Frozen):
    """Images to the inputs that are kept, at a quarter of the size: three convolutions with biases."""

    def __init__(self, in_channels: int, channels: int, inputs: int, tensors: Tensors) -> None:
        super().__init__()
        shapes = ((channels, in_channels, 3, 3), (channels, 1, 3, 3), (inputs, channels, 1, 1))
        for name, shape in zip(_CONVS, shapes, strict=True):
            self.hold(tensors, **{f"{name}_weight": shape, f"{name}_bias": shape[:1]})

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(F.conv2d(images, self.first_weight, self.first_bias, stride=2, padding=1), inplace=True)
        x = F.conv2d(x, self.middle_weight, self.middle_bias, stride=2, padding=1, groups=len(self.middle_bias))
        return conv(x, self.last_weight, self.last_bias)


def stem_tensors(stem: nn.Sequential, kept: Tensor) -> dict[str, Tensor]:
    """The tensors of a Stem of an original stem's outputs `kept`, bool."""
    first, first_norm, _, middle, last, last_norm = stem
    found = {"middle_weight": middle.weight, "middle_bias": middle.bias}
    for name, layer, norm in (("first", first, first_norm), ("last", last, last_norm)):
        scale, shift = folded(norm)
        found[f"{name}_weight"] = layer.weight * scale[:, None, None, None]
        found[f"{name}_bias"] = layer.bias * scale + shift
    for name in ("last_weight", "last_bias"):
        found[name] = found[name][kept]
    return found


class Head(Frozen):
    """The mean of the window's pixels and a linear classifier. tensors: weight [classes, outputs], bias."""

    def __init__(self, num_classes: int, outputs: int, window: str, tensors: Tensors) -> None:
        super().__init__()
        self.window = window
        self.hold(tensors, weight=(num_classes, outputs), bias=(num_classes,))

    def forward(self, outputs: Tensor) -> Tensor:
        top, left = (max(0, side // 2 - 1) for side in outputs.shape[2:])
        if self.window == "original":
            top, left = top - 1, left - 1
        return F.linear(outputs[:, :, top : top + 2, left : left + 2].mean(dim=(2, 3)), self.weight, self.bias)


def normed(x: Tensor) -> Tensor:
    """Instance norm without scale and shift, which belong to the nodes."""
    return F.instance_norm(x, use_input_stats=True, eps=EPS) if x.shape[1] else x


def running_weight(graph: nn.Module) -> Tensor:
    """A wiring's effective weight in evaluation, zero where no edge is run."""
    was = graph.training
    graph.train(False)
    try:
        values = graph.effective_weight().detach()
    finally:
        graph.train(was)
    return values if graph.usable is None else torch.where(graph.usable, values, torch.zeros_like(values))


def stem_spec(model: SmallGraph) -> dict[str, object]:
    """What the specs of small graphs share."""
    config = model.config
    return {
        "network": type(model).__name__,
        "in_channels": config.in_channels,
        "num_classes": config.num_classes,
        "least_side": 16,
        "stem_channels": config.stem_channels,
        "window": config.window,
        **before(model),
    }


def before(model: nn.Module) -> dict[str, int]:
    """What a network was before it was made compact: its bytes in float32 and its wirings' positions, of which edges
    are kept."""
    tensors = (tensor for tensor in model.state_dict().values() if tensor.is_floating_point())
    graphs = (module for module in model.modules() if isinstance(module, Wiring))
    return {
        "dense_bytes": 4 * sum(tensor.numel() for tensor in tensors),
        "positions": sum(graph.weight.numel() for graph in graphs),
    }
