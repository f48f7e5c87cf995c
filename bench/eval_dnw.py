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
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hiddennet as hn
from bench.harness import Effort, device_of, measure, parser, ratio, same
from bench.memory import Ledger, check_ledger
from bench.originals_dnw import ChosenEdges, OriginalMobileNet
from bench.report import Report
from hiddennet import compaction
from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph

OURS, WHOLE, CACHED, ORIGINAL = "hiddennet, compact", "hiddennet, as trained", "dense, cached", "original: sort, dense"
BARS = {1: {ORIGINAL: 60.0, CACHED: 2.0}, 8: {ORIGINAL: 8.0, CACHED: 1.8}}
SIZE_BAR = 1.1
QUICK = {"stages": ((8, 16, 1, 1), (16, 16, 2, 3)), "num_classes": 10}


class CachedMobileNet(nn.Module):
    """The original's network with the weights of all stages chosen once: dense convolutions of their blocks."""

    def __init__(self, original: OriginalMobileNet) -> None:
        super().__init__()
        self.original = original
        self.chosen = []
        for stage in original.layers:
            chosen, n, blocks, column = ChosenEdges.apply(stage.weight, stage.pruned), stage.outputs, [], 0
            for j, norm in enumerate(stage.norm):
                blocks.append(chosen[j * n :, column : column + norm.num_features].contiguous())
                column += norm.num_features
            self.chosen.append(blocks)

    def forward(self, x: Tensor) -> Tensor:
        net = self.original
        x = net.conv1(x)
        for stage, blocks in zip(net.layers, self.chosen, strict=True):
            n, sums = stage.outputs, F.conv2d(stage.downsample(F.relu(stage.norm[0](x))), blocks[0])
            for j in range(1, len(blocks)):
                node = F.relu(stage.norm[j](sums[:, :n]))
                node = F.conv2d(node, stage.conv.weight[(j - 1) * n : j * n], padding=1, groups=n)
                sums = sums[:, n:] + F.conv2d(node, blocks[j])
            x = sums
        x = F.relu(net.bn(x))
        return net.linear(F.avg_pool2d(x, x.shape[2:]).flatten(1))


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


def time(report: Report, model: MobileNetGraph, device: torch.device, *, quick: bool) -> None:
    """All variants, equal first."""
    effort = Effort.quick() if quick else Effort(rounds=15, min_rounds=7, budget_s=30.0)
    model = model.to(device)
    original = OriginalMobileNet(model).eval()
    cached, compact = CachedMobileNet(original).eval(), hn.compact(model).to(device)
    for batch in (1, 8):
        x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(batch)).to(device)
        nets = {OURS: compact, WHOLE: model, CACHED: cached, ORIGINAL: original}
        with torch.no_grad():
            want = original(x)
            for name, net in nets.items():
                same(f"logits of {name}", net(x), want, rtol=1e-5)
            works = {name: partial(net, x) for name, net in nets.items()}
            times = measure(works, check=None, device=device, effort=effort)
        what = f"evaluation x0.225, 224 px, batch {batch}"
        report.timings(what, times)
        for name in (WHOLE, CACHED, ORIGINAL):
            found, cpu = ratio(times[name], times[OURS]), ratio(times[name], times[OURS], clock="cpu")
            held = BARS[batch].get(name) if device.type == "cpu" and not quick else None
            report.ratio(what, f"{name} / {OURS}", found, cpu=cpu, at_least=held)


def weigh(report: Report, model: MobileNetGraph, what: str, device: torch.device, *, quick: bool) -> None:
    """Bytes in a file, in memory, and at the peak of an evaluation, of a network that is loaded anew."""
    bar = None if quick else SIZE_BAR
    needed = compaction.needed_bytes(hn.compact(model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compact.safetensors"
        hn.export(hn.compact(model), path)
        size, ledger = os.path.getsize(path), Ledger(device)
        compact, held, _ = ledger.run(lambda: hn.load(path).to(device))
    x = torch.randn(1, 3, 224, 224, device=device)
    logits, _, peak = ledger.run(lambda: compact(x))
    with torch.no_grad():
        same(f"logits of {what}", logits, model(x), rtol=1e-5)
    maps = maps_needed(compact, 224, 224)
    dense = 4 * sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    report.value(what, "the network it was made from", dense, "bytes")
    report.value(what, "alive parameters need: values", needed["values"], "bytes")
    report.value(what, "alive parameters need: places of edges", needed["positions"], "bytes")
    report.value(what, "an image's maps need", maps, "bytes")
    report.value(what, "file", size, "bytes")
    report.value(what, "held in memory", held, "bytes")
    report.value(what, "peak of an evaluation", held + peak, "bytes")
    report.value(what, "file / need", size / needed["total"], "x", at_most=bar)
    report.value(what, "held / need", held / needed["total"], "x")
    held_to = None if model.config.small else bar
    report.value(what, "peak / need with maps", (held + peak) / (needed["total"] + maps), "x", at_most=held_to)


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    report = Report("eval_dnw", args, device)
    check_ledger(device)
    time(report, build(small=False, quick=args.quick), device, quick=args.quick)
    for small in (False, True):
        what = f"bytes of x0.225{', small' if small else ''}"
        weigh(report, build(small=small, quick=args.quick).to(device), what, device, quick=args.quick)
    report.close()


if __name__ == "__main__":
    main()
