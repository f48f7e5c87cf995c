"""A training step of edge-popup, beside the same dense step and beside the original's sequence.

Batch 128, random images, no data loading. A step is forward, cross-entropy, backward and SGD with
momentum. All sides start from the same weights and scores and are shown equal first: masks, loss
and gradients. On a GPU the step also runs as one CUDA graph in bfloat16 and channels_last, beside
the dense one, and the share of selection and weight generation is printed.

python -m bench.step [--nets conv2 conv4 ...] [--channels-last] [--device] [--json PATH] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

import hiddennet as hn
from bench import nets, originals
from bench.harness import (
    Effort,
    Timing,
    Work,
    captured,
    device_of,
    measure,
    parser,
    ratio,
)
from bench.report import Report

NETS = ("conv2", "conv4", "cifar_resnet18")
DENSE_BAR = 1.05
CPU_BARS = {"conv2": 2.0, "conv4": 1.5, "cifar_resnet18": 1.4}  # times faster than the original
GPU_BARS = {"conv2": 6.0, "conv4": 6.0, "cifar_resnet18": 4.0}
SHARE_BARS = {"conv4": 3.0, "cifar_resnet18": 1.5}  # % of the step: selection and weights
# of float32 gradients whose sums run in another order, through 20 layers and their ReLUs
RTOL = {"cpu": 1e-3, "cuda": 2e-2}


def autocast() -> AbstractContextManager:
    """bfloat16 on the GPU; without the cache, which must not outlive a graph's capture."""
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in convolutions, for comparing; torch has it by default."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def claim(report: Report, what: str, times: dict[str, Timing], above: str, below: str, **bars):
    """The ratio of two variants on the clock, and by CPU time where that is the device."""
    cpu = None
    if report.facts["device_type"] == "cpu":
        cpu = ratio(times[above], times[below], clock="cpu")
    found = ratio(times[above], times[below])
    report.ratio(what, f"{above} / {below}", found, cpu=cpu, **bars)


def on_cpu(report: Report, name: str, batch: int, effort: Effort, channels_last: bool) -> None:
    device = torch.device("cpu")
    mine, dense = nets.trainees(name, batch, device, channels_last=False)
    theirs = nets.original_trainee(mine, name)
    iterand = nets.original_trainee(mine, name, layer=originals.KthvalueConv2d)

    def check() -> None:
        nets.check_dense(mine, dense, RTOL[device.type])
        nets.check_original(mine, theirs, RTOL[device.type])

    works: dict[str, Work] = {
        "hiddennet": mine.step,
        "dense": dense.step,
        "original": theirs.step,
        "original with kthvalue": iterand.step,
    }
    what = f"{name} b{batch}"
    times = measure(works, check=check, device=device, effort=effort)
    report.timings(what, times)
    known = name in CPU_BARS
    bounded = {"at_most": DENSE_BAR} if known else {}
    claim(report, what, times, "hiddennet", "dense", **bounded)
    bounded = {"at_least": CPU_BARS[name]} if known else {}
    claim(report, what, times, "original", "hiddennet", **bounded)
    claim(report, what, times, "original with kthvalue", "hiddennet")
    if not channels_last:
        return
    mine, dense = nets.trainees(name, batch, device, channels_last=True)
    works = {"hiddennet": mine.step, "dense": dense.step}
    times = measure(works, check=lambda: nets.check_dense(mine, dense, RTOL[device.type]), device=device, effort=effort)
    report.timings(f"{what} channels_last", times)
    claim(report, f"{what} channels_last", times, "hiddennet", "dense", at_most=DENSE_BAR)


def on_gpu(report: Report, name: str, batch: int, effort: Effort) -> None:
    device = torch.device("cuda")
    plain, _ = check_gpu(name, batch, device)
    shipped = nets.original_trainee(plain, name)
    modern = nets.original_trainee(plain, name, cast=autocast, channels_last=True)
    iterand = nets.original_trainee(plain, name, layer=originals.KthvalueConv2d)
    mine, dense = nets.trainees(name, batch, device, channels_last=True, cast=autocast)

    def check() -> None:
        nets.check_dense(mine, dense, 0.1)  # bfloat16, and sums by atomics

    what = f"{name} b{batch}"
    works: dict[str, Work] = {
        "hiddennet eager": mine.step,
        "dense eager": dense.step,
        "original as shipped": shipped.step,
        "original, bf16 + channels_last": modern.step,
        "original with kthvalue": iterand.step,
    }
    eager = measure(works, check=check, device=device, effort=effort)
    graphs: dict[str, Work] = {"hiddennet": captured([mine.step]), "dense": captured([dense.step])}
    # the graphs and the originals again in one measurement: ratios come from the same rounds
    both = {**graphs, **{n: w for n, w in works.items() if n.startswith("original")}}
    times = measure(both, check=None, device=device, effort=effort)
    report.timings(what, {n: t for n, t in eager.items() if n.endswith("eager")})
    report.timings(what, times)
    claim(report, what, times, "hiddennet", "dense", at_most=DENSE_BAR)
    claim(report, what, times, "original as shipped", "hiddennet", at_least=GPU_BARS.get(name))
    claim(report, what, times, "original, bf16 + channels_last", "hiddennet")
    claim(report, what, times, "original with kthvalue", "hiddennet")
    if name == "conv4":
        report.value(what, "step", times["hiddennet"].median * 1e3, "ms", at_most=0.35)
    share(report, what, mine, times["hiddennet"], effort, SHARE_BARS.get(name))


def check_gpu(name: str, batch: int, device: torch.device) -> tuple[nets.Trainee, nets.Trainee]:
    """Equal in full float32 first: masks, loss, gradients; then TF32 as torch has it by default."""
    with full_float32():
        mine, dense = nets.trainees(name, batch, device, channels_last=False)
        nets.check_dense(mine, dense, RTOL[device.type])
        nets.check_original(mine, nets.original_trainee(mine, name), RTOL[device.type])
    return mine, dense


def share(report: Report, what: str, mine: nets.Trainee, step: Timing, effort: Effort, bar: float | None) -> None:
    """Selection and weight generation of all layers, as a part of the step's graph."""
    layers = nets.hidden_list(mine.model)

    def prepare() -> None:
        hn.select(mine.model)
        for layer in layers:
            hn.ops.masked_weight(
                layer.scores.detach(),
                layer.rule_state(),
                source=layer.source_state(),
                dtype=torch.bfloat16,
            )

    device = torch.device("cuda")
    times = measure({"selection + weights": captured([prepare])}, check=None, device=device, effort=effort)
    report.timings(what, times)
    part = 100 * times["selection + weights"].median / step.median
    report.value(what, "selection + weights", part, "% of the step", at_most=bar)


def add_arguments(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("--nets", nargs="+", metavar="NET", help=f"default: {' '.join(NETS)}")
    flags.add_argument("--channels-last", action="store_true", help="on a CPU, the dense comparison there too")


def main() -> None:
    flags = parser(__doc__)
    add_arguments(flags)
    args = flags.parse_args()
    device = device_of(args)
    torch.backends.cudnn.benchmark = True
    report = Report("step", args, device)
    batch = 4 if args.quick else 128
    names = args.nets or (("conv4",) if args.quick else NETS)
    for name in names:
        if device.type == "cuda":
            effort = Effort.quick() if args.quick else Effort(warmup=10, budget_s=6.0)
            on_gpu(report, name, batch, effort)
        else:
            slow = Effort(rounds=9, min_rounds=5, warmup=1, budget_s=45.0, sample_s=0.0)
            on_cpu(report, name, batch, Effort.quick() if args.quick else slow, args.channels_last)
    report.close()


if __name__ == "__main__":
    main()
