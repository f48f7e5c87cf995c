"""CompactDiscrete: a DiscreteGraph without its dead nodes, its edges in lists."""

from typing import Any

import torch
from torch import Tensor, nn

from hiddennet.models.dnw import DiscreteGraph
from hiddennet.nn.reach import GraphLayout, backwards

from .base import CompactNetwork
from .parts import Nodes, Product, Tensors, packed, part
from .stem import Head, Stem, normed, running_weight, stem_spec, stem_tensors


class CompactDiscrete(CompactNetwork):
    """What is left of a DiscreteGraph. Made by hiddennet.compact.

    Nodes are ordered: senders that are not read out, senders that are, those that are read out and do not send.
    Modules: `stem`, `nodes` (all), `products` (the sums of each of the three), `head`; buffer `place`, int64: the
    senders that hold the stem's channels at first. spec: groups (how many nodes each of the three has), steps.
    """

    def __init__(self, spec: dict[str, Any], tensors: Tensors) -> None:
        super().__init__()
        self.spec, groups = spec, spec["groups"]
        inputs = tensors["place"].numel() if "place" in tensors else 0
        self.hold(tensors, place=(inputs,))
        self.stem = Stem(spec["in_channels"], spec["stem_channels"], inputs, part(tensors, "stem"))
        self.nodes = Nodes(sum(groups), part(tensors, "nodes"))
        self.senders, self.read = groups[0] + groups[1], groups[1] + groups[2]
        if inputs and not 0 <= int(self.place.min()) <= int(self.place.max()) < self.senders:
            raise ValueError(
                f"CompactDiscrete: expected place within {self.senders} senders, got {self.place.tolist()}"
            )
        self.products = nn.ModuleList(
            Product(count, self.senders, part(tensors, f"products.{j}")) for j, count in enumerate(groups)
        )
        self.head = Head(spec["num_classes"], self.read, spec["window"], part(tensors, "head"))
        super().train(False)

    def logits(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        state = stem.new_zeros(len(images), self.senders, *stem.shape[2:])
        state[:, self.place] = stem
        buffer, steps = torch.empty_like(state), self.spec["steps"]
        first = self.spec["groups"][0]
        for step in range(steps):
            self.nodes.send_into(buffer, normed(state) if step else state, 0, plain=step == 0)
            if step + 1 < steps:
                self.products[0].sum_into(state[:, :first], buffer)
                self.products[1].sum_into(state[:, first:], buffer)
        outputs = stem.new_empty(len(images), self.read, *stem.shape[2:])
        between = self.spec["groups"][1]
        self.products[1].sum_into(outputs[:, :between], buffer)
        self.products[2].sum_into(outputs[:, between:], buffer)
        scale, shift = (part_of[first:, None, None] for part_of in (self.nodes.scale, self.nodes.shift))
        return self.head(torch.addcmul(shift, normed(outputs), scale))


@torch.no_grad()
def compact_discrete(model: DiscreteGraph) -> CompactDiscrete:
    """See hiddennet.compact."""
    config, n = model.config, model.config.outputs
    scale, shift, taps = model.norm.weight, model.norm.bias, model.conv.weight[:, 0]
    weight, read = running_weight(model.graph), torch.zeros(model.nodes, dtype=torch.bool)
    read[-n:] = model.fc.weight.any(0)
    edges = _reduce(weight != 0, read, scale, shift, taps, model.layouts()["graph"])

    heard, sends = edges.any(1), edges.any(0)
    bias = model.fc.bias.clone()
    constant = (read & ~heard)[-n:]
    bias += model.fc.weight[:, constant] @ shift[-n:][constant]
    read &= heard
    orders = [mask.nonzero().flatten() for mask in (sends & ~read, sends & read, read & ~sends)]
    order, senders = torch.cat(orders), torch.cat(orders[:2])
    fed = senders < model.inputs
    kept = torch.zeros(model.inputs, dtype=torch.bool)
    kept[senders[fed]] = True
    place = fed.nonzero().flatten()[senders[fed].argsort()]
    spec = stem_spec(model) | {"groups": [len(group) for group in orders], "steps": config.steps}
    tensors = {f"stem.{name}": found for name, found in stem_tensors(model.downsample, kept).items()}
    tensors |= {"place": place, "nodes.scale": scale[order], "nodes.shift": shift[order], "nodes.taps": taps[order]}
    weight = weight * edges
    for j, group in enumerate(orders):
        tensors |= {f"products.{j}.{name}": found for name, found in packed(weight[group][:, senders]).items()}
    tensors |= {"head.weight": model.fc.weight[:, torch.cat(orders[1:]) - (model.nodes - n)], "head.bias": bias}
    return CompactDiscrete(spec, tensors)


def _reduce(edges: Tensor, read: Tensor, scale: Tensor, shift: Tensor, taps: Tensor, layout: GraphLayout) -> Tensor:
    """The edges that can change what is read after the layout's steps: bool [nodes, nodes]."""
    edges, deaf, mute = edges.clone(), scale == 0, ~taps.flatten(1).any(1)
    fed = torch.arange(len(scale)) < layout.inputs
    edges &= ~deaf[:, None] & ~mute
    while True:
        before = int(edges.count_nonzero())
        edges &= ~((shift <= 0) & ~edges.any(1) & ~fed)
        edges &= torch.stack(backwards(layout, edges, read)[1:]).any(0)[:, None]  # at whatever step they receive
        if int(edges.count_nonzero()) == before:
            return edges
