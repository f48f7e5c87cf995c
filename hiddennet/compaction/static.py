"""CompactStatic: a StaticGraph without its dead nodes, its edges in lists."""

from typing import Any

import torch
from torch import Tensor, nn

from hiddennet.models.dnw import StaticGraph
from hiddennet.nn.reach import GraphLayout

from .base import CompactNetwork, Graph, reduce
from .parts import Nodes, Product, Tensors, packed, part
from .stem import Head, Stem, normed, running_weight, stem_spec, stem_tensors


class CompactStatic(CompactNetwork):
    """What is left of a StaticGraph. Made by hiddennet.compact.

    Modules: `stem`, `nodes` (all senders), `products` (the sums of each block of senders after the inputs, then the
    outputs'), `head`. spec: blocks (the senders of each), outputs.

    Where the original's last step is lateral, an output that sends has two rows: what it sends, and what is read.
    """

    def __init__(self, spec: dict[str, Any], tensors: Tensors) -> None:
        super().__init__()
        self.spec, blocks = spec, spec["blocks"]
        self.stem = Stem(spec["in_channels"], spec["stem_channels"], blocks[0], part(tensors, "stem"))
        self.nodes = Nodes(sum(blocks), part(tensors, "nodes"))
        self.products, seen = nn.ModuleList(), 0
        for j, count in enumerate((*blocks[1:], spec["outputs"])):
            seen += blocks[j]
            self.products.append(Product(count, seen, part(tensors, f"products.{j}")))
        self.head = Head(spec["num_classes"], spec["outputs"], spec["window"], part(tensors, "head"))
        super().train(False)

    def logits(self, images: Tensor) -> Tensor:
        received = self.stem(images)
        batch, sides = len(images), received.shape[2:]
        buffer = images.new_empty(batch, self.nodes.count, *sides)
        seen = 0
        for product in self.products:
            end = seen + received.shape[1]
            self.nodes.send_into(buffer[:, seen:end], normed(received), seen)
            received = images.new_empty(batch, product.n_destinations, *sides)
            product.sum_into(received, buffer[:, :end])
            seen = end
        return self.head(received)


@torch.no_grad()
def compact_static(model: StaticGraph) -> CompactStatic:
    """See hiddennet.compact."""
    weight, inputs, n, senders = running_weight(model.graph), model.inputs, model.config.outputs, model._senders
    end = senders[-1][1]
    weight = torch.cat((_into_later(weight, senders)[inputs:end, :end], weight[-n:, :end]))
    scale, shift = (torch.cat([getattr(norm, name) for norm in model.norm])[:end] for name in ("weight", "bias"))
    taps, read = model.conv.weight[:end, 0], model.fc.weight.any(0)
    layout = GraphLayout(blocks=(*(b - a for a, b in senders), n), inputs=inputs, outputs=n)
    graph = Graph(layout, weight != 0, deaf=scale == 0, mute=~taps.flatten(1).any(1), quiet=shift <= 0)
    reduce([graph], read.new_ones(inputs), read)

    kept, alive = graph.senders, graph.outputs
    spec = stem_spec(model) | {"blocks": [int(kept[:inputs].count_nonzero())], "outputs": int(alive.count_nonzero())}
    tensors = {f"stem.{name}": found for name, found in stem_tensors(model.downsample, kept[:inputs]).items()}
    tensors |= {"nodes.scale": scale[kept], "nodes.shift": shift[kept], "nodes.taps": taps[kept]}
    weight = weight * graph.edges
    products = []
    for a, b in senders[1:]:
        own = kept[a:b]
        if own.any():
            products.append(weight[a - inputs : b - inputs, :a][own][:, kept[:a]])
            spec["blocks"].append(int(own.count_nonzero()))
    products.append(weight[-n:][alive][:, kept])
    for j, product in enumerate(products):
        tensors |= {f"products.{j}.{name}": found for name, found in packed(product).items()}
    tensors |= {"head.weight": model.fc.weight[:, alive], "head.bias": model.fc.bias}
    return CompactStatic(spec, tensors)


def _into_later(weight: Tensor, blocks: tuple[tuple[int, int], ...]) -> Tensor:
    """The weight without edges inside a block of senders: those of the lateral sum are the outputs' alone."""
    later = weight.clone()
    for a, b in blocks:
        later[a:b, a:b] = 0
    return later
