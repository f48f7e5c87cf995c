"""Selection alone: the threshold of the k largest magnitudes, against sorting and its kin.

python -m bench.ops.bench_topk_mask [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.harness import (
    Effort,
    Unequal,
    Work,
    captured,
    copy_bandwidth,
    device_of,
    measure,
    parser,
    ratio,
    same,
)
from bench.ops.cases import kept, layers, network, sorted_mask, swinging, walk
from bench.report import Report
from hiddennet import ops

STATES = 4


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
        """Cold and warm selections give the mask of a stable sort at every state."""
        for i, scores in enumerate(self.states):
            cold, warm = self.cold(i), self.warm(i)
            for s, k, a, b in zip(scores, self.k, cold, warm, strict=True):
                want = sorted_mask(s, k)
                for name, row in (("cold", a), ("warm", b)):
                    mask = ops.rule_mask(s, ops.Mask.selected(row, "magnitude"), s.shape)
                    same(f"{name} mask of state {i}", mask, want)
        for i in reversed(range(len(self.states))):  # the timing starts at state 0, warm
            self.warm(i)
        self.searched = int(self.hint[:, 3].sum())

    def missed(self) -> int:
        """How often the warm search left its bracket since the check; it was exact all the same."""
        return int(self.hint[:, 3].sum()) - self.searched


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
        arrays = [s.numpy() for s in flat]
        found["numpy.partition"] = lambda i: np.partition(np.abs(arrays[i]), j)
    return {name: swinging(work, len(states)) for name, work in found.items()}


def per_layer(report: Report, device: torch.device, effort: Effort, bandwidth: float) -> None:
    for name, shape in layers(report.quick).items():
        states = walk(shape, STATES, device)
        search = Search([[s] for s in states])
        n, k = states[0].numel(), search.k[0]

        def check(search: Search = search, scores: Tensor = states[0], k: int = k) -> None:
            search.check()
            check_peers(scores, k)

        works = {
            "hiddennet warm": swinging(search.warm, STATES),
            "hiddennet cold": swinging(search.cold, STATES),
            **peers(states, k),
        }
        times = measure(works, check=check, device=device, effort=effort)
        what = f"select {name} ({n:,})"
        moved = {variant: 4 * n for variant in ("hiddennet warm", "hiddennet cold")}
        report.timings(what, times, bytes=moved, bandwidth=bandwidth)
        for peer in ("torch.sort", "torch.kthvalue", "torch.topk", "numpy.partition"):
            if peer in times:
                ours = times["hiddennet warm"]
                cpu = ratio(times[peer], ours, clock="cpu") if device.type == "cpu" else None
                report.ratio(what, f"{peer} / warm", ratio(times[peer], ours), cpu=cpu)
        report.value(what, "warm searches that missed", search.missed(), "calls")


def whole_network(report: Report, device: torch.device, effort: Effort, bandwidth: float) -> None:
    """All layers of ResNet-18 in one call; on a GPU also as a graph, without launch gaps."""
    shapes = network("fc" if report.quick else "cifar_resnet18")
    by_layer = [walk(shape, STATES, device, seed=i) for i, shape in enumerate(shapes)]
    search = Search([list(state) for state in zip(*by_layer, strict=True)])
    n = sum(s.numel() for s in search.states[0])
    what = f"select {len(shapes)} layers ({n:,})"
    works: dict[str, Work] = {
        "hiddennet warm": swinging(search.warm, STATES),
        "hiddennet cold": swinging(search.cold, STATES),
        "torch.sort a layer": swinging(lambda i: [s.abs().flatten().sort() for s in search.states[i]], STATES),
    }
    times = measure(works, check=search.check, device=device, effort=effort)
    moved = {variant: 4 * n for variant in ("hiddennet warm", "hiddennet cold")}
    report.timings(what, times, bytes=moved, bandwidth=bandwidth)
    for variant in ("hiddennet warm", "hiddennet cold"):
        found = ratio(times["torch.sort a layer"], times[variant])
        report.ratio(what, f"torch.sort / {variant}", found)
    report.value(what, "warm searches that missed", search.missed(), "calls")
    if device.type != "cuda":
        return
    order = [0, 1, 2, 3, 2, 1][: 2 * STATES - 2]
    graphs = {
        f"hiddennet {kind}, graph": captured([lambda i=i, f=f: f(i) for i in order])
        for kind, f in (("warm", search.warm), ("cold", search.cold))
    }
    times = measure(graphs, check=search.check, device=device, effort=effort)
    times = {name: timing.scaled(1 / len(order)) for name, timing in times.items()}
    report.timings(what, times, bytes=4 * n, bandwidth=bandwidth)
    warm, cold = (times[f"hiddennet {kind}, graph"].median * 1e6 for kind in ("warm", "cold"))
    read = 4 * n / bandwidth * 1e6
    report.value(what, "warm beyond one read of the scores", warm - read, "us", at_most=6)
    report.value(what, "cold", cold, "us", at_most=40)


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort()
    report = Report("topk_mask", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    report.value("copy bandwidth", str(device), bandwidth / 1e9, "GB/s")
    with torch.no_grad():
        per_layer(report, device, effort, bandwidth)
        whole_network(report, device, effort, bandwidth)
    report.close()


if __name__ == "__main__":
    main()
