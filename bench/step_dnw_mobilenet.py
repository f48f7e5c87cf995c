"""A training step of the MobileNet-like wiring, beside the original's sequence and beside plain MobileNetV1.

Width 0.225, 224 pixels, batch 8, random images, no data loading. A step is forward, cross-entropy, backward and SGD
with momentum. Ours with compat and the original start from the same weights and are shown equal first: kept edges, loss
and gradients. Ours without compat, whose edges are all ones that run, is timed beside them.

python -m bench.step_dnw_mobilenet [--device] [--json PATH] [--quick]
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from bench import nets, table
from bench.originals_dnw import OriginalMobileNet
from bench.step_dnw import check, trainees, untie
from bench.table import Benchmark, Case, Claim, Setting
from hiddennet import models
from hiddennet.models.dnw import MobileNetConfig, MobileNetGraph
from hiddennet.models.dnw.mobilenet_config import STAGES

WIDTH, SIZE = 0.225, 224
QUICK = (0.6, ((8, 16, 1, 1), (16, 32, 2, 2), (32, 64, 2, 2), (64, 64, 2, 4), (64, 128, 2, 2)))  # other sizes'
# A ReLU that one side rounds to 0 and the other does not moves gradients by percents: float32, on either side, is 4 %
# of a tensor's largest gradient off float64. tests/models compare all gradients in float64, to 1e-10.
KINKS = 0.05
ORIGINAL_BAR = 2.0  # times faster than the original, on a CPU


def build(size: int, *, compat: bool) -> MobileNetGraph:
    torch.manual_seed(0)
    width, stages = (WIDTH, STAGES) if size == SIZE else QUICK
    return MobileNetGraph(MobileNetConfig(width=width, image_size=size, compat=compat, stages=stages))


def untied(batch: int, size: int, device: torch.device) -> tuple[nets.Trainee, nets.Trainee]:
    """Ours with compat and the original, of equal weights."""
    ours = build(size, compat=True)
    untie(ours)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((batch, 3, size, size), generator=generator).to(device)
    labels = torch.randint(1000, (batch,), generator=generator).to(device)
    return trainees(ours.to(device), OriginalMobileNet(ours).to(device), x, labels)


def cases(at: Setting) -> Iterator[Case]:
    batch, size = (4, 48) if at.quick else (8, SIZE)
    compat, original = untied(batch, size, at.device)
    plain = models.build("mobilenet_v1", num_classes=1000, image_size=size, bias=True).to(at.device)
    mine, beside = trainees(build(size, compat=False).to(at.device), plain, compat.x, compat.labels)
    bar = at.on_cpu_only(ORIGINAL_BAR)
    yield Case(
        f"MobileNet-like x{compat.model.config.width} {size} px b{batch}",
        {
            "hiddennet": mine.step,
            "hiddennet, compat": compat.step,
            "original": original.step,
            "plain MobileNetV1": beside.step,
        },
        partial(check, compat, original, KINKS, str),
        [Claim("original", variant, at_least=bar) for variant in ("hiddennet", "hiddennet, compat")],
        effort=at.effort_of_steps(budget_s=60.0),
    )


def main() -> None:
    table.main("step_dnw_mobilenet", Benchmark(cases, grad=True), __doc__)


if __name__ == "__main__":
    main()
