"""A training step of the small wirings, static and discrete, beside the original's sequence of operations.

800 nodes, 32,000 edges, batch 128, random images of 32 x 32 pixels: forward, cross-entropy, backward, SGD with
momentum. Both sides start from the same parameters and are shown equal first: kept edges, loss, and the gradients of
all parameters. "static, compat" spends edges on positions that are never run, as the original does; "static" keeps
all 32,000 where the graph runs them (the original's other positions are zeros then, which it does not choose).

python -m bench.step_dnw [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

import hiddennet as hn
from bench import nets, table
from bench.harness import Unequal, same
from bench.originals_dnw import ChosenEdges, OriginalDiscrete, OriginalSmall, OriginalStatic
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet.models.dnw import DiscreteConfig, DiscreteGraph, SmallGraph, StaticConfig, StaticGraph
from hiddennet.optim import optimizers

BARS = {"static": 2.5, "static, compat": 2.5, "discrete": 3.0}  # times faster than the original; AVX2 is enough


@torch.no_grad()
def untie(model: nn.Module) -> None:
    """Move pruned weights that are as large as the smallest kept one below it: a sort keeps any of them."""
    for graph in hn.nn.wirings(model).values():
        weight, kept = graph.weight, graph.mask()
        tied = ~kept & (weight.abs() == weight.abs()[kept].min())
        weight[tied] = torch.nextafter(weight[tied], torch.zeros((), device=weight.device))


def trainees(ours: nn.Module, theirs: nn.Module, x: Tensor, labels: Tensor) -> tuple[nets.Trainee, nets.Trainee]:
    """Both on the same batch."""
    mine = nets.Trainee(ours, nets.sgd(ours), x, labels, update=optimizers.step)
    return mine, nets.Trainee(theirs, nets.sgd(theirs, default=True), x, labels)


def check(mine: nets.Trainee, theirs: nets.Trainee, rtol: float, part: Callable[[str], str]) -> None:
    """Same kept edges, loss and gradients; those of one `part` by name are compared together."""
    choosing = [module for module in theirs.model.modules() if hasattr(module, "pruned")]
    for i, (graph, other) in enumerate(zip(hn.nn.wirings(mine.model).values(), choosing, strict=True)):
        chosen = ChosenEdges.apply(other.weight.detach(), other.pruned)[:, :, 0, 0]
        same(f"kept edges of graph {i}", graph.mask(), chosen != 0)
    losses, found = nets.gradients(mine, theirs, of=lambda model: dict(model.named_parameters()))
    gradients = [{name.replace("graph.weight", "weight"): g for name, g in side.items()} for side in found]
    same("loss", losses[0], losses[1], rtol=min(rtol, 1e-3))
    if gradients[0].keys() != gradients[1].keys():
        raise Unequal(f"parameters: expected {sorted(gradients[1])}, got {sorted(gradients[0])}")
    for name in sorted({part(name) for name in gradients[1]}):
        got, want = (torch.cat([g.flatten() for n, g in side.items() if part(n) == name]) for side in gradients)
        same(f"gradients of {name}", got, want, rtol=rtol)


def models_of(what: str, device: torch.device, *, quick: bool) -> tuple[SmallGraph, OriginalSmall]:
    """Ours and the original's, of equal parameters."""
    torch.manual_seed(0)
    if what == "discrete":
        mine = DiscreteGraph(DiscreteConfig(steps=3) if quick else DiscreteConfig())
    else:
        config = StaticConfig(blocks=(32, 64, 128)) if quick else StaticConfig()
        mine = StaticGraph(replace(config, compat=True) if "compat" in what else replace(config, lateral=True))
    untie(mine)
    theirs = OriginalDiscrete(mine) if what == "discrete" else OriginalStatic(mine)
    return mine.to(device), theirs.to(device)


def stem_together(name: str) -> str:
    """Normalised behind, some of the stem's parameters have gradients of rounding alone."""
    return name.split(".")[0]


def cases(at: Setting) -> Iterator[Case]:
    torch.backends.cudnn.allow_tf32 = False
    batch = 4 if at.quick else 128
    for what, bar in BARS.items():
        x, labels = nets.data("cifar", batch, at.device, channels_last=False)
        ours, original = trainees(*models_of(what, at.device, quick=at.quick), x, labels)
        yield Case(
            f"{what} b{batch}",
            {"hiddennet": ours.step, "original": original.step},
            partial(check, ours, original, 1e-3, stem_together),
            [Claim("original", "hiddennet", at_least=bar)],
            effort=at.effort_of_steps(rounds=15, min_rounds=7),
        )


def main() -> None:
    table.main("step_dnw", Benchmark(cases, grad=True), __doc__)


if __name__ == "__main__":
    main()
