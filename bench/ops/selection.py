"""Selection: the k largest scores, alone and with the effective weight made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from bench import originals
from bench.harness import Effort, Timing, Unequal, Work, captured, same
from bench.ops.inputs import (
    STATES,
    kept,
    layers,
    network,
    selected,
    selected_mask,
    size,
    sorted_mask,
    swinging,
    walk,
    walks,
)
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet import ops
from hiddennet.ops.masked_weight import MaskedWeight, effective_weight

# -- topk_mask: selection alone, warm and cold, a layer and a network ---------------------------------------------


class Search:
    """topk_select on layers whose scores move from call to call."""

    def __init__(self, states: list[list[Tensor]]):
        self.states = states
        self.k = [kept(s.numel()) for s in states[0]]
        self.hint = ops.topk_select(states[0], self.k)

    def cold(self, i: int) -> Tensor:
        return ops.topk_select(self.states[i], self.k)

    def warm(self, i: int) -> Tensor:
        rows = ops.topk_select(self.states[i], self.k, hint=self.hint)
        self.hint.copy_(rows)
        return rows

    def check(self) -> None:
        """Cold and warm selections give the mask of a stable sort at every state; of a layer alone, peers agree too."""
        for i, scores in enumerate(self.states):
            for name, rows in (("cold", self.cold(i)), ("warm", self.warm(i))):
                for s, k, row in zip(scores, self.k, rows, strict=True):
                    same(f"{name} mask of state {i}", selected_mask(s, row), sorted_mask(s, k))
        if len(self.k) == 1:
            check_peers(self.states[0][0], self.k[0])
        for i in reversed(range(len(self.states))):  # the timing starts at state 0, warm
            self.warm(i)
        self.searched = int(self.hint[:, 3].sum())

    def missed(self, times: Mapping[str, Timing]) -> list[Value]:
        """How often the warm search left its bracket since the check; it was exact all the same."""
        return [Value("warm searches that missed", int(self.hint[:, 3].sum()) - self.searched, "calls")]

    def works(self) -> dict[str, Work]:
        return {"hiddennet warm": swinging(self.warm), "hiddennet cold": swinging(self.cold)}


def check_peers(scores: Tensor, k: int) -> None:
    """What we compare with finds the same k-th largest magnitude."""
    magnitudes, j = scores.abs().flatten(), scores.numel() - k
    want = magnitudes.sort().values[j]
    for name, got in (
        ("kthvalue", magnitudes.kthvalue(j + 1).values),
        ("topk", magnitudes.topk(k, sorted=False).values.min()),
        ("np.partition", torch.from_numpy(np.partition(magnitudes.cpu().numpy(), j))[j]),
    ):
        if got.item() != want.item():
            raise Unequal(f"{name}: expected the threshold {want.item()}, got {got.item()}")


def peers(states: list[Tensor], k: int) -> dict[str, Work]:
    """What a user of torch or numpy has today, for one layer."""
    j = states[0].numel() - k
    flat = [s.flatten() for s in states]
    found = {
        "torch.sort": lambda i: flat[i].abs().sort(),
        "torch.kthvalue": lambda i: flat[i].abs().kthvalue(j + 1),
        "torch.topk": lambda i: flat[i].abs().topk(k, sorted=False),
    }
    if flat[0].device.type == "cpu":
        found["numpy.partition"] = lambda i: np.partition(np.abs(flat[i].numpy()), j)
    return {name: swinging(work) for name, work in found.items()}


def topk_mask(at: Setting) -> Iterator[Case]:
    for name, shape in layers(at.quick).items():
        states = walk(shape, STATES, at.device)
        search, n = Search([[s] for s in states]), states[0].numel()
        others = peers(states, search.k[0])
        yield Case(
            f"select {name} ({n:,})",
            {**search.works(), **others},
            search.check,
            [Claim(peer, "hiddennet warm", shown=f"{peer} / warm") for peer in others],
            bytes={"hiddennet warm": 4 * n, "hiddennet cold": 4 * n},
            values=search.missed,
        )
    shapes = network("fc" if at.quick else "cifar_resnet18")
    search, n = Search(walks(shapes, at.device)), size(shapes)
    what, theirs = f"select {len(shapes)} layers ({n:,})", "torch.sort a layer"
    yield Case(
        what,
        {**search.works(), theirs: swinging(lambda i: [s.abs().flatten().sort() for s in search.states[i]])},
        search.check,
        [Claim(theirs, variant, shown=f"torch.sort / {variant}") for variant in search.works()],
        bytes={"hiddennet warm": 4 * n, "hiddennet cold": 4 * n},
        values=search.missed,
    )
    if at.on_cpu:
        return
    order = list(chain(range(STATES), range(STATES - 2, 0, -1)))

    def beyond_a_read(times: Mapping[str, Timing]) -> list[Value]:
        warm, cold = (times[f"hiddennet {kind}, graph"].median * 1e6 for kind in ("warm", "cold"))
        read = 4 * n / at.bandwidth * 1e6
        return [
            Value("warm beyond one read of the scores", warm - read, "us", at_most=6),
            Value("cold", cold, "us", at_most=40),
        ]

    yield Case(  # without launch gaps
        what,
        {
            f"hiddennet {kind}, graph": captured([lambda i=i, f=f: f(i) for i in order])
            for kind, f in (("warm", search.warm), ("cold", search.cold))
        },
        search.check,
        bytes=4 * n,
        values=beyond_a_read,
        calls=len(order),
    )


# -- masked_weight: selection and effective weight, as in a training forward ---------------------------------------

BITS = 1 / 8  # bytes a weight of a bit plane
SORT, KTHVALUE = "sort, mask, multiply", "kthvalue, mask, multiply"
BARS = {SORT: 100, KTHVALUE: 10}  # for 2 cores, and layers of at least 30 000 weights


class Effective:
    """A network's forward: one selection for all layers, one effective weight each. A layer alone: one call."""

    def __init__(self, states: list[list[Tensor]], dtype: torch.dtype = torch.float32):
        self.states, self.dtype = states, dtype
        self.k = [kept(s.numel()) for s in states[0]]
        self.sources = [
            ops.WeightSource.generate(s.shape, "signed_constant", seed=0, layer=i, device=s.device)
            for i, s in enumerate(states[0])
        ]
        self.stored = [source.weight(device=s.device) for source, s in zip(self.sources, states[0], strict=True)]
        self.zeros, self.ones = ([fill(s.shape) for s in states[0]] for fill in (torch.zeros, torch.ones))  # on the CPU
        self.hint = ops.topk_select(states[0], self.k)

    def __call__(self, i: int) -> list[Tensor]:
        if len(self.k) == 1:  # a layer alone: one call
            found, source = self.states[i][0], self.sources[0]
            weight, rows = ops.topk_weight(found, self.k[0], source=source, hint=self.hint, dtype=self.dtype)
            self.hint.copy_(rows)
            return [weight]
        self.hint.copy_(ops.topk_select(self.states[i], self.k, hint=self.hint))
        return self.weights(i)

    def weights(self, i: int) -> list[Tensor]:
        """The effective weights alone, for a selection made before."""
        return [
            effective_weight(MaskedWeight.of(s, selected(row), source), self.dtype)
            for s, row, source in zip(self.states[i], self.hint.unbind(0), self.sources, strict=True)
        ]

    def by_sort(self, i: int) -> list[Tensor]:
        """Edge-popup's mask of each layer times its stored weight."""
        pairs = zip(self.states[i], self.stored, strict=True)
        return [weight * originals.SortedMask.apply(s.abs(), 0.5) for s, weight in pairs]

    def by_kthvalue(self, i: int) -> list[Tensor]:
        """IteRand's way to the same."""
        parts = zip(self.states[i], self.stored, self.zeros, self.ones, strict=True)
        return [weight * originals.KthvalueMask.apply(s.abs(), 0.5, zero, one) for s, weight, zero, one in parts]

    def check(self) -> None:
        """Equal to a stable sort's mask times the weight; the original too, but for tied scores."""
        for i, scores in enumerate(self.states):
            got, theirs = self(i), self.by_sort(i)
            for layer, (s, weight, k) in enumerate(zip(scores, self.stored, self.k, strict=True)):
                want = (weight * sorted_mask(s, k)).to(self.dtype)
                same(f"effective weight {layer} of state {i}", got[layer], want)
                tied = s.abs()[(got[layer] != 0) != (theirs[layer] != 0)]
                if tied.numel() and bool((tied != tied[0]).any()):
                    same(f"the original's weight {layer}", theirs[layer], got[layer].float())
        for i in reversed(range(len(self.states))):
            self(i)


def masked_weight(at: Setting) -> Iterator[Case]:
    found = {f"layer {name}": [shape] for name, shape in layers(at.quick).items()}
    for name in () if at.quick else ("conv4", "cifar_resnet18"):
        found[f"{name}, all {len(network(name))} layers"] = network(name)
    for what, shapes in found.items():
        ours, n = Effective(walks(shapes, at.device)), size(shapes)
        yield Case(
            f"{what} ({n:,})",
            {"hiddennet": swinging(ours), SORT: swinging(ours.by_sort), KTHVALUE: swinging(ours.by_kthvalue)},
            ours.check,
            [Claim(name, "hiddennet", at_least=bar if n >= 30_000 else None) for name, bar in BARS.items()],
            # scores are read twice, for selection and for the weight; signs once; the weight is written
            bytes={"hiddennet": int(n * (4 + 4 + BITS + 4))},
        )
    # The op alone on layers that together exceed any cache, its bytes against those of a copy. On a GPU 9.4 M weights
    # each. On a CPU 2.4 M: the C library maps larger tensors anew at every allocation, and page faults are measured.
    shape, sets = ((512, 512, 3, 3), 8) if at.on_cpu else ((1024, 1024, 3, 3), 4)
    shape, sets = ((64, 64, 3, 3), 2) if at.quick else (shape, sets)
    states = [walk(shape, 1, at.device, seed=i) for i in range(sets)]
    for dtype, width in ((torch.float32, 4), (torch.bfloat16, 2)):
        ours = Effective(states, dtype)
        works = [lambda i=i, ours=ours: ours.weights(i) for i in range(sets)]
        name, n = f"{str(dtype).removeprefix('torch.')} weight", states[0][0].numel()
        moved, bar = int(n * (4 + BITS + width)), None if at.on_cpu else 85

        def of_copy(times: Mapping[str, Timing], name=name, moved=moved, bar=bar) -> list[Value]:
            percent = 100 * moved / at.bandwidth / times[name].median
            return [Value(name, percent, "% of copy", at_least=bar)]

        ours.check()  # before a graph is captured
        work = (lambda works=works: [work() for work in works]) if at.on_cpu else captured(works)
        what = f"masked_weight alone ({n:,})"
        yield Case(what, {name: work}, bytes=moved, values=of_copy, calls=sets)


BENCHMARKS = {
    "topk_mask": Benchmark(topk_mask, floor=True),
    # long samples: several calls in a row, as in training, after the other variants' allocations
    "masked_weight": Benchmark(masked_weight, Effort(min_rounds=7, budget_s=8.0, sample_s=0.02), floor=True),
}
