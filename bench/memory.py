"""Bytes per hidden weight: held between steps, added inside a step, saved for the backward.

Each number is the slope between two widths of a network, so that what does not grow with the
weights drops out; batch 1 and small images keep activations out of it. On a CPU every allocation
of torch's allocator is counted (the profiler reports them, those inside ops included); on a GPU the
caching allocator counts. Gradients are emptied at the start of a step, as the trainer does.

python -m bench.memory [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch: the profiler is chatty

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import hiddennet as hn
from bench import nets, table
from bench.harness import Unequal
from bench.table import Benchmark, Case, Setting, Value
from hiddennet import models
from hiddennet.optim import optimizers

HELD_BAR = 8.5  # scores 4, momentum 4, a bit plane of signs, what else there is
ADDED_BARS = {"float32": 12.0, "bfloat16": 8.0}  # effective weight, its gradient, the score's
SAVED_BARS = {"float32": 4.1, "bfloat16": 2.1}  # one effective weight: no mask, no second product
# network -> widths, image size: wide enough that weights dwarf activations
CASES = {"fc": ((4.0, 8.0), 28), "conv2": ((2.0, 4.0), 8), "conv4": ((2.0, 4.0), 8)}
QUICK_CASES = {"fc": ((0.5, 1.0), 28)}
DENSE = "dense"
BARRED = "edge-popup"  # whose numbers are held against the bars
KINDS = {  # source and rule
    BARRED: (None, None),
    "gem_miner": (None, hn.Rounded()),
    "iterand, signed_constant": (hn.Redrawn("signed_constant"), hn.KthValue(0.4)),
    "iterand, kaiming_uniform": (hn.Redrawn("kaiming_uniform"), hn.KthValue(0.4)),
}
WITH_ALL_KINDS = (("fc", "float32"),)  # network and dtype measured for every kind
SAID = {"held": "held between steps", "added": "added inside a step", "saved": "saved for backward"}
STEPS = 2  # before counting: momentum and caches exist from the first step on


@dataclass(frozen=True)
class Bytes:
    """Of one network at one width."""

    weights: int
    held: int
    added: int
    saved: int


class Ledger:
    """Net and highest growth of the memory torch allocates on a device while a function runs."""

    def __init__(self, device: torch.device):
        self.device = device

    def run(self, work: Callable[[], object]) -> tuple[object, int, int]:
        """(result, bytes alive at the end, bytes at the peak), both above those at the start."""
        gc.collect()
        if self.device.type == "cuda":
            return self._run_cuda(work)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
            result = work()
            gc.collect()
        live = peak = 0
        for event in trace.profiler.kineto_results.events():
            if event.name() == "[memory]":
                live += event.nbytes()
                peak = max(peak, live)
        return result, live, peak

    def _run_cuda(self, work: Callable[[], object]) -> tuple[object, int, int]:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        result = work()
        torch.cuda.synchronize()
        gc.collect()
        after = torch.cuda.memory_allocated(self.device)
        return result, after - before, torch.cuda.max_memory_allocated(self.device) - before


def check_ledger(device: torch.device) -> None:
    """The ledger counts what is known: 3 blocks at the peak, 2 left."""
    size = 1 << 20

    def work() -> list[Tensor]:
        blocks = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(3)]
        return blocks[:2]

    _, live, peak = Ledger(device).run(work)
    if (live, peak) != (2 * size, 3 * size):
        raise Unequal(f"ledger: expected {2 * size} left and {3 * size} at most, got {live}, {peak}")


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of weight-sized tensors that autograd saves and that do not exist anyway."""
    sizes = {tensor.numel() for tensor in nets.learning(model).values()}
    return nets.saved_bytes(model, forward, lambda tensor: tensor.numel() in sizes)


def build(name: str, width: float, size: int, device: torch.device, kind: str) -> nn.Module:
    """The network at a width, dense or made into one of the hidden KINDS."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=10, width=width, image_size=size)
    if kind != DENSE:
        source, rule = KINDS[kind]
        hn.hide(model, source, rule, score_init=0.7 if isinstance(rule, hn.Rounded) else "kaiming_uniform")
    return model.to(device)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum; of rounded scores the one that clamps and knows the flags."""
    layers = [layer for layer in hn.hidden_layers(model).values() if layer.rule.prunable(layer) is not None]
    if not layers:
        return nets.sgd(model)
    made = hn.optim.ScoreSGD([layer.scores for layer in layers], nets.RATE, momentum=0.9, l2=1e-4)
    made.set_flags({layer.scores: layer.flags for layer in layers})
    return made


Cast = Callable[[], AbstractContextManager]


def count(name: str, width: float, size: int, device: torch.device, cast: Cast, kind: str) -> Bytes:
    """Build, train a few steps, and count the next one."""
    ledger = Ledger(device)
    x = torch.randn(1, 1 if name == "fc" else 3, size, size, device=device)
    labels = torch.zeros(1, dtype=torch.int64, device=device)

    def begin() -> nets.Trainee:
        model = build(name, width, size, device, kind)
        trainee = nets.Trainee(model, optimizer(model), x, labels, cast, optimizers.step)
        for _ in range(STEPS):
            trainee.step()
        trainee.optimizer.zero_grad(set_to_none=True)
        return trainee

    trainee, held, _ = ledger.run(begin)
    weights = sum(p.numel() for p in trainee.model.parameters())
    _, _, added = ledger.run(trainee.step)
    trainee.optimizer.zero_grad(set_to_none=True)
    return Bytes(weights, held, added, saved_bytes(trainee.model, trainee.loss))


def slopes(few: Bytes, many: Bytes) -> dict[str, float]:
    """Bytes a weight from the narrow to the wide network."""
    weights = many.weights - few.weights
    return {part: (getattr(many, part) - getattr(few, part)) / weights for part in ("held", "added", "saved")}


def cases(at: Setting) -> Iterator[Case]:
    check_ledger(at.device)
    casts: dict[str, Cast] = {
        "float32": nullcontext,
        "bfloat16": lambda: torch.autocast(at.device.type, torch.bfloat16, cache_enabled=False),
    }
    for name, (widths, size) in (QUICK_CASES if at.quick else CASES).items():
        for dtype, cast in list(casts.items())[: 1 if at.quick else None]:
            others = [kind for kind in KINDS if kind != BARRED] if (name, dtype) in WITH_ALL_KINDS else []
            bars = {"held": HELD_BAR, "added": ADDED_BARS[dtype], "saved": SAVED_BARS[dtype]}
            for kind in (BARRED, DENSE, *others):
                if not at.on_cpu:  # the libraries' workspaces come with the first call
                    count(name, widths[0], size, at.device, cast, kind)
                few, many = (count(name, width, size, at.device, cast, kind) for width in widths)
                found = [
                    Value(SAID[part], value, "B/weight", at_most=bars[part] if kind == BARRED else None)
                    for part, value in slopes(few, many).items()
                ]
                what = f"{name} {dtype}, {kind} ({few.weights:,} -> {many.weights:,})"
                yield Case(what, values=lambda _, found=found: found)


def main() -> None:
    table.main("memory", Benchmark(cases, grad=True), __doc__)


if __name__ == "__main__":
    main()
