"""Quantising a layer's input (8 bits) and its output's gradient (16 bits): range and codes, as they lie and turned.

python -m bench.ops.bench_quantize_codes [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.harness import Effort, Work, copy_bandwidth, device_of, measure, parser, ratio, same
from bench.originals_psg import quantise
from bench.report import Report
from hiddennet.ops.quantize import centred_codes, range_of

SHAPES = ((32, 64, 32, 32), (32, 128, 16, 16), (32, 512, 4, 4))  # of a ResNet-18
KINDS = {"input": ("sample_mean", 8, False), "gradient": ("tensor", 16, True)}


def original(x: Tensor, over: str, bits: int, signed: bool) -> Tensor:
    """The original's range and its passes."""
    rows = x.abs().flatten(1).max(-1).values
    return quantise(x, bits, rows.mean() if over == "sample_mean" else rows.max(), signed)


def lean(x: Tensor, over: str, bits: int, signed: bool) -> Tensor:
    """Few passes of torch: no host, no clone, values not codes."""
    low, high = (-float(2 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    rows = x.abs().flatten(1).amax(-1)
    step = (rows.mean() if over == "sample_mean" else rows.max()) * (2.0 if signed else 1.0) / 2**bits
    return (x / step).clamp_(low, high).round_().mul_(step)


def ours(x: Tensor, over: str, bits: int, signed: bool, turned: bool) -> tuple[Tensor, Tensor]:
    return centred_codes(x, range_of(x, over), bits, signed, turned)


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    effort = Effort.quick() if args.quick else Effort(budget_s=3.0)
    report = Report("quantize_codes", args, device)
    bandwidth = copy_bandwidth(device, quick=args.quick)
    for shape in ((2, 8, 8, 8),) if args.quick else SHAPES:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        for name, how in KINDS.items():
            t = x.relu() if name == "input" else x

            def check(t: Tensor = t, how=how) -> None:
                codes, step = ours(t, *how, False)
                same("values", codes * step, lean(t, *how), rtol=1e-4)
                same("values of the original", codes * step, original(t, *how), rtol=1e-2)
                same("turned codes", ours(t, *how, True)[0], codes)

            works: dict[str, Work] = {
                "as x lies": lambda t=t, how=how: ours(t, *how, False),
                "turned to channels_last": lambda t=t, how=how: ours(t, *how, True),
                "torch, few passes": lambda t=t, how=how: lean(t, *how),
                "original": lambda t=t, how=how: original(t, *how),
            }
            times = measure(works, check=check, device=device, effort=effort)
            what = f"{name} {'x'.join(map(str, shape))}, {how[1]} bits"
            moved = t.numel() * (4 + 4 + (how[1] + 7) // 8)
            report.timings(
                what, times, bytes={"as x lies": moved, "turned to channels_last": moved}, bandwidth=bandwidth
            )
            for peer in ("torch, few passes", "original"):
                report.ratio(
                    what, f"{peer} / turned", ratio(times[peer], times["turned to channels_last"]), at_least=1.0
                )
    report.close()


if __name__ == "__main__":
    main()
