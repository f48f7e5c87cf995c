"""What a search does between steps: flags struck out (Gem-Miner), unrevealed weights redrawn (IteRand)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bench import originals
from bench.harness import Effort, Unequal, same
from bench.ops.inputs import network, selected_mask, size, swinging, walks
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet import ops

# -- strike_out: Gem-Miner's pruning of a network's flags ----------------------------------------------------------

STRIKE_RATE = 0.1
# a state of the search: how much is active, how many scores the regulariser has pushed to 0, scope, the bar of 2 cores
STRIKES = {
    "all active": (1.0, 0.0, "global", 50),
    "half active": (0.5, 0.0, "global", 50),
    "all active, 40 % at 0": (1.0, 0.4, "global", 50),
    "5 % active": (0.05, 0.0, "global", None),
    "all active, layer by layer": (1.0, 0.0, "layer", 50),
}


class Flags:
    """Scores in [0, 1) and flags of a network: bits for ours, integers for the original."""

    def __init__(self, shapes: Sequence[Sequence[int]], density: float, zeros: float, scope: str, device: torch.device):
        generator = torch.Generator().manual_seed(0)
        self.scope, self.scores, self.flags = scope, [], []
        for shape in shapes:
            drawn = [torch.rand(tuple(shape), generator=generator) for _ in range(3)]
            self.scores.append((drawn[0] * (drawn[1] >= zeros)).to(device))
            self.flags.append((drawn[2] < density).to(device, torch.int32))
        self.first = [ops.pack_mask(f.bool()) for f in self.flags]
        self.planes = [plane.clone() for plane in self.first]
        active = [int(f.sum()) for f in self.flags]
        self.counts = [math.ceil(STRIKE_RATE * n) for n in ([sum(active)] if scope == "global" else active)]

    def ours(self) -> Tensor:
        """Begins with the first flags again: a copy of the bits is part of the time."""
        for plane, first in zip(self.planes, self.first, strict=True):
            plane.copy_(first)
        return ops.strike_out_(self.scores, self.planes, self.counts, scope=self.scope)

    def original(self) -> tuple[list[Tensor], Tensor]:
        if self.scope == "global":
            return originals.sorted_strike(self.scores, self.flags, STRIKE_RATE)
        pairs = zip(self.scores, self.flags, strict=True)
        each = [originals.sorted_strike([s], [f], STRIKE_RATE) for s, f in pairs]
        return [flags[0] for flags, _ in each], torch.stack([tau for _, tau in each])

    def check(self) -> None:
        """The same thresholds and flags, and some entries gone."""
        thresholds = self.ours()
        flags, want = self.original()
        same("thresholds", thresholds, want.view(-1))
        for i, (plane, flag) in enumerate(zip(self.planes, flags, strict=True)):
            same(f"flags of layer {i}", ops.unpack_mask(plane, flag.shape), flag.bool())
        gone = int(ops.count_flags(self.first).sum() - ops.count_flags(self.planes).sum())
        if gone < sum(self.counts):
            raise Unequal(f"strike_out_: expected at least {sum(self.counts)} entries gone, got {gone}")


def strike_out(at: Setting) -> Iterator[Case]:
    shapes = network("fc" if at.quick else "cifar_resnet18")
    n, theirs = size(shapes), "gather, sort, multiply"
    for name, (density, zeros, scope, bar) in STRIKES.items():
        net = Flags(shapes, density, zeros, scope, at.device)
        yield Case(
            f"strike out, {name} ({n:,})",
            {"hiddennet": net.ours, theirs: net.original},
            net.check,
            [Claim(theirs, "hiddennet", at_least=at.on_cpu_only(bar), shown="original / hiddennet")],
            bytes={"hiddennet": n * 4 + n // 4},  # the least: scores read once, flags read and written
        )


# -- rerandomize: IteRand's redraw of a network's unrevealed weights, selection included ---------------------------

REMOVED, REDRAW_RATE = 0.6, 0.1  # as in IteRand's CIFAR experiments
REDRAW_BARS = {"signed_constant": 30, "kaiming_uniform": 30, "kaiming_normal": None}  # it draws the first two


class Redraw:
    """topk_select (warm) and rerandomize_ over all layers, two calls; and the original's sequence, layer by layer.

    Signs are a plane of bits; other weights are float32, with an int16 beside each that says which redraw it carries.
    """

    def __init__(self, states: list[list[Tensor]], init: str):
        self.states, self.init = states, init
        first = states[0]
        self.inits = [ops.init_scale(tuple(s.shape), init) for s in first]
        self.k = [s.numel() - round(REMOVED * (s.numel() - 1)) for s in first]
        self.redraw, self.redraws, self.weights = 0, None, []
        for layer, s in enumerate(first):
            source = ops.WeightSource.generate(tuple(s.shape), init, seed=0, layer=layer, device=s.device)
            self.weights.append(source.weight(device=s.device) if source.plane is None else source.plane)
        if init != "signed_constant":
            self.redraws = [torch.zeros_like(s, dtype=torch.int16) for s in first]
        self.hint = ops.topk_select(first, self.k, by="value")
        self.theirs = self.dense()
        self.twins = [torch.empty_like(w) for w in self.theirs]
        self.zeros, self.ones = ([fill(s.shape) for s in first] for fill in (torch.zeros, torch.ones))  # on the CPU

    def step(self, i: int) -> Tensor:
        rows = ops.topk_select(self.states[i], self.k, by="value", hint=self.hint)
        self.hint.copy_(rows)
        rows[:, 1] = 0  # the kth-value rule: ties at the threshold are kept
        self.redraw = self.redraw % ops.MAX_NOTED_REDRAW + 1
        layers = list(range(len(self.k)))
        how = {"seed": 0, "layers": layers, "redraw": self.redraw, "rate": REDRAW_RATE, "redraws": self.redraws}
        ops.rerandomize_(self.weights, self.states[i], rows, self.inits, **how)
        return rows

    def original(self, i: int) -> None:
        for parts in zip(self.theirs, self.twins, self.states[i], self.zeros, self.ones, strict=True):
            originals.redraw_(*parts, REMOVED, self.init, REDRAW_RATE)

    def dense(self) -> list[Tensor]:
        """The weights as floats, a copy."""
        if self.redraws is not None:
            return [w.clone() for w in self.weights]
        planes = zip(self.weights, self.states[0], self.inits, strict=True)
        return [torch.where(ops.unpack_mask(w, s.shape), -i.scale, i.scale) for w, s, i in planes]

    def check(self) -> None:
        """Both reveal the same weights and redraw alike; ours are the generator's."""
        for i, scores in enumerate(self.states):
            before, other = self.dense(), [w.clone() for w in self.theirs]
            rows = self.step(i)
            self.original(i)
            revealed = [selected_mask(s, row, "value") for s, row in zip(scores, rows, strict=True)]
            for layer, (s, mask) in enumerate(zip(scores, revealed, strict=True)):
                want = originals.KthvalueMask.apply(s, REMOVED, self.zeros[layer], self.ones[layer])
                same(f"mask of layer {layer}", mask, want.bool())
            after = self.dense()
            self.check_redrawn("hiddennet", before, after, revealed)
            self.check_redrawn("original", other, self.theirs, revealed)
            for layer, (a, b) in enumerate(zip(before, after, strict=True)):
                how = {"seed": 0, "layer": layer, "redraw": self.redraw, "device": a.device}
                new = ops.generate_weight(tuple(a.shape), self.init, **how)
                same(f"new weights of layer {layer}", b[a != b], new[a != b])
        for i in reversed(range(len(self.states))):  # the timing starts at state 0, warm
            self.step(i)

    def check_redrawn(self, name: str, before: list[Tensor], after: list[Tensor], revealed: list[Tensor]) -> None:
        """Revealed weights are the same; of the others the share of the rate changed (signs: half of that)."""
        share = REDRAW_RATE / 2 if self.init == "signed_constant" else REDRAW_RATE
        changed = unrevealed = 0
        for layer, (a, b, mask) in enumerate(zip(before, after, revealed, strict=True)):
            same(f"{name}: revealed weights of layer {layer}", b[mask], a[mask])
            changed += int((a != b)[~mask].sum())
            unrevealed += int((~mask).sum())
        found = changed / unrevealed
        if abs(found - share) > 5 * math.sqrt(share * (1 - share) / unrevealed):
            raise Unequal(f"{name}: expected {share} of the unrevealed weights to change, got {found:.5f}")


def rerandomize(at: Setting) -> Iterator[Case]:
    shapes = network("fc" if at.quick else "cifar_resnet18")
    states, n, theirs = walks(shapes, at.device), size(shapes), "IteRand's operations"
    for init, bar in list(REDRAW_BARS.items())[: 2 if at.quick else None]:
        both = Redraw(states, init)
        yield Case(
            f"redraw {len(shapes)} layers, {init} ({n:,})",
            {"hiddennet": swinging(both.step), theirs: swinging(both.original)},
            both.check,
            [Claim(theirs, "hiddennet", at_least=bar)],
            bytes={"hiddennet": 8 * n},
        )


BENCHMARKS = {
    "strike_out": Benchmark(strike_out, Effort(budget_s=5.0, warmup=1), floor=True),
    "rerandomize": Benchmark(rerandomize, Effort(budget_s=8.0), floor=True),
}
