"""Weights drawn from the counter generator, against torch's own random fills of the same size.

python -m bench.ops.bench_generate_weight [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import torch

from bench.harness import (
    Effort,
    Work,
    captured,
    copy_bandwidth,
    device_of,
    measure,
    parser,
    ratio,
    same,
)
from bench.report import Report
from hiddennet import ops, reference

INITS = ("signed_constant", "kaiming_uniform", "kaiming_normal")
PEERS = {
    "signed_constant": "bernoulli_",
    "kaiming_uniform": "uniform_",
    "kaiming_normal": "normal_",
}
SHAPES = {"cpu": (1024, 1024, 3, 3), "cuda": (4096, 1024, 3, 3)}  # beyond any cache
QUICK_SHAPE = (64, 64, 3, 3)


def check(init: str, device: torch.device) -> None:
    """Every backend draws the reference's bits (a small weight; the tests cover the rest)."""
    shape = (6, 5, 3, 3)
    scaled = ops.init_scale(shape, init)
    n = torch.Size(shape).numel()
    want = reference.generate(scaled.kind, scaled.scale, n, seed=7, layer=3).view(shape)
    got = ops.generate_weight(shape, init, seed=7, layer=3, device=device)
    same(f"{init} on {device}", got.cpu(), want)


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort()
    report = Report("generate_weight", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    shape = QUICK_SHAPE if args.quick else SHAPES[device.type]
    n = torch.Size(shape).numel()
    for init in INITS:
        out = torch.empty(shape, device=device)
        fill = getattr(out, PEERS[init])

        def ours(init: str = init) -> torch.Tensor:
            return ops.generate_weight(shape, init, seed=0, device=device)

        works: dict[str, Work] = {"hiddennet": ours, f"torch {PEERS[init]}": lambda f=fill: f()}
        times = measure(works, check=lambda i=init: check(i, device), device=device, effort=effort)
        what = f"{init} ({n:,})"
        report.timings(what, times, bytes=4 * n, bandwidth=bandwidth)
        found = ratio(times[f"torch {PEERS[init]}"], times["hiddennet"])
        report.ratio(what, f"torch {PEERS[init]} / hiddennet", found)
        if device.type == "cuda":
            times = measure({"hiddennet, graph": captured([ours])}, check=None, device=device, effort=effort)
            report.timings(what, times, bytes=4 * n, bandwidth=bandwidth)
    report.close()


if __name__ == "__main__":
    main()
