"""Selection and effective weight, warm, against the original systems' mask and multiplication.

The bars are for a 2-core CPU and every layer of at least 30 000 weights: 100 times faster than
edge-popup's sort, mask and multiply, 10 times faster than the same with torch.kthvalue. On a GPU
the same sequences are timed, and the op alone against the bandwidth of a copy.

python -m bench.ops.bench_masked_weight [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.harness import (
    Effort,
    captured,
    copy_bandwidth,
    device_of,
    measure,
    parser,
    ratio,
    same,
)
from bench.ops.cases import kept, layers, network, sorted_mask, swinging, walk
from bench.originals import KthvalueMask, SortedMask
from bench.report import Report
from hiddennet import ops
from hiddennet.ops.masked_weight import effective_weight

STATES = 4
BITS = 1 / 8  # bytes a weight of a bit plane


class Ours:
    """A network's forward: one selection for all layers, one effective weight each. A layer alone: one call."""

    def __init__(self, states: list[list[Tensor]], dtype: torch.dtype = torch.float32):
        self.states, self.dtype = states, dtype
        self.k = [kept(s.numel()) for s in states[0]]
        self.sources = [
            ops.WeightSource.generate(s.shape, "signed_constant", seed=0, layer=i, device=s.device)
            for i, s in enumerate(states[0])
        ]
        self.hint = ops.topk_select(states[0], self.k)

    def __call__(self, i: int) -> list[Tensor]:
        if len(self.k) == 1:  # a layer alone: one call
            weight, rows = ops.topk_weight(
                self.states[i][0], self.k[0], source=self.sources[0], hint=self.hint, dtype=self.dtype
            )
            self.hint.copy_(rows)
            return [weight]
        rows = ops.topk_select(self.states[i], self.k, hint=self.hint)
        self.hint.copy_(rows)
        return self.weights(i)

    def weights(self, i: int) -> list[Tensor]:
        """The effective weights alone, for a selection made before."""
        return [
            effective_weight(s, ops.Mask("magnitude", row), source, self.dtype)
            for s, row, source in zip(self.states[i], self.hint.unbind(0), self.sources, strict=True)
        ]


class Original:
    """Edge-popup's mask of a layer times its stored weight; or IteRand's way to the same mask."""

    def __init__(self, ours: Ours, kthvalue: bool):
        self.states = ours.states
        shapes = [s.shape for s in self.states[0]]
        device = self.states[0][0].device
        self.stored = [source.weight(device=device) for source in ours.sources]
        self.kthvalue = kthvalue
        self.zeros = [torch.zeros(shape) for shape in shapes]
        self.ones = [torch.ones(shape) for shape in shapes]

    def mask(self, magnitudes: Tensor, layer: int) -> Tensor:
        if not self.kthvalue:
            return SortedMask.apply(magnitudes, 0.5)
        return KthvalueMask.apply(magnitudes, 0.5, self.zeros[layer], self.ones[layer])

    def __call__(self, i: int) -> list[Tensor]:
        return [
            weight * self.mask(s.abs(), layer)
            for layer, (s, weight) in enumerate(zip(self.states[i], self.stored, strict=True))
        ]


def check(ours: Ours, originals: dict[str, Original]) -> None:
    """Equal to a stable sort's mask times the weight; the originals too, but for tied scores."""
    for i, scores in enumerate(ours.states):
        got = ours(i)
        for layer, (s, weight) in enumerate(zip(scores, originals["sort"].stored, strict=True)):
            want = weight * sorted_mask(s, ours.k[layer])
            same(f"effective weight {layer} of state {i}", got[layer].float(), want)
        theirs = originals["sort"](i)
        for layer, (mine, other) in enumerate(zip(got, theirs, strict=True)):
            differ = (mine != 0) != (other != 0)
            tied = scores[layer].abs()[differ]
            if tied.numel() and bool((tied != tied[0]).any()):
                same(f"the original's weight {layer}", other, mine.float())
    for i in reversed(range(len(ours.states))):
        ours(i)


def compare(report: Report, what: str, states: list[list[Tensor]], effort: Effort, bandwidth: float) -> None:
    """One row of the bars: ours, warm, against both originals."""
    device = states[0][0].device
    ours = Ours(states)
    originals = {"sort": Original(ours, False), "kthvalue": Original(ours, True)}
    works = {
        "hiddennet": swinging(ours, STATES),
        "sort, mask, multiply": swinging(originals["sort"], STATES),
        "kthvalue, mask, multiply": swinging(originals["kthvalue"], STATES),
    }
    times = measure(works, check=lambda: check(ours, originals), device=device, effort=effort)
    n = sum(s.numel() for s in states[0])
    # scores are read twice, for selection and for the weight; signs once; the weight is written
    moved = {"hiddennet": int(n * (4 + 4 + BITS + 4))}
    report.timings(what, times, bytes=moved, bandwidth=bandwidth)
    bars = {"sort, mask, multiply": 100, "kthvalue, mask, multiply": 10}
    for name, bar in bars.items():
        cpu = None
        if device.type == "cpu":
            cpu = ratio(times[name], times["hiddennet"], clock="cpu")
        bound = bar if n >= 30_000 else None
        found = ratio(times[name], times["hiddennet"])
        report.ratio(what, f"{name} / hiddennet", found, cpu=cpu, at_least=bound)


def of_copy(report: Report, device: torch.device, effort: Effort, bandwidth: float) -> None:
    """The op alone on layers that together exceed any cache, its bytes against those of a copy.

    On a GPU 9.4 M weights each. On a CPU 2.4 M: larger tensors are mapped anew by the C library at
    every allocation, and writing them then measures page faults.
    """
    shape, sets = ((1024, 1024, 3, 3), 4) if device.type == "cuda" else ((512, 512, 3, 3), 8)
    if report.quick:
        shape, sets = (64, 64, 3, 3), 2
    states = [walk(shape, 1, device, seed=i) for i in range(sets)]
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        ours = Ours(states, dtype)

        def right(ours: Ours = ours, dtype: torch.dtype = dtype) -> None:
            for i in range(sets):
                got = ours(i)[0]
                weight = ours.sources[0].weight(device=device)
                want = weight * sorted_mask(ours.states[i][0], ours.k[0])
                same("effective weight", got, want.to(dtype))

        right()
        name = f"{str(dtype).removeprefix('torch.')} weight"
        works = [lambda i=i, ours=ours: ours.weights(i) for i in range(sets)]
        work = captured(works) if device.type == "cuda" else (lambda w=works: [f() for f in w])
        times = measure({name: work}, check=None, device=device, effort=effort)
        times = {name: times[name].scaled(1 / sets)}
        n = states[0][0].numel()
        moved = int(n * (4 + BITS + size))
        report.timings(f"masked_weight alone ({n:,})", times, bytes=moved, bandwidth=bandwidth)
        percent = 100 * moved / bandwidth / times[name].median
        bar = 85 if device.type == "cuda" else None
        report.value(f"masked_weight alone ({n:,})", name, percent, "% of copy", at_least=bar)


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    # long samples: several calls in a row, as in training, after the other variants' allocations
    effort = Effort.quick() if args.quick else Effort(min_rounds=7, budget_s=8.0, sample_s=0.02)
    report = Report("masked_weight", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    report.value("copy bandwidth", str(device), bandwidth / 1e9, "GB/s")
    with torch.no_grad():
        for name, shape in layers(args.quick).items():
            states = [[s] for s in walk(shape, STATES, device)]
            n = states[0][0].numel()
            compare(report, f"layer {name} ({n:,})", states, effort, bandwidth)
        for name in () if args.quick else ("conv4", "cifar_resnet18"):
            shapes = network(name)
            by_layer = [walk(shape, STATES, device, seed=i) for i, shape in enumerate(shapes)]
            states = [list(state) for state in zip(*by_layer, strict=True)]
            n = sum(s.numel() for s in states[0])
            compare(report, f"{name}, all {len(shapes)} layers ({n:,})", states, effort, bandwidth)
        of_copy(report, device, effort, bandwidth)
    report.close()


if __name__ == "__main__":
    main()
