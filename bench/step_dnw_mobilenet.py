"""A training step of the MobileNet-like wiring, beside the original's sequence and beside plain MobileNetV1.

Width 0.225, 224 pixels, batch 8, random images, no data loading. A step is forward, cross-entropy, backward and SGD
with momentum. Ours with compat and the original start from the same weights and are shown equal first: kept edges, loss
and gradients. Ours without compat, whose edges are all ones that run, is timed beside them.

python -m bench.step_dnw_mobilenet [--device] [--json PATH] [--quick]
"""

from __future__ import annotations

import torch

from bench import nets, originals_dnw
from bench.harness import Effort, Unequal, device_of, measure, parser, same
from bench.report import Report
from bench.step import RTOL, claim
from hiddennet import models
from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph
from hiddennet.models.dnw.mobilenet_config import STAGES
from hiddennet.optim import optimizers

WIDTH, SIZE = 0.225, 224
QUICK = (0.6, ((8, 16, 1, 1), (16, 32, 2, 2), (32, 64, 2, 2), (64, 64, 2, 4), (64, 128, 2, 2)))  # other sizes'
# A ReLU that one side rounds to 0 and the other does not moves gradients by percents: float32, on either side, is 4 %
# of a tensor's largest gradient off float64. tests/models compare all gradients in float64, to 1e-10.
KINKS = 0.05
ORIGINAL_BAR = 2.0  # times faster than the original, on a CPU


def mine(batch: int, size: int, device: torch.device, *, compat: bool) -> nets.Trainee:
    torch.manual_seed(0)
    width, stages = (WIDTH, STAGES) if size == SIZE else QUICK
    model = MobileNetGraph(MobileNetConfig(width=width, image_size=size, compat=compat, stages=stages)).to(device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((batch, 3, size, size), generator=generator).to(device)
    labels = torch.randint(1000, (batch,), generator=generator).to(device)
    return nets.Trainee(model, nets.sgd(model), x, labels, update=optimizers.step)


def beside(first: nets.Trainee, model: torch.nn.Module) -> nets.Trainee:
    model = model.to(first.x.device)
    return nets.Trainee(model, nets.sgd(model, default=True), first.x, first.labels)


@torch.no_grad()
def untie(model: MobileNetGraph) -> None:
    """Move pruned weights that equal the lowest kept one below it: which of them are kept is not defined there."""
    for layer in model.layers:
        weight, kept = layer.graph.weight, layer.graph.mask()
        tied = ~kept & (weight.abs() == weight.abs()[kept].min())
        weight[tied] = torch.nextafter(weight[tied], torch.zeros_like(weight[tied]))


def check(ours: nets.Trainee, theirs: nets.Trainee, rtol: float) -> None:
    """Same kept edges, loss and gradients."""
    for i, (layer, other) in enumerate(zip(ours.model.layers, theirs.model.layers, strict=True)):
        want = originals_dnw.ChosenEdges.apply(other.weight.detach(), other.pruned)[:, :, 0, 0] != 0
        same(f"kept edges of stage {i}", layer.graph.mask(), want)
    found = []
    for trainee in (ours, theirs):
        loss = trainee.loss()
        parameters = dict(trainee.model.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        named = {name.replace("graph.weight", "weight"): g for name, g in zip(parameters, gradients, strict=True)}
        found.append((loss.detach(), named))
    (loss, mine), (other, theirs) = found
    same("loss against the original", loss, other, rtol=rtol)
    if mine.keys() != theirs.keys():
        raise Unequal(f"gradients: expected the same parameters, got {sorted(mine.keys() ^ theirs.keys())[:4]}")
    for name, gradient in mine.items():
        want = theirs[name].flatten()
        gap = (gradient.flatten() - want).norm() / want.norm()
        if not gap <= KINKS:
            raise Unequal(f"gradient of {name}: expected a difference of at most {KINKS} of its norm, got {gap:.3g}")


def untied(batch: int, size: int, device: torch.device) -> tuple[nets.Trainee, nets.Trainee]:
    """Ours with compat and the original, of equal weights."""
    ours = mine(batch, size, device, compat=True)
    untie(ours.model)
    return ours, beside(ours, originals_dnw.OriginalMobileNet(ours.model))


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    report = Report("step_dnw_mobilenet", args, device)
    batch, size = (4, 48) if args.quick else (8, SIZE)
    compat, original = untied(batch, size, device)
    plain = models.build("mobilenet_v1", num_classes=1000, image_size=size, bias=True)
    works = {
        "hiddennet": mine(batch, size, device, compat=False).step,
        "hiddennet, compat": compat.step,
        "original": original.step,
        "plain MobileNetV1": beside(compat, plain).step,
    }
    slow = Effort(rounds=9, min_rounds=5, warmup=1, budget_s=60.0, sample_s=0.0)
    effort = Effort.quick() if args.quick else slow
    equal = lambda: check(compat, original, RTOL[device.type])  # noqa: E731
    times = measure(works, check=equal, device=device, effort=effort)
    what = f"MobileNet-like x{compat.model.config.width} {size} px b{batch}"
    report.timings(what, times)
    bar = {"at_least": ORIGINAL_BAR} if device.type == "cpu" and not args.quick else {}
    claim(report, what, times, "original", "hiddennet", **bar)
    claim(report, what, times, "original", "hiddennet, compat", **bar)
    report.close()


if __name__ == "__main__":
    main()
