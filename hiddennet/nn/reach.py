"""Which nodes a wiring's rows and columns are, and which of them lie on a path from a network's inputs to its outputs.

GraphLayout says in which order nodes send, and on maps of which size. Everything that asks what is dead asks here: the
analysis of wirings, the graphs' own counts and checks, and compaction (which also knows which weights are zero). Node
by node and round by round, on masks, without weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

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


Round = tuple[Tensor, Tensor]  # bool [sources] that send, bool [destinations] that receive


@dataclass(frozen=True)
class Paths:
    """What of a wiring lies on a path of running edges from the network's inputs to its outputs.

    nodes: bool [nodes]; a node that is not is dead. edges: bool [destinations, sources]. rounds: who sends and who
    receives, round by round, of those. reached: bool [nodes] at the end, whether or not they are on to an output.
    """

    nodes: Tensor
    edges: Tensor
    rounds: tuple[Round, ...]
    reached: Tensor


def paths(layouts: dict[str, GraphLayout], edges: dict[str, Tensor]) -> dict[str, Paths]:
    """What of each wiring lies on a path; wirings that feed each other are taken as one network.

    Args:
        layouts: by wiring's name, in the order they are run, see `hiddennet.nn.reach.layouts`.
        edges: running ones by wiring's name, bool [destinations, sources], all on one device.
    """
    reached: dict[str, list[Tensor]] = {}
    for name, layout in layouts.items():
        inputs = edges[name].new_ones(layout.inputs)
        if layout.after is not None:
            inputs = reached[layout.after][-1][-layout.inputs :]
        reached[name] = forwards(layout, edges[name], _at(layout, edges[name], slice(layout.inputs), inputs))
    useful: dict[str, list[Tensor]] = {}
    for name, layout in reversed(layouts.items()):
        outputs = edges[name].new_ones(layout.outputs)
        following = [after for after, other in layouts.items() if other.after == name]
        if following:
            outputs = torch.stack([useful[after][0][: layout.outputs] for after in following]).any(dim=0)
        read = _at(layout, edges[name], slice(layout.nodes - layout.outputs, None), outputs)
        useful[name] = backwards(layout, edges[name], read)
    return {name: _meet(layout, edges[name], reached[name], useful[name]) for name, layout in layouts.items()}


def _at(layout: GraphLayout, like: Tensor, where: slice, these: Tensor) -> Tensor:
    """bool [nodes]: `these` there, nothing elsewhere."""
    nodes = like.new_zeros(layout.nodes)
    nodes[where] = these
    return nodes


def forwards(layout: GraphLayout, edges: Tensor, start: Tensor) -> list[Tensor]:
    """Nodes that those of `start` have reached, before each round and after the last: bool [nodes] each."""
    rows, columns = edges.shape
    now, states = start, [start]
    if layout.run == "blocks":
        for begin, end in _blocks(layout):
            senders = torch.zeros_like(now[:columns])
            senders[begin:end] = now[begin : min(end, columns)]
            now = now.clone()
            now[layout.nodes - rows :] |= _send(edges, senders)
            states.append(now)
    elif layout.run == "steps":
        for _ in range(layout.steps):
            states.append(_send(edges, states[-1]))
    else:
        now = _closure(edges, now)
        states = [now, now]
    return states


def backwards(layout: GraphLayout, edges: Tensor, read: Tensor) -> list[Tensor]:
    """Nodes whose value reaches one of `read`, before each round and after the last: bool [nodes] each."""
    rows, columns = edges.shape
    now, states = read, [read]
    if layout.run == "blocks":
        for begin, end in reversed(list(_blocks(layout))):
            end, before = min(end, columns), now.clone()
            if begin < end:
                before[begin:end] |= _send(edges[:, begin:end].t(), now[layout.nodes - rows :])
            states.append(before)
            now = before
    elif layout.run == "steps":
        for _ in range(layout.steps):
            states.append(_send(edges.t(), states[-1]))
    else:
        now = _closure(edges.t(), now)
        states = [now, now]
    return states[::-1]


def turns(layout: GraphLayout, edges: Tensor) -> tuple[Round, ...]:
    """Who sends and who receives in each round, before it is asked which edges there are."""
    rows, columns = edges.shape
    nodes = torch.arange(max(rows, columns), device=edges.device)
    senders, receivers = nodes[:columns] >= 0, nodes[:rows] >= 0
    if layout.run == "blocks":
        return tuple(
            ((nodes[:columns] >= begin) & (nodes[:columns] < end), receivers) for begin, end in _blocks(layout)
        )
    found = [(senders, receivers)] * (layout.steps if layout.run == "steps" else 1)
    if layout.run == "steps":  # at first all others are zero, at last no others are read
        found[0] = nodes[:columns] < layout.inputs, found[0][1]
        found[-1] = found[-1][0], nodes[:rows] >= rows - layout.outputs
    return tuple(found)


def _blocks(layout: GraphLayout) -> Iterator[tuple[int, int]]:
    start = 0
    for size in layout.blocks:
        yield start, start + size
        start += size


def _send(edges: Tensor, senders: Tensor) -> Tensor:
    """Which destinations receive from the senders."""
    return edges[:, senders].any(dim=1)


def _closure(edges: Tensor, now: Tensor) -> Tensor:
    while True:
        after = now | _send(edges, now)
        if torch.equal(after, now):
            return now
        now = after


def _meet(layout: GraphLayout, edges: Tensor, reached: list[Tensor], useful: list[Tensor]) -> Paths:
    rows, columns = edges.shape
    nodes = torch.stack([r & u for r, u in zip(reached, useful, strict=True)]).any(dim=0)
    alive, rounds = torch.zeros_like(edges), []
    for i, (sends, receives) in enumerate(turns(layout, edges)):
        sends = sends & reached[i][:columns]
        receives = receives & useful[i + 1][layout.nodes - rows :]
        rounds.append((sends, receives))
        alive |= edges & sends & receives[:, None]
    return Paths(nodes, alive, tuple(rounds), reached[-1])
