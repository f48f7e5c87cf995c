"""GraphLayout: which nodes a wiring's rows and columns are, in which order they send, and on maps of which size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from hiddennet.nn.wiring import wirings


@dataclass(frozen=True, kw_only=True)
class GraphLayout:
    """The nodes of a wiring, numbered: inputs first, outputs last. Column c of the weight is node c, row r is node
    nodes - n_destinations + r.

    Args:
        blocks: nodes of each block, in order.
        inputs, outputs: how many nodes hold what comes from outside, and are read out.
        run: "blocks": block after block sends once, what it has received by then; "steps": all nodes send at once,
            `steps` times, and keep nothing; "flow": all send all the time.
        steps: of "steps".
        operation: multiply-adds of a node's own operation at one pixel (9: a 3x3 depthwise convolution), done where it
            sends.
        strides: of the convolutions of padding 1 from the image to the nodes' maps; None: not known.
        pooled: the nodes are single numbers, not maps.
        after: the wiring whose outputs are this one's inputs; None: the inputs are always there.
    """

    blocks: tuple[int, ...]
    inputs: int
    outputs: int
    run: Literal["blocks", "steps", "flow"] = "blocks"
    steps: int = 1
    operation: int = 0
    strides: tuple[int, ...] | None = None
    pooled: bool = False
    after: str | None = None

    @property
    def nodes(self) -> int:
        """All nodes, also those that are another wiring's outputs."""
        return sum(self.blocks)

    @property
    def own(self) -> slice:
        """The nodes that are not another wiring's outputs."""
        return slice(0 if self.after is None else self.inputs, self.nodes)

    def pixels(self, image_size: int | None) -> int | None:
        """Of a node's map, for square images; None: not known."""
        if self.pooled:
            return 1
        if self.strides is None or image_size is None:
            return None
        side = image_size
        for stride in self.strides:
            side = (side - 1) // stride + 1
        return side * side


def layouts(model: nn.Module) -> dict[str, GraphLayout]:
    """The layout of each wiring of a model, in the order they are run: what the networks that hold them say
    (`network.layouts()`), else sources that send to destinations."""
    found: dict[str, GraphLayout] = {}
    for name, module in model.named_modules():
        if not hasattr(module, "layouts"):
            continue
        prefix = f"{name}." if name else ""
        for inner, layout in module.layouts().items():
            after = None if layout.after is None else prefix + layout.after
            found[prefix + inner] = GraphLayout(**{**vars(layout), "after": after})
    for name, wiring in wirings(model).items():
        sizes = (wiring.n_sources, wiring.n_destinations)
        found.setdefault(name, GraphLayout(blocks=sizes, inputs=sizes[0], outputs=sizes[1]))
    return found
