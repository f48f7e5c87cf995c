"""Reachability: which nodes and edges of a network of wirings lie on a path from its inputs to its outputs.

Everything that asks what is dead asks here: the analysis of wirings, the graphs' own counts and checks, and compaction
(which also knows which weights are zero). Node by node and round by round, on masks, without weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hiddennet.nn.graph_layout import GraphLayout

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
        layouts: by wiring's name, in the order they are run, see `hiddennet.nn.graph_layout.layouts`.
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
