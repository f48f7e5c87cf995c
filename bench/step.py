"""A training step of edge-popup, beside the same dense step and beside the original's sequence.

Batch 128, random images, no data loading. A step is forward, cross-entropy, backward and SGD with
momentum. All sides start from the same weights and scores and are shown equal first: masks, loss
and gradients.

On a CPU a step runs in channels_last, in float32 and, where the machine multiplies bfloat16, in
that; the faster of ours is held against the faster of the dense ones. ONEDNN_MAX_CPU_ISA=AVX2 with
HIDDENNET_ISA=avx2 make a machine without. Beside edge-popup stand weights that learn under a mask
that does not move. On a GPU the step also runs as one CUDA graph in bfloat16 and channels_last,
beside the dense one, and the share of selection and weight generation is printed.

python -m bench.step [--nets conv2 conv4 ...] [--densities 0.5 0.3] [--device] [--json PATH] [--quick]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch

import hiddennet as hn
from bench import nets, originals, table
from bench.harness import Timing, captured, same
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet.nn.network import begin_pass, end_pass
from hiddennet.ops import tile_conv

NETS = ("conv2", "conv4", "cifar_resnet18")
DENSE_BAR = 1.05  # of a GPU
# of a CPU: at most that share of the time of the best dense step, by whether the machine multiplies bfloat16
BARS = {
    "bfloat16": {("conv2", 0.5): 0.95, ("conv4", 0.5): 0.95, ("cifar_resnet18", 0.5): 0.75},
    "float32": {
        **{(name, 0.5): 0.75 for name in NETS},
        **{(name, 0.3): 0.62 for name in NETS},
    },
}
MASK_BARS = {"bfloat16": {0.1: 0.60, 0.02: 0.45}, "float32": {0.1: 0.30, 0.02: 0.20}}  # ResNet-18, a fixed mask
ORIGINAL_BARS = {"bfloat16": 5.0, "float32": 2.0}  # times faster than the original's own sequence in float32
GPU_BARS = {"conv2": 6.0, "conv4": 6.0, "cifar_resnet18": 4.0}
SHARE_BARS = {"conv4": 3.0, "cifar_resnet18": 1.5}  # % of the step: selection and weights
# of float32 gradients whose sums run in another order, through 20 layers and their ReLUs
RTOL = {"cpu": 1e-3, "cuda": 2e-2}
# in another memory format or way more ReLUs and poolings near a tie go the other way; rounded to bfloat16, many
OTHER_ORDER, BFLOAT16_RTOL = 2e-2, 0.2
PREPARED = "selection + weights"


def autocast() -> AbstractContextManager:
    """bfloat16 on the GPU; without the cache, which must not outlive a graph's capture."""
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)


def bfloat16() -> AbstractContextManager:
    """Autocast on a CPU."""
    return torch.autocast("cpu", torch.bfloat16)


def has_bfloat16() -> bool:
    """Whether the libraries and we may multiply bfloat16 here."""
    return tile_conv.instructions() != "plain"


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in convolutions, for comparing; torch has it by default."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _best(times: Mapping[str, Timing], side: str) -> tuple[str, Timing]:
    """A side's faster dtype, and its times."""
    return min(
        ((name, t) for name, t in times.items() if name.startswith(f"{side}, ")), key=lambda found: found[1].median
    )


def on_cpu(at: Setting, name: str, batch: int) -> Iterator[Case]:
    """channels_last, float32 and bfloat16 on both sides: the faster of ours against the faster of the dense ones."""
    rtol, effort, fast = RTOL["cpu"], at.effort_of_steps(), at.bandwidth is None and has_bfloat16()
    for density in at.args.densities:
        what = f"{name} b{batch}, density {density:g}"
        mine, dense = nets.trainees(
            name, batch, at.device, channels_last=True, model=nets.hidden(name, at.device, density=density)
        )
        theirs = nets.original_trainee(mine, name)
        works = {"hiddennet, float32": mine.step, "dense, float32": dense.step}
        if fast:
            works |= {
                f"{side}, bfloat16": replace(t, cast=bfloat16).step
                for side, t in (("hiddennet", mine), ("dense", dense))
            }

        def check(mine=mine, dense=dense, theirs=theirs) -> None:
            with nets.library():
                nets.check_dense(mine, dense, rtol)
            nets.check_original(mine, theirs, OTHER_ORDER)  # contiguous
            nets.check_dense(mine, dense, OTHER_ORDER)
            if fast:
                nets.check_dense(replace(mine, cast=bfloat16), replace(dense, cast=bfloat16), BFLOAT16_RTOL)

        def values(times: Mapping[str, Timing], density=density) -> Iterator[Value]:
            (ours, own), (beside, other) = _best(times, "hiddennet"), _best(times, "dense")
            bar = BARS["bfloat16" if fast else "float32"].get((name, density))
            yield Value(f"{ours} / {beside}", own.median / other.median, "x the time", at_most=bar)
            bar = ORIGINAL_BARS["bfloat16" if fast else "float32"] if name in ("conv4", "cifar_resnet18") else None
            yield Value(f"original / {ours}", times["original"].median / own.median, "x as fast", at_least=bar)

        yield Case(what, {**works, "original": theirs.step}, check, values=values, effort=effort)


def under_a_mask(at: Setting, name: str, batch: int, density: float) -> Iterator[Case]:
    """As on_cpu, of a network that learns its weights under a mask that does not move."""
    fast = has_bfloat16()
    model = nets.masked(name, at.device, density)
    mine, dense = nets.trainees(name, batch, at.device, channels_last=True, model=model)
    works = {"hiddennet, float32": mine.step, "dense, float32": dense.step}
    if fast:
        works |= {
            f"{side}, bfloat16": replace(t, cast=bfloat16).step for side, t in (("hiddennet", mine), ("dense", dense))
        }

    def check() -> None:
        with nets.library():
            losses, found = nets.gradients(mine, dense)
        same("loss against dense", losses[0], losses[1], rtol=RTOL["cpu"])
        pairs = zip(nets.hidden_list(model), *(side.values() for side in found), strict=True)
        for i, (layer, got, raw) in enumerate(pairs):
            same(f"gradient of layer {i} against dense", got, raw * layer.mask(), rtol=RTOL["cpu"])

    def values(times: Mapping[str, Timing]) -> Iterator[Value]:
        (ours, own), (beside, other) = _best(times, "hiddennet"), _best(times, "dense")
        bar = MASK_BARS["bfloat16" if fast else "float32"].get(density)
        yield Value(f"{ours} / {beside}", own.median / other.median, "x the time", at_most=bar)

    yield Case(
        f"{name} b{batch}, fixed mask, density {density:g}", works, check, values=values, effort=at.effort_of_steps()
    )


def on_gpu(at: Setting, name: str, batch: int) -> Iterator[Case]:
    rtol, what, effort = RTOL["cuda"], f"{name} b{batch}", at.effort_of_steps()
    with full_float32():  # equal there first: masks, loss, gradients; then TF32 as torch has it by default
        plain, dense = nets.trainees(name, batch, at.device, channels_last=False)
        nets.check_dense(plain, dense, rtol)
        nets.check_original(plain, nets.original_trainee(plain, name), rtol)
    shipped = nets.original_trainee(plain, name)
    modern = nets.original_trainee(plain, name, cast=autocast, channels_last=True)
    iterand = nets.original_trainee(plain, name, layer=originals.KthvalueConv2d)
    mine, dense = nets.trainees(name, batch, at.device, channels_last=True, cast=autocast)
    yield Case(
        what,
        {"hiddennet eager": mine.step, "dense eager": dense.step},
        lambda: nets.check_dense(mine, dense, 0.1),  # bfloat16, and sums by atomics
        effort=effort,
    )
    layers = nets.hidden_list(mine.model)

    def prepare() -> None:
        """Selection and weight generation of all layers, as a part of the step's graph."""
        begin_pass(mine.model)
        for layer in layers:
            how = {"source": layer.source.state(layer), "dtype": torch.bfloat16}
            hn.ops.masked_weight(layer.scores.detach(), layer.rule.state(layer, layer.training), **how)
        end_pass(mine.model)

    def shares(times: Mapping[str, Timing]) -> Iterator[Value]:
        step = times["hiddennet"].median
        if name == "conv4":
            yield Value("step", step * 1e3, "ms", at_most=0.35)
        yield Value(PREPARED, 100 * times[PREPARED].median / step, "% of the step", at_most=SHARE_BARS.get(name))

    # the graphs and the originals in one measurement: ratios come from the same rounds
    yield Case(
        what,
        {
            "hiddennet": captured([mine.step]),
            "dense": captured([dense.step]),
            "original as shipped": shipped.step,
            "original, bf16 + channels_last": modern.step,
            "original with kthvalue": iterand.step,
            PREPARED: captured([prepare]),
        },
        claims=[
            Claim("hiddennet", "dense", at_most=DENSE_BAR),
            Claim("original as shipped", "hiddennet", at_least=GPU_BARS.get(name)),
            Claim("original, bf16 + channels_last", "hiddennet"),
            Claim("original with kthvalue", "hiddennet"),
        ],
        values=shares,
        effort=effort,
    )


def cases(at: Setting) -> Iterator[Case]:
    for name in at.args.nets or (("conv4",) if at.quick else NETS):
        yield from (on_cpu if at.on_cpu else on_gpu)(at, name, 4 if at.quick else 128)
    if at.on_cpu:
        for density in at.args.masks:
            yield from under_a_mask(at, "conv4" if at.quick else "cifar_resnet18", 4 if at.quick else 128, density)


def main() -> None:
    flags = {
        "--nets": {"nargs": "+", "metavar": "NET", "help": f"default: {' '.join(NETS)}"},
        "--densities": {"nargs": "+", "type": float, "default": [0.5], "help": "of a CPU; default: 0.5"},
        "--masks": {
            "nargs": "*",
            "type": float,
            "default": [0.1, 0.02],
            "help": "fixed ones, of a CPU; default: 0.1 0.02",
        },
    }
    table.main("step", Benchmark(cases, grad=True), __doc__, flags)


if __name__ == "__main__":
    main()
