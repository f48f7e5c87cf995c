"""A training step of the small wirings, static and discrete, beside the original's sequence of operations.

800 nodes, 32,000 edges, batch 128, random images of 32 x 32 pixels: forward, cross-entropy, backward, SGD with
momentum. Both sides start from the same parameters and are shown equal first: kept edges, loss, and the gradients of
all parameters. "static, compat" spends edges on positions that are never run, as the original does; "static" keeps
all 32,000 where the graph runs them (the original's other positions are zeros then, which it does not choose).

python -m bench.step_dnw [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bench import nets
from bench.harness import Effort, Unequal, device_of, measure, parser, same
from bench.originals_dnw import ChosenEdges, OriginalDiscrete, OriginalSmall, OriginalStatic
from bench.report import Report
from bench.step import claim
from hiddennet.models.dnw import DiscreteConfig, DiscreteGraph, SmallGraph, StaticConfig, StaticGraph
from hiddennet.optim import optimizers

BARS = {"static": 1.15, "static, compat": 1.15, "discrete": 1.12}  # times faster than the original


def models_of(what: str, device: torch.device, *, quick: bool) -> tuple[SmallGraph, OriginalSmall]:
    """Ours and the original's, of equal parameters."""
    torch.manual_seed(0)
    if what == "discrete":
        config = DiscreteConfig(steps=3) if quick else DiscreteConfig()
        mine = DiscreteGraph(config)
    else:
        config = StaticConfig(blocks=(32, 64, 128)) if quick else StaticConfig()
        mine = StaticGraph(replace(config, compat=True) if "compat" in what else replace(config, lateral=True))
    untie(mine)
    theirs = OriginalDiscrete(mine) if what == "discrete" else OriginalStatic(mine)
    return mine.to(device), theirs.to(device)


@torch.no_grad()
def untie(model: SmallGraph) -> None:
    """Move pruned weights that are as large as the smallest kept one below it: a sort keeps any of them."""
    weight, kept = model.graph.weight, model.graph.mask()
    tied = ~kept & (weight.abs() == weight.abs()[kept].min())
    weight[tied] = torch.nextafter(weight[tied], torch.zeros(()))


def check(mine: nets.Trainee, theirs: nets.Trainee, rtol: float) -> None:
    """Same kept edges, loss and gradients."""
    graph, other = mine.model.graph, theirs.model
    chosen = ChosenEdges.apply(other.weight.detach(), other.pruned)[:, :, 0, 0]
    same("kept edges", graph.mask(), chosen != 0)
    losses, gradients = [], []
    for trainee in (mine, theirs):
        loss = trainee.loss()
        parameters = dict(trainee.model.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()))
        gradients.append(dict(zip((n.removeprefix("graph.") for n in parameters), found, strict=True)))
        losses.append(loss.detach())
    same("loss", losses[0], losses[1], rtol=1e-5)
    if gradients[0].keys() != gradients[1].keys():
        raise Unequal(f"parameters: expected {sorted(gradients[1])}, got {sorted(gradients[0])}")
    for part in sorted({name.split(".")[0] for name in gradients[1]}):
        # of the stem together: normalised behind, some of its parameters have gradients of rounding alone
        got, want = (torch.cat([g.flatten() for n, g in side.items() if n.startswith(part)]) for side in gradients)
        same(f"gradients of {part}", got, want, rtol=rtol)


def compare(report: Report, what: str, batch: int, device: torch.device, effort: Effort, *, quick: bool) -> None:
    torch.backends.cudnn.allow_tf32 = False
    x, labels = nets.data("cifar", batch, device, channels_last=False)
    mine, theirs = models_of(what, device, quick=quick)
    ours = nets.Trainee(mine, nets.sgd(mine), x, labels, update=optimizers.step)
    original = nets.Trainee(theirs, nets.sgd(theirs, default=True), x, labels)
    works = {"hiddennet": ours.step, "original": original.step}
    times = measure(works, check=lambda: check(ours, original, 1e-3), device=device, effort=effort)
    named = f"{what} b{batch}"
    report.timings(named, times)
    claim(report, named, times, "original", "hiddennet", at_least=BARS[what])


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    report = Report("step_dnw", args, device)
    slow = Effort(rounds=15, min_rounds=7, warmup=1, budget_s=45.0, sample_s=0.0)
    effort = Effort.quick() if args.quick else (slow if device.type == "cpu" else Effort(warmup=10, budget_s=6.0))
    for what in BARS:
        compare(report, what, 4 if args.quick else 128, device, effort, quick=args.quick)
    report.close()


if __name__ == "__main__":
    main()
