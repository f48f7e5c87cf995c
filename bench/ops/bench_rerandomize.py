"""Redrawing a network's unrevealed weights, selection included, against IteRand's sequence of operations.

python -m bench.ops.bench_rerandomize [--device cpu|cuda] [--json PATH] [--quick]

The rate is 0.1 and the density 0.4, as in IteRand's CIFAR experiments. Signs are a plane of bits; other weights are
float32, with an int16 beside each that says which redraw it carries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench import originals
from bench.harness import Effort, Unequal, Work, copy_bandwidth, device_of, measure, parser, ratio, same
from bench.ops.cases import network, swinging, walk
from bench.report import Report
from hiddennet import ops

INITS = ("signed_constant", "kaiming_uniform", "kaiming_normal")
STATES = 4
REMOVED, RATE = 0.6, 0.1
BARS = {"signed_constant": 30, "kaiming_uniform": 30}  # what IteRand's experiments draw


class Ours:
    """topk_select (warm) and rerandomize_ over all layers: two calls."""

    def __init__(self, states: list[list[Tensor]], init: str):
        self.states, self.init = states, init
        first = states[0]
        self.inits = [ops.init_scale(tuple(s.shape), init) for s in first]
        self.k = [s.numel() - round(REMOVED * (s.numel() - 1)) for s in first]
        self.layers = list(range(len(first)))
        self.redraw = 0
        self.weights, self.redraws = [], None
        for layer, s in enumerate(first):
            source = ops.WeightSource.generate(tuple(s.shape), init, seed=0, layer=layer, device=s.device)
            self.weights.append(source.weight(device=s.device) if source.plane is None else source.plane)
        if init != "signed_constant":
            self.redraws = [torch.zeros_like(s, dtype=torch.int16) for s in first]
        self.hint = ops.topk_select(first, self.k, by="value")

    def step(self, i: int) -> Tensor:
        rows = ops.topk_select(self.states[i], self.k, by="value", hint=self.hint)
        self.hint.copy_(rows)
        rows[:, 1] = 0  # the kth-value rule: ties at the threshold are kept
        self.redraw = self.redraw % ops.MAX_NOTED_REDRAW + 1
        ops.rerandomize_(
            self.weights,
            self.states[i],
            rows,
            self.inits,
            seed=0,
            layers=self.layers,
            redraw=self.redraw,
            rate=RATE,
            redraws=self.redraws,
        )
        return rows

    def dense(self) -> list[Tensor]:
        """The weights as floats, a copy."""
        if self.redraws is not None:
            return [w.clone() for w in self.weights]
        planes = zip(self.weights, self.states[0], self.inits, strict=True)
        return [torch.where(ops.unpack_mask(w, s.shape), -i.scale, i.scale) for w, s, i in planes]


class Theirs:
    """The original's sequence, a layer after the other."""

    def __init__(self, states: list[list[Tensor]], init: str, weights: list[Tensor]):
        self.states, self.init = states, init
        self.weights = weights
        self.twins = [torch.empty_like(w) for w in weights]
        self.zeros = [torch.zeros(w.shape) for w in weights]  # on the CPU, as there
        self.ones = [torch.ones(w.shape) for w in weights]

    def step(self, i: int) -> None:
        parts = zip(self.weights, self.twins, self.states[i], self.zeros, self.ones, strict=True)
        for w, twin, s, zeros, ones in parts:
            originals.redraw_(w, twin, s, zeros, ones, REMOVED, self.init, RATE)


def check_redrawn(name: str, init: str, before: list[Tensor], after: list[Tensor], kept: list[Tensor]) -> None:
    """Revealed weights are the same; of the others the share at `RATE` changed (signs: half of that)."""
    share = RATE / 2 if init == "signed_constant" else RATE
    changed = unrevealed = 0
    for layer, (a, b, k) in enumerate(zip(before, after, kept, strict=True)):
        same(f"{name}: revealed weights of layer {layer}", b[k], a[k])
        changed += int((a != b)[~k].sum())
        unrevealed += int((~k).sum())
    gap = abs(changed / unrevealed - share)
    if gap > 5 * math.sqrt(share * (1 - share) / unrevealed):
        raise Unequal(f"{name}: expected {share} of the unrevealed weights to change, got {changed / unrevealed:.5f}")


def check(ours: Ours, theirs: Theirs) -> None:
    """Both reveal the same weights and redraw alike; ours are the generator's."""
    for i in range(len(ours.states)):
        before, other = ours.dense(), [w.clone() for w in theirs.weights]
        rows = ours.step(i)
        theirs.step(i)
        kept = [
            ops.rule_mask(s, ops.Mask.selected(row, "value"), s.shape)
            for s, row in zip(ours.states[i], rows, strict=True)
        ]
        for layer, (s, k) in enumerate(zip(ours.states[i], kept, strict=True)):
            mask = originals.KthvalueMask.apply(s, REMOVED, theirs.zeros[layer], theirs.ones[layer])
            same(f"mask of layer {layer}", k, mask.bool())
        after = ours.dense()
        check_redrawn("hiddennet", ours.init, before, after, kept)
        check_redrawn("original", ours.init, other, theirs.weights, kept)
        for layer, (a, b) in enumerate(zip(before, after, strict=True)):
            new = ops.generate_weight(
                tuple(a.shape), ours.init, seed=0, layer=layer, redraw=ours.redraw, device=a.device
            )
            same(f"new weights of layer {layer}", b[a != b], new[a != b])
    for i in reversed(range(len(ours.states))):  # the timing starts at state 0, warm
        ours.step(i)


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort(budget_s=8.0)
    report = Report("rerandomize", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    shapes = network("fc" if args.quick else "cifar_resnet18")
    by_layer = [walk(shape, STATES, device, seed=i) for i, shape in enumerate(shapes)]
    states = [list(state) for state in zip(*by_layer, strict=True)]
    n = sum(s.numel() for s in states[0])
    for init in INITS[: 2 if args.quick else None]:
        ours = Ours(states, init)
        theirs = Theirs(states, init, ours.dense())
        works: dict[str, Work] = {
            "hiddennet": swinging(ours.step, STATES),
            "IteRand's operations": swinging(theirs.step, STATES),
        }
        times = measure(works, check=lambda a=ours, b=theirs: check(a, b), device=device, effort=effort)
        what = f"redraw {len(shapes)} layers, {init} ({n:,})"
        report.timings(what, times, bytes={"hiddennet": 8 * n}, bandwidth=bandwidth)
        found = ratio(times["IteRand's operations"], times["hiddennet"])
        cpu = ratio(times["IteRand's operations"], times["hiddennet"], clock="cpu") if device.type == "cpu" else None
        report.ratio(what, "IteRand's operations / hiddennet", found, cpu=cpu, at_least=BARS.get(init))
    report.close()


if __name__ == "__main__":
    with torch.no_grad():
        main()
