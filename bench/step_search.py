"""A training step of IteRand and of Gem-Miner, beside the same dense step and beside the original's sequence.

Batch 128, random images, no data loading; all sides are shown equal first: masks, loss, score gradients, and for
Gem-Miner what a step with its regulariser does to the scores. IteRand: ResNet-18, density 0.4, drawn weights and signs;
a redraw is timed alone, and what it adds to a step when there is one every 300. Gem-Miner: ResNet-20 of which a fifth
of the weights is left, in both memory formats (the original's is contiguous); the steps count losses and hits as their
trainers do. On a GPU ours and the dense one run as CUDA graphs, which count nothing.

python -m bench.step_search [--only iterand gem_miner] [--device] [--json PATH] [--quick]
"""

from __future__ import annotations

import itertools
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn
from bench import nets, originals, originals_gem_miner
from bench.harness import Effort, Timing, Unequal, Work, captured, device_of, measure, parser, same
from bench.report import Report
from bench.step import DENSE_BAR, RTOL, claim, full_float32
from hiddennet import models, ops, optim
from hiddennet.methods import hc, iterand
from hiddennet.optim import optimizers
from hiddennet.train.scores import Meter

INITS = ("kaiming_uniform", "signed_constant")
REVEALED, REDRAW_RATE, PERIOD = 0.4, 0.1, 300
LEFT, L2, LR = 0.2, 1e-4, 0.1  # density by flags, lambda, rate of the compared step
GEM_MINER_BAR = 1.1  # times faster than the original


def build_iterand(name: str, init: str, device: torch.device) -> nn.Module:
    """As the method `iterand` makes it: kth-value rule, scores of IteRand's range."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=10, batch_norm="non_affine")
    fill = iterand.score_filler("kaiming_uniform", 1.0)
    return hn.hide(model, hn.Redrawn(init, seed=0), hn.KthValue(REVEALED), score_init=fill).to(device)


def original_iterand(mine: nets.Trainee, name: str) -> nets.Trainee:
    """IteRand's network. Its weights require gradients, which nobody asks for and nobody empties."""
    theirs = nets.original_trainee(mine, name, layer=partial(originals.KthvalueConv2d, density=REVEALED))
    for layer in nets.weighted(theirs.model):
        layer.weight.requires_grad = True
    return theirs


def redraws(model: nn.Module) -> Work:
    """A redraw of the whole network, selection included, of a number that no weight carries yet."""
    numbers = itertools.cycle(range(1, ops.MAX_NOTED_REDRAW + 1))
    return lambda: hn.redraw(model, next(numbers), rate=REDRAW_RATE)


def build_gem_miner(name: str, device: torch.device) -> nn.Module:
    """As the method `gem_miner` makes it: signs, rounded uniform scores; a fifth is not struck out."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=10, batch_norm="non_affine")
    fill = hc.score_filler("uniform")
    hn.hide(model, hn.Generated("signed_constant", seed=0), hn.Rounded(), score_init=fill)
    for layer in nets.hidden_list(model):
        layer.flags.copy_(ops.pack_mask(torch.rand(layer.weight_shape) < LEFT))
    return model.to(device)


def score_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """As the method makes it: regulariser and clamp in the step, scores that were struck out left alone."""
    layers = nets.hidden_list(model)
    made = optim.ScoreSGD([layer.scores for layer in layers], LR, momentum=0.9, l2=L2)
    made.set_flags({layer.scores: layer.flags for layer in layers})
    return made


@torch.no_grad()
def original_gem_miner(mine: nets.Trainee, twin: nn.Module) -> originals_gem_miner.OriginalTrainee:
    """The original's training of `twin`, which gets this model's weights, scores and flags."""
    twin = twin.to(mine.x.device)
    for layer, theirs in zip(nets.hidden_list(mine.model), nets.weighted(twin), strict=True):
        weight = layer.source_state().weight(device=mine.x.device)
        theirs.weight.copy_(weight.view(theirs.weight.shape))
        theirs.scores.copy_(layer.scores.view(theirs.scores.shape))
        theirs.flag.copy_(ops.unpack_mask(layer.flags, layer.weight_shape).view(theirs.flag.shape))
    made = originals_gem_miner.sgd(twin, LR)
    return originals_gem_miner.OriginalTrainee(twin, made, mine.x.contiguous(), mine.labels, l2=L2)


def check_step(mine: nets.Trainee, theirs: originals_gem_miner.OriginalTrainee, rtol: float) -> None:
    """A step moves the scores that are not struck out alike, regulariser and clamp included, and ours no others."""
    layers, others = nets.hidden_list(mine.model), nets.weighted(theirs.model)
    before = [layer.scores.detach().clone() for layer in layers]
    mine.step()
    theirs.step()
    theirs.clamp()  # the original clamps before a step
    for i, (layer, other, old) in enumerate(zip(layers, others, before, strict=True)):
        flags = ops.unpack_mask(layer.flags, layer.weight_shape)
        moved = layer.scores.detach() - old
        want = other.scores.detach().view_as(old) - old
        same(f"what a step adds to the scores of layer {i}", moved[flags], want[flags], rtol=rtol)
        if moved[~flags].count_nonzero():
            raise Unequal(f"scores of layer {i}: expected those that are struck out to stay, got a step")
    for optimizer in (mine.optimizer, theirs.optimizer):
        for group in optimizer.param_groups:
            group["lr"] = nets.RATE


def metered(trainee: nets.Trainee) -> Work:
    """A step in the order of hiddennet's trainer, which sums losses and hits on the device."""
    meter, images = Meter(trainee.x.device), trainee.labels.numel()

    def step() -> None:
        trainee.optimizer.zero_grad(set_to_none=True)
        logits = trainee.model(trainee.x)
        loss = F.cross_entropy(logits, trainee.labels, reduction="sum")
        (loss / images).backward()
        meter.add(loss, logits, trainee.labels)
        optimizers.step(trainee.optimizer)

    return step


def timed(
    works: dict[str, Work], trainees: dict[str, nets.Trainee], device: torch.device, effort: Effort
) -> dict[str, Timing]:
    """Time steps, interleaved: `works` as they are, of `trainees` on a GPU a graph of their step."""
    if device.type == "cuda":
        works = {**works, **{name: captured([trainee.step]) for name, trainee in trainees.items()}}
    return measure(works, check=None, device=device, effort=effort)


def run_iterand(report: Report, name: str, batch: int, device: torch.device, effort: Effort) -> None:
    sides: dict[str, nets.Trainee] = {}
    for init in INITS:
        model = build_iterand(name, init, device)
        mine, dense = nets.trainees(name, batch, device, channels_last=False, model=model)
        original = original_iterand(mine, name)
        with full_float32():
            nets.check_dense(mine, dense, RTOL[device.type])
            nets.check_original(mine, original, RTOL[device.type])
        sides |= {f"hiddennet, {init}": mine, "dense": dense}
    works = {variant: side.step for variant, side in {**sides, "original": original}.items()}
    times = timed(works, sides, device, effort)
    what = f"iterand {name} b{batch}"
    report.timings(what, times)
    for init in INITS:
        claim(report, what, times, f"hiddennet, {init}", "dense", at_most=DENSE_BAR)
        claim(report, what, times, "original", f"hiddennet, {init}")
    for init in INITS:
        step = times[f"hiddennet, {init}"]
        report_redraw(report, what, init, sides[f"hiddennet, {init}"].model, step, device)


def report_redraw(report: Report, what: str, init: str, model: nn.Module, step: Timing, device: torch.device) -> None:
    """A redraw's own time, and the share of a step that a redraw every PERIOD steps adds to each."""
    effort = Effort.quick() if report.quick else Effort()
    alone = measure({f"a redraw, {init}": redraws(model)}, check=None, device=device, effort=effort)
    report.timings(what, alone)
    (once,) = alone.values()
    share = 100 * once.median / PERIOD / step.median
    report.value(what, f"1/{PERIOD} of a redraw, {init}", share, "% of the step")


def run_gem_miner(report: Report, name: str, batch: int, device: torch.device, effort: Effort) -> None:
    sides: dict[str, nets.Trainee] = {}
    for layout in ("", ", channels_last"):
        model, last = build_gem_miner(name, device), layout != ""
        mine, dense = nets.trainees(name, batch, device, channels_last=last, model=model, optimizer=score_sgd)
        original = original_gem_miner(mine, originals_gem_miner.ResNet20())
        near, far = RTOL[device.type], 10 * RTOL[device.type]
        with full_float32():
            nets.check_dense(mine, dense, near)
            # convolutions of the two formats sum in other orders, so that a few ReLUs open on one side only
            nets.check_original(mine, original, far if last else near)
            check_step(mine, original, far)  # small differences of scores that were rounded to float32
        sides |= {f"hiddennet{layout}": mine, f"dense{layout}": dense}
    works = {variant: metered(side) for variant, side in sides.items()}
    times = timed({**works, "original": original.step}, sides, device, effort)
    what = f"gem_miner {name} b{batch}"
    report.timings(what, times)
    claim(report, what, times, "hiddennet", "dense", at_most=DENSE_BAR)
    claim(report, what, times, "hiddennet, channels_last", "dense, channels_last", at_most=DENSE_BAR)
    same_work = "no bar: nearly all of the step is convolutions and batch norm, which both sides have in this format"
    claim(report, what, times, "original", "hiddennet", note=same_work if device.type == "cpu" else None)
    claim(report, what, times, "original", "hiddennet, channels_last", at_least=GEM_MINER_BAR)


# method -> its run, the network, the one that shows that it runs
RUNS = {
    "iterand": (run_iterand, "cifar_resnet18", "conv2"),
    "gem_miner": (run_gem_miner, "resnet20", "resnet20"),
}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--only", nargs="+", choices=tuple(RUNS), metavar="METHOD", default=tuple(RUNS))
    args = flags.parse_args()
    device = device_of(args)
    torch.backends.cudnn.benchmark = True
    report = Report("step_search", args, device)
    for method in args.only:
        run, full, small = RUNS[method]
        effort = Effort(warmup=10, budget_s=6.0)
        if device.type == "cpu":
            effort = Effort(rounds=21, min_rounds=5, warmup=1, budget_s=60.0, sample_s=0.0)
        if args.quick:
            run(report, small, 4, device, Effort.quick())
        else:
            run(report, full, 128, device, effort)
    report.close()


if __name__ == "__main__":
    main()
