"""What the wirings of a network are made of: edges kept, run and on a path, dead nodes, degrees, multiply-adds."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiddennet.nn import reach
from hiddennet.nn.reach import GraphLayout, layouts
from hiddennet.nn.wiring import Wiring, wirings


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


def degrees(running: Tensor, layout: GraphLayout) -> tuple[Tensor, Tensor]:
    """In- and out-degree of each node, int64 [nodes] each, of running edges, bool [destinations, sources]."""
    into = torch.zeros(layout.nodes, dtype=torch.int64)
    out = torch.zeros(layout.nodes, dtype=torch.int64)
    into[layout.nodes - running.shape[0] :] = running.sum(dim=1).cpu()
    out[: running.shape[1]] = running.sum(dim=0).cpu()
    return into, out


@torch.no_grad()
def paths(model: nn.Module, running: dict[str, Tensor] | None = None) -> dict[str, reach.Paths]:
    """What of each wiring lies on a path, on the CPU; wirings that feed each other are taken as one network.

    running: the edges, bool by wiring's name; None: each wiring's running().

    Weights' values make no difference, nor do constants: a node that no path leads to from the inputs is dead even
    where its bias makes it send something.
    """
    found = layouts(model)
    if running is None:
        running = {name: wiring.running() for name, wiring in wirings(model).items()}
    return reach.paths(found, {name: running[name].cpu() for name in found})


def _multiply_adds(
    layout: GraphLayout, edges: Tensor, rounds: tuple[reach.Round, ...], pixels: int | None
) -> int | None:
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
    name: str, wiring: Wiring, layout: GraphLayout, running: Tensor, found: reach.Paths, pixels: int | None
) -> WiringReport:
    into, out = degrees(running, layout)
    own = found.nodes[layout.own]
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
        multiply_adds=_multiply_adds(layout, running, reach.turns(layout, running), pixels),
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
