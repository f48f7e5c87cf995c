"""A training step of edge-popup, beside the same dense step and beside the original's sequence.

Batch 128, random images, no data loading. A step is forward, cross-entropy, backward and SGD with
momentum. All sides start from the same weights and scores and are shown equal first: masks, loss
and gradients. On a GPU the step also runs as one CUDA graph in bfloat16 and channels_last, beside
the dense one, and the share of selection and weight generation is printed.

python -m bench.step [--nets conv2 conv4 ...] [--channels-last] [--device] [--json PATH] [--quick]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch

import hiddennet as hn
from bench import nets, originals, table
from bench.harness import Timing, captured
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet.nn.network import begin_pass, end_pass

NETS = ("conv2", "conv4", "cifar_resnet18")
DENSE_BAR = 1.05
CPU_BARS = {"conv2": 2.0, "conv4": 1.5, "cifar_resnet18": 1.4}  # times faster than the original
GPU_BARS = {"conv2": 6.0, "conv4": 6.0, "cifar_resnet18": 4.0}
SHARE_BARS = {"conv4": 3.0, "cifar_resnet18": 1.5}  # % of the step: selection and weights
# of float32 gradients whose sums run in another order, through 20 layers and their ReLUs
RTOL = {"cpu": 1e-3, "cuda": 2e-2}
PREPARED = "selection + weights"


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


def on_cpu(at: Setting, name: str, batch: int) -> Iterator[Case]:
    rtol, what, effort = RTOL["cpu"], f"{name} b{batch}", at.effort_of_steps()
    mine, dense = nets.trainees(name, batch, at.device, channels_last=False)
    theirs = nets.original_trainee(mine, name)
    iterand = nets.original_trainee(mine, name, layer=originals.KthvalueConv2d)

    def check() -> None:
        nets.check_dense(mine, dense, rtol)
        nets.check_original(mine, theirs, rtol)

    yield Case(
        what,
        {
            "hiddennet": mine.step,
            "dense": dense.step,
            "original": theirs.step,
            "original with kthvalue": iterand.step,
        },
        check,
        [
            Claim("hiddennet", "dense", at_most=DENSE_BAR if name in CPU_BARS else None),
            Claim("original", "hiddennet", at_least=CPU_BARS.get(name)),
            Claim("original with kthvalue", "hiddennet"),
        ],
        effort=effort,
    )
    if at.args.channels_last:
        last, beside = nets.trainees(name, batch, at.device, channels_last=True)
        yield Case(
            f"{what} channels_last",
            {"hiddennet": last.step, "dense": beside.step},
            lambda: nets.check_dense(last, beside, rtol),
            [Claim("hiddennet", "dense", at_most=DENSE_BAR)],
            effort=effort,
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


def main() -> None:
    flags = {
        "--nets": {"nargs": "+", "metavar": "NET", "help": f"default: {' '.join(NETS)}"},
        "--channels-last": {"action": "store_true", "help": "on a CPU, the dense comparison there too"},
    }
    table.main("step", Benchmark(cases, grad=True), __doc__, flags)


if __name__ == "__main__":
    main()
