"""What the wirings of a network are made of: edges kept, run and on a path, dead nodes, degrees, multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddennet.nn.layout import Layout, layouts
from hiddennet.nn.wiring import Wiring, wirings

Round = tuple[Tensor, Tensor]  # bool [sources] that send, bool [destinations] that receive


@dataclass(frozen=True)
class Paths:
    """What of a wiring lies on a path of running edges from the network's inputs to its outputs.

    nodes: bool [nodes]; a node that is not is dead. edges: bool [destinations, sources]. rounds: who sends and who
    receives, round by round, of those.
    """

    nodes: Tensor
    edges: Tensor
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class WiringReport:
    """Counts of one wiring.

    Attributes:
        positions: of the weight. usable: those the graph can run. kept: edges of the mask. running: kept ones that the
            graph runs. alive: running ones on a path from the network's inputs to its outputs.
        nodes: but for those that are another wiring's outputs. dead_nodes: of them, those on no path.
        largest_in, largest_out: degrees, of running edges.
        multiply_adds: of one image: running edges and the operations of nodes that send over one (a "flow": of one
            evaluation of its right-hand side). alive_multiply_adds: of alive edges and nodes. None: size not known.
    """

    name: str
    kind: str
    positions: int
    usable: int
    kept: int
    running: int
    alive: int
    nodes: int
    dead_nodes: int
    largest_in: int
    largest_out: int
    multiply_adds: int | None
    alive_multiply_adds: int | None


@dataclass(frozen=True)
class Swaps:
    """How many edges one mask has and the other has not: `left` of the first alone, `entered` of the second alone."""

    left: int
    entered: int


def swaps(before: Tensor, after: Tensor) -> Swaps:
    """The edges that left and entered from mask to mask, bool of one shape. Raises ValueError for different shapes."""
    if before.shape != after.shape:
        raise ValueError(f"swaps: expected masks of one shape, got {tuple(before.shape)} and {tuple(after.shape)}")
    before, after = before.bool(), after.bool()
    return Swaps(int((before & ~after).count_nonzero()), int((after & ~before).count_nonzero()))


def degrees(running: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """In- and out-degree of each node, int64 [nodes] each, of running edges, bool [destinations, sources]."""
    into = torch.zeros(layout.nodes, dtype=torch.int64)
    out = torch.zeros(layout.nodes, dtype=torch.int64)
    into[layout.nodes - running.shape[0] :] = running.sum(dim=1).cpu()
    out[: running.shape[1]] = running.sum(dim=0).cpu()
    return into, out


@torch.no_grad()
def paths(model: nn.Module, running: dict[str, Tensor] | None = None) -> dict[str, Paths]:
    """What of each wiring lies on a path, on the CPU; wirings that feed each other are taken as one network.

    running: the edges, bool by wiring's name; None: each wiring's running().

    Weights' values make no difference, nor do constants: a node that no path leads to from the inputs is dead even
    where its bias makes it send something.
    """
    found = layouts(model)
    if running is None:
        running = {name: wiring.running() for name, wiring in wirings(model).items()}
    edges = {name: running[name].cpu() for name in found}
    reached: dict[str, list[Tensor]] = {}
    for name, layout in found.items():
        inputs = torch.ones(layout.inputs, dtype=torch.bool)
        if layout.after is not None:
            inputs = reached[layout.after][-1][-layout.inputs :]
        reached[name] = _reach(layout, edges[name], inputs)
    useful: dict[str, list[Tensor]] = {}
    for name, layout in reversed(found.items()):
        outputs = torch.ones(layout.outputs, dtype=torch.bool)
        following = [after for after, other in found.items() if other.after == name]
        if following:
            outputs = torch.stack([useful[after][0][: layout.outputs] for after in following]).any(dim=0)
        useful[name] = _use(layout, edges[name], outputs)
    return {name: _meet(layout, edges[name], reached[name], useful[name]) for name, layout in found.items()}


def _spans(layout: Layout) -> Iterator[tuple[int, int]]:
    start = 0
    for size in layout.blocks:
        yield start, start + size
        start += size


def _send(edges: Tensor, senders: Tensor) -> Tensor:
    """Which destinations receive from the senders."""
    return edges[:, senders].any(dim=1)


def _reach(layout: Layout, edges: Tensor, inputs: Tensor) -> list[Tensor]:
    """Nodes that the inputs have reached, before each round and after the last: bool [nodes] each."""
    rows, columns = edges.shape
    now = torch.zeros(layout.nodes, dtype=torch.bool)
    now[: layout.inputs] = inputs
    states = [now]
    if layout.run == "blocks":
        for start, stop in _spans(layout):
            senders = torch.zeros(columns, dtype=torch.bool)
            senders[start : min(stop, columns)] = now[start : min(stop, columns)]
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


def _use(layout: Layout, edges: Tensor, outputs: Tensor) -> list[Tensor]:
    """Nodes whose value reaches an output, before each round and after the last: bool [nodes] each."""
    rows, columns = edges.shape
    now = torch.zeros(layout.nodes, dtype=torch.bool)
    now[layout.nodes - layout.outputs :] = outputs
    states = [now]
    if layout.run == "blocks":
        for start, stop in reversed(list(_spans(layout))):
            stop, before = min(stop, columns), now.clone()
            if start < stop:
                before[start:stop] |= _send(edges[:, start:stop].t(), now[layout.nodes - rows :])
            states.append(before)
            now = before
    elif layout.run == "steps":
        for _ in range(layout.steps):
            states.append(_send(edges.t(), states[-1]))
    else:
        now = _closure(edges.t(), now)
        states = [now, now]
    return states[::-1]


def _closure(edges: Tensor, now: Tensor) -> Tensor:
    while True:
        after = now | _send(edges, now)
        if torch.equal(after, now):
            return now
        now = after


def _meet(layout: Layout, edges: Tensor, reached: list[Tensor], useful: list[Tensor]) -> Paths:
    rows, columns = edges.shape
    nodes = torch.stack([r & u for r, u in zip(reached, useful, strict=True)]).any(dim=0)
    senders, receivers = _turns(layout, rows, columns)
    alive, rounds = torch.zeros_like(edges), []
    for i, (sends, receives) in enumerate(zip(senders, receivers, strict=True)):
        sends = sends & reached[i][:columns]
        receives = receives & useful[i + 1][layout.nodes - rows :]
        rounds.append((sends, receives))
        alive |= edges & sends & receives[:, None]
    return Paths(nodes, alive, tuple(rounds))


def _turns(layout: Layout, rows: int, columns: int) -> tuple[list[Tensor], list[Tensor]]:
    """Who sends and who receives in each round, before it is asked which edges there are."""
    everybody = torch.ones(columns, dtype=torch.bool), torch.ones(rows, dtype=torch.bool)
    if layout.run == "blocks":
        senders = []
        for start, stop in _spans(layout):
            senders.append(torch.zeros(columns, dtype=torch.bool))
            senders[-1][start:stop] = True
        return senders, [everybody[1]] * len(senders)
    rounds = layout.steps if layout.run == "steps" else 1
    senders, receivers = [everybody[0]] * rounds, [everybody[1]] * rounds
    if layout.run == "steps":  # at first all others are zero, at last no others are read
        senders[0] = torch.arange(columns) < layout.inputs
        receivers[-1] = torch.arange(rows) >= rows - layout.outputs
    return senders, receivers


def _multiply_adds(layout: Layout, edges: Tensor, rounds: tuple[Round, ...], pixels: int | None) -> int | None:
    if pixels is None:
        return None
    total = 0
    for sends, receives in rounds:
        used = edges[receives][:, sends]
        total += int(used.count_nonzero()) + layout.operation * int(used.any(dim=0).count_nonzero())
    return total * pixels


@torch.no_grad()
def wiring_report(model: nn.Module, image_size: int | None = None) -> list[WiringReport]:
    """Return the counts of each wiring of a model, in the order they are run.

    image_size: of square images, for multiply-adds; None: the network's (`config.image_size`, `architecture`).
    """
    held = wirings(model)
    running = {name: wiring.running().cpu() for name, wiring in held.items()}
    alive, size = paths(model, running), image_size if image_size is not None else size_of(model)
    reports = []
    for name, layout in layouts(model).items():
        reports.append(_report(name, held[name], layout, running[name], alive[name], layout.pixels(size)))
    return reports


def _report(
    name: str, wiring: Wiring, layout: Layout, running: Tensor, found: Paths, pixels: int | None
) -> WiringReport:
    into, out = degrees(running, layout)
    own = found.nodes[layout.own]
    turns = tuple(zip(*_turns(layout, *running.shape), strict=True))
    return WiringReport(
        name=name,
        kind=wiring.kind,
        positions=running.numel(),
        usable=running.numel() if wiring.usable is None else int(wiring.usable.count_nonzero()),
        kept=int(wiring.mask().count_nonzero()),
        running=int(running.count_nonzero()),
        alive=int(found.edges.count_nonzero()),
        nodes=own.numel(),
        dead_nodes=own.numel() - int(own.count_nonzero()),
        largest_in=int(into.max()),
        largest_out=int(out.max()),
        multiply_adds=_multiply_adds(layout, running, turns, pixels),
        alive_multiply_adds=_multiply_adds(layout, running, found.rounds, pixels),
    )


def size_of(model: nn.Module) -> int | None:
    """The images' side that a network was made for; None: not known."""
    size = getattr(getattr(model, "config", None), "image_size", None)
    return size if size is not None else getattr(model, "architecture", {}).get("image_size")


def dead_nodes(model: nn.Module) -> int:
    """How many nodes of all wirings are on no path from the network's inputs to its outputs."""
    found = paths(model)
    return sum(int((~found[name].nodes[layout.own]).count_nonzero()) for name, layout in layouts(model).items())


HEAD = ("wiring", "kind", "usable", "kept", "run", "alive", "nodes", "dead", "in at most", "out at most")
HEAD += ("multiply-adds", "alive of them")


def cells(report: WiringReport) -> tuple[str, ...]:
    """The report as text, one cell for each of HEAD."""
    counts = (report.usable, report.kept, report.running, report.alive, report.nodes, report.dead_nodes)
    counts += (report.largest_in, report.largest_out)
    work = [report.multiply_adds, report.alive_multiply_adds]
    return (report.name, report.kind, *(f"{n:,}" for n in counts), *("-" if n is None else f"{n:,}" for n in work))
