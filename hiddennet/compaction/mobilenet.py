"""CompactMobileNet: a MobileNetGraph without its dead nodes, its edges in lists."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.models.dnw import MobileNetGraph
from hiddennet.nn.reach import GraphLayout

from .base import CompactNetwork, Graph, group_of, reduce
from .parts import Frozen, Nodes, Product, Space, Tensors, features_of, folded, packed, part
from .stem import before, running_weight

_ROWS = 16  # of the first convolution's maps, made at once


class CompactStage(nn.Module):
    """Blocks of nodes and the edges between them, of one stage.

    Modules: `nodes` (all senders, inputs first), `products` (the sums of each block of receivers, the outputs last).
    spec: stride, inputs, blocks (how many nodes each block of receivers has).
    """

    def __init__(self, spec: dict[str, Any], tensors: Tensors) -> None:
        super().__init__()
        self.stride, self.inputs, self.blocks = spec["stride"], spec["inputs"], tuple(spec["blocks"])
        self.sources = self.inputs + sum(self.blocks[:-1])
        self.nodes = Nodes(self.sources, part(tensors, "nodes"))
        self.products = nn.ModuleList()
        seen = self.inputs
        for j, count in enumerate(self.blocks):
            self.products.append(Product(count, seen, part(tensors, f"products.{j}")))
            seen += count

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Of the stage's maps, of its input's."""
        return (height - 1) // self.stride + 1, (width - 1) // self.stride + 1

    def space_size(self, group: int, height: int, width: int) -> int:
        """Elements of the workspace: its input and what is sent on of it, then all senders and a block of sums."""
        h, w = self.sides(height, width)
        sent = self.sources if group > 1 else self.inputs  # of one image the buffer's other channels lie behind them
        first = sent * h * w + self.inputs * height * width
        return group * max(first, (self.sources + max(self.blocks)) * h * w)

    def run(self, received: Tensor, space: Space) -> Tensor:
        """[N, inputs, H, W], at the right of the workspace, to [N, outputs, H / stride, W / stride], rounded up, in its
        place."""
        group, (h, w) = received.shape[0], self.sides(*received.shape[2:])
        buffer = space.left(group, self.sources, h, w)
        seen, stride = 0, self.stride
        for product in self.products:
            end = seen + received.shape[1]
            self.nodes.send_into(buffer[:, seen:end], received, seen, stride)
            received = space.right(group, product.n_destinations, h, w)
            product.sum_into(received, buffer[:, :end])
            seen, stride = end, 1
        return received


class Classifier(Frozen):
    """Features' norm and linear classifier. tensors: scale, shift [features], bias [num_classes], `product`'s."""

    def __init__(self, num_classes: int, features: int, tensors: Tensors) -> None:
        super().__init__()
        self.hold(tensors, scale=(features,), shift=(features,), bias=(num_classes,))
        self.product = Product(num_classes, features, part(tensors, "product"))

    def forward(self, features: Tensor) -> Tensor:
        if self.product.is_dense:
            return F.linear(features, self.product.weight, self.bias)
        logits = self.bias.repeat(len(features), 1)
        self.product.sum_into(logits[:, :, None, None], features[:, :, None, None], accumulate=True)
        return logits


class CompactMobileNet(CompactNetwork):
    """What is left of a MobileNetGraph. Made by hiddennet.compact.

    Modules: `conv1` (kept channels), `stages`, `classifier` (bias, into which dead final nodes are folded).
    """

    def __init__(self, spec: dict[str, Any], tensors: Tensors) -> None:
        super().__init__()
        self.spec = spec
        stages = spec["stages"]
        self.conv1 = Frozen()
        self.conv1.hold(part(tensors, "conv1"), weight=(stages[0]["inputs"], spec["in_channels"], 3, 3))
        self.stages = nn.ModuleList(CompactStage(s, part(tensors, f"stages.{i}")) for i, s in enumerate(stages))
        self.features = stages[-1]["blocks"][-1]
        self.classifier = Classifier(spec["num_classes"], self.features, part(tensors, "classifier"))
        super().train(False)

    def wired_products(self) -> list[Product]:
        products = self.products_by_name()
        if not self.spec["small"]:
            del products["classifier.product"]
        return list(products.values())

    def space_size(self, group: int, height: int, width: int) -> int:
        sides, sizes = self._sides(height, width), []
        for stage in self.stages:
            sizes.append(stage.space_size(group, *sides))
            sides = stage.sides(*sides)
        return max(sizes) + 64  # rights begin at a cache line

    def logits(self, images: Tensor) -> Tensor:
        features = images.new_empty(len(images), self.features)
        group = group_of(images)
        if self.features and len(images):
            space = self.take_space(images, group)
            for begin in range(0, len(images), group):
                part_of = images[begin : begin + group]
                x = self._first(part_of, space)
                for stage in self.stages:
                    x = stage.run(x, space)
                features[begin : begin + group] = features_of(x, self.classifier.scale, self.classifier.shift)
            self.give_space(space, images, group)
        return self.classifier(features)

    def _sides(self, height: int, width: int) -> tuple[int, int]:
        """Of the first convolution's maps."""
        stride = self.spec["stride"]
        return (height - 1) // stride + 1, (width - 1) // stride + 1

    def _first(self, images: Tensor, space: Space) -> Tensor:
        """The first convolution; on a CPU a few rows at a time, so that torch's copies of them stay small."""
        out = space.right(len(images), len(self.conv1.weight), *self._sides(*images.shape[2:]))
        weight, stride, height = self.conv1.weight, self.spec["stride"], out.shape[2]
        step = _ROWS if images.device.type == "cpu" else height
        for row in range(0, height if out.numel() else 0, step):
            end = min(row + step, height)
            top, bottom = row * stride - 1, (end - 1) * stride + 2
            inside = images[:, :, max(top, 0) : bottom]
            rows = F.pad(inside, (1, 1, max(-top, 0), max(bottom - images.shape[2], 0)))
            out[:, :, row:end] = F.conv2d(rows, weight, stride=stride)
        return out


@torch.no_grad()
def compact_mobilenet(model: MobileNetGraph) -> CompactMobileNet:
    """See hiddennet.compact."""
    weights = [running_weight(layer.graph) for layer in model.layers]
    nodes = [_nodes_of(layer) for layer in model.layers]
    stages = [_graph_of(w, n, layout) for w, n, layout in zip(weights, nodes, model.layouts().values(), strict=False)]
    scale, shift = folded(model.bn)
    small = model.config.small
    linear = running_weight(model.linear.graph) if small else model.linear.weight
    bias = linear.new_zeros(len(linear)) if small or model.linear.bias is None else model.linear.bias.clone()
    read = linear.any(0)
    reduce(stages, model.conv1.weight.flatten(1).any(1), read & (scale != 0))

    alive = stages[-1].outputs
    constant = read & ~alive
    bias += linear[:, constant] @ F.relu(shift[constant])
    tensors = {"conv1.weight": model.conv1.weight[stages[0].senders[: stages[0].layout.inputs]]}
    specs = []
    for i, stage in enumerate(stages):
        wanted = alive if i + 1 == len(stages) else stages[i + 1].senders[: stages[i + 1].layout.inputs]
        made, found = _compact_stage(model.layers[i], stage, weights[i], nodes[i], wanted)
        specs.append(made)
        tensors |= {f"stages.{i}.{name}": tensor for name, tensor in found.items()}
    head = {"scale": scale[alive], "shift": shift[alive], "bias": bias}
    product = packed(linear[:, alive].contiguous()) if small else {"weight": linear[:, alive]}
    head |= {f"product.{name}": tensor for name, tensor in product.items()}
    tensors |= {f"classifier.{name}": tensor for name, tensor in head.items()}
    config = model.config
    spec = {
        "network": "MobileNetGraph",
        "in_channels": config.in_channels,
        "num_classes": config.num_classes,
        "least_side": 1,
        "small": small,
        "stride": model.conv1.stride[0],
        "stages": specs,
        **before(model),
    }
    return CompactMobileNet(spec, tensors)


def _nodes_of(layer: nn.Module) -> dict[str, Tensor]:
    """Scale, shift and taps of all sending nodes of a stage."""
    scales, shifts = zip(*(folded(norm) for norm in layer.norm), strict=True)
    convs = [layer.downsample[0].weight] + ([layer.conv.weight] if layer.shape.blocks > 1 else [])
    return {"scale": torch.cat(scales), "shift": torch.cat(shifts), "taps": torch.cat(convs)[:, 0].detach()}


def _graph_of(weight: Tensor, nodes: dict[str, Tensor], layout: GraphLayout) -> Graph:
    return Graph(
        layout=layout,
        edges=weight != 0,
        deaf=nodes["scale"] == 0,
        mute=~nodes["taps"].flatten(1).any(1),
        quiet=nodes["shift"] <= 0,
    )


def _compact_stage(
    layer: nn.Module, stage: Graph, weight: Tensor, nodes: dict[str, Tensor], wanted: Tensor
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Spec and tensors of a stage whose outputs `wanted` are kept; blocks without nodes are left out."""
    kept, n, inputs = stage.senders, layer.shape.outputs, layer.shape.inputs
    tensors = {f"nodes.{name}": tensor[kept] for name, tensor in nodes.items()}
    weight = weight * stage.edges
    rows = torch.cat((kept[inputs:], wanted))
    blocks: list[int] = []
    for j in range(layer.shape.blocks):
        own = rows[j * n : (j + 1) * n]
        count, last = int(own.count_nonzero()), j + 1 == layer.shape.blocks
        if count == 0 and not last:
            continue
        seen = kept[: inputs + j * n]
        block = weight[j * n : (j + 1) * n, : inputs + j * n][own][:, seen]
        tensors |= {f"products.{len(blocks)}.{name}": tensor for name, tensor in packed(block).items()}
        blocks.append(count)
    spec = {"stride": layer.shape.stride, "inputs": int(kept[:inputs].count_nonzero()), "blocks": blocks}
    return spec, tensors
