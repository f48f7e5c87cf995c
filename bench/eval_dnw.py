"""Evaluation of the MobileNet-like wiring, compact, beside the original's way and dense weights made once.

python -m bench.eval_dnw [--device cpu|cuda] [--json PATH] [--quick]

Width 0.225, images of 224 px, weights as they are drawn (all edges usable, most nodes alive), norms that do something.
Memory: every allocation of torch's allocator is counted (bench.memory). What the alive parameters need is 4 bytes each
and the information in the places of edges, log2 of the number of choices; at evaluation also the maps that a stage
cannot do without: of all its senders, and of the block that is summed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import hiddennet as hn
from bench import table
from bench.harness import Effort, same
from bench.memory import Ledger, check_ledger
from bench.originals_dnw import OriginalMobileNet
from bench.table import Benchmark, Case, Claim, Setting, Value
from hiddennet import compaction
from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph

OURS, WHOLE, CACHED, ORIGINAL = "hiddennet, compact", "hiddennet, as trained", "dense, cached", "original: sort, dense"
BARS = {1: {ORIGINAL: 60.0, CACHED: 2.0}, 8: {ORIGINAL: 8.0, CACHED: 1.8}}
SIZE_BAR = 1.1
QUICK = {"stages": ((8, 16, 1, 1), (16, 16, 2, 3)), "num_classes": 10}


def build(*, small: bool, quick: bool) -> MobileNetGraph:
    """The network with norms as after training."""
    torch.manual_seed(0)
    model = MobileNetGraph(MobileNetConfig(width=0.225, small=small, **(QUICK if quick else {})))
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.5, 1.5)
            norm.bias.data.normal_(0, 0.2)
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def maps_needed(compact: compaction.CompactMobileNet, height: int, width: int) -> int:
    """Bytes of the maps of one image that a forward cannot do without, in the order of its sums."""
    stride = compact.spec["stride"]
    height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
    most = 0
    for stage in compact.stages:
        before = stage.inputs * height * width
        height, width = stage.sides(height, width)
        most, seen = max(most, before + stage.inputs * height * width), stage.inputs
        for product in stage.products:
            most = max(most, (seen + product.n_destinations) * height * width)
            seen += product.n_destinations
    return 4 * most


def timed(at: Setting, model: MobileNetGraph) -> Iterator[Case]:
    """All variants, equal first."""
    model = model.to(at.device)
    original = OriginalMobileNet(model).eval()
    nets = {
        OURS: hn.compact(model).to(at.device),
        WHOLE: model,
        CACHED: original.cached(),
        ORIGINAL: original,
    }
    for batch, bars in BARS.items():
        x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(batch)).to(at.device)

        def check(x: Tensor = x) -> None:
            for name, net in nets.items():
                same(f"logits of {name}", net(x), original(x), rtol=1e-5)

        yield Case(
            f"evaluation x0.225, 224 px, batch {batch}",
            {name: partial(net, x) for name, net in nets.items()},
            check,
            [Claim(name, OURS, at_least=at.on_cpu_only(bars.get(name))) for name in (WHOLE, CACHED, ORIGINAL)],
        )


def weighed(at: Setting, model: MobileNetGraph) -> Iterator[Value]:
    """Bytes in a file, in memory, and at the peak of an evaluation, of a network that is loaded anew."""
    bar, device = None if at.quick else SIZE_BAR, at.device
    needed = compaction.needed_bytes(hn.compact(model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compact.safetensors"
        hn.export(hn.compact(model), path)
        size, ledger = os.path.getsize(path), Ledger(device)
        compact, held, _ = ledger.run(lambda: hn.load(path).to(device))
    x = torch.randn(1, 3, 224, 224, device=device)
    logits, _, peak = ledger.run(lambda: compact(x))
    same("logits of the loaded file", logits, model(x), rtol=1e-5)
    maps = maps_needed(compact, 224, 224)
    dense = 4 * sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    total = needed["total"]
    yield Value("the network it was made from", dense, "bytes")
    yield Value("alive parameters need: values", needed["values"], "bytes")
    yield Value("alive parameters need: places of edges", needed["positions"], "bytes")
    yield Value("an image's maps need", maps, "bytes")
    yield Value("file", size, "bytes")
    yield Value("held in memory", held, "bytes")
    yield Value("peak of an evaluation", held + peak, "bytes")
    yield Value("file / need", size / total, "x", at_most=bar)
    yield Value("held / need", held / total, "x")
    held_to = None if model.config.small else bar
    yield Value("peak / need with maps", (held + peak) / (total + maps), "x", at_most=held_to)


def cases(at: Setting) -> Iterator[Case]:
    check_ledger(at.device)
    yield from timed(at, build(small=False, quick=at.quick))
    for small in (False, True):
        model = build(small=small, quick=at.quick).to(at.device)
        yield Case(f"bytes of x0.225{', small' if small else ''}", values=lambda _, model=model: weighed(at, model))


def main() -> None:
    table.main("eval_dnw", Benchmark(cases, Effort(rounds=15, min_rounds=7, budget_s=30.0)), __doc__)


if __name__ == "__main__":
    main()
