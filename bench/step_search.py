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
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn
from bench import nets, originals, originals_gem_miner, table
from bench.harness import Timing, Unequal, Work, captured, same
from bench.step import DENSE_BAR, RTOL, full_float32
from bench.table import Benchmark, Case, Claim, Setting, Value
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
    theirs = nets.original_trainee(mine, name, layer=originals.KthvalueConv2d)
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
        weight = layer.source.state(layer).weight(device=mine.x.device)
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


def steps(at: Setting, works: dict[str, Work], sides: dict[str, nets.Trainee]) -> dict[str, Work]:
    """Steps to time: `works` as they are, on a GPU those of `sides` as a graph of their step."""
    return works if at.on_cpu else {**works, **{name: captured([side.step]) for name, side in sides.items()}}


def iterand_cases(at: Setting) -> Iterator[Case]:
    name, batch = ("conv2", 4) if at.quick else ("cifar_resnet18", 128)
    rtol, sides = RTOL[at.device.type], {}
    for init in INITS:
        model = build_iterand(name, init, at.device)
        mine, dense = nets.trainees(name, batch, at.device, channels_last=False, model=model)
        original = original_iterand(mine, name)
        with full_float32():
            nets.check_dense(mine, dense, rtol)
            nets.check_original(mine, original, rtol)
        sides |= {f"hiddennet, {init}": mine, "dense": dense}
    works = {variant: side.step for variant, side in {**sides, "original": original}.items()}
    what, step = f"iterand {name} b{batch}", {}
    claims = []
    for init in INITS:
        claims += [Claim(f"hiddennet, {init}", "dense", at_most=DENSE_BAR), Claim("original", f"hiddennet, {init}")]

    def keep(times: Mapping[str, Timing]) -> tuple[Value, ...]:
        step.update({init: times[f"hiddennet, {init}"].median for init in INITS})
        return ()

    slow = at.effort_of_steps(rounds=21, budget_s=60.0)
    yield Case(what, steps(at, works, sides), claims=claims, values=keep, effort=slow)
    for init in INITS:  # its own time, and the share of a step that a redraw every PERIOD steps adds to each
        alone = f"a redraw, {init}"

        def share(times: Mapping[str, Timing], init: str = init, alone: str = alone) -> tuple[Value, ...]:
            part = 100 * times[alone].median / PERIOD / step[init]
            return (Value(f"1/{PERIOD} of a redraw, {init}", part, "% of the step"),)

        yield Case(what, {alone: redraws(sides[f"hiddennet, {init}"].model)}, values=share)


def gem_miner_cases(at: Setting) -> Iterator[Case]:
    name, batch = "resnet20", 4 if at.quick else 128
    near, far, sides = RTOL[at.device.type], 10 * RTOL[at.device.type], {}
    for layout in ("", ", channels_last"):
        model, last = build_gem_miner(name, at.device), layout != ""
        mine, dense = nets.trainees(name, batch, at.device, channels_last=last, model=model, optimizer=score_sgd)
        original = original_gem_miner(mine, originals.build(name, originals_gem_miner.GemMinerConv2d))
        with full_float32():
            nets.check_dense(mine, dense, near)
            # convolutions of the two formats sum in other orders, so that a few ReLUs open on one side only
            nets.check_original(mine, original, far if last else near)
            check_step(mine, original, far)  # small differences of scores that were rounded to float32
        sides |= {f"hiddennet{layout}": mine, f"dense{layout}": dense}
    works = {**{variant: metered(side) for variant, side in sides.items()}, "original": original.step}
    same_work = "no bar: nearly all of the step is convolutions and batch norm, which both sides have in this format"
    yield Case(
        f"gem_miner {name} b{batch}",
        steps(at, works, sides),
        claims=[
            Claim("hiddennet", "dense", at_most=DENSE_BAR),
            Claim("hiddennet, channels_last", "dense, channels_last", at_most=DENSE_BAR),
            Claim("original", "hiddennet", note=same_work if at.on_cpu else None),
            Claim("original", "hiddennet, channels_last", at_least=GEM_MINER_BAR),
        ],
        effort=at.effort_of_steps(rounds=21, budget_s=60.0),
    )


METHODS = {"iterand": iterand_cases, "gem_miner": gem_miner_cases}


def cases(at: Setting) -> Iterator[Case]:
    for method in at.args.only:
        yield from METHODS[method](at)


def main() -> None:
    only = {"nargs": "+", "choices": tuple(METHODS), "metavar": "METHOD", "default": tuple(METHODS)}
    table.main("step_search", Benchmark(cases, grad=True), __doc__, {"--only": only})


if __name__ == "__main__":
    main()
