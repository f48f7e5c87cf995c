"""The shipped file: a ResNet-50 hidden at density 0.3, its size and the time to load it.

The file holds one bit a weight and batch norm's statistics; the dense float32 checkpoint is beside
it. Loading is from the operating system's file cache, as a second start of a program finds it.

python -m bench.artifact [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import hiddennet as hn
from bench.harness import Effort, Work, device_of, measure, parser, ratio, same
from bench.report import Report
from hiddennet import models

DENSITY = 0.3
SIZE_BAR_MB, LOAD_BAR_MS = 3.5, 100.0


def build(name: str, size: int) -> nn.Module:
    """The network with batch-norm statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=1000, image_size=size, batch_norm="non_affine")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return hn.hide(model, rule=hn.TopK(DENSITY)).eval()


def main() -> None:
    args = parser(__doc__).parse_args()
    device = device_of(args)
    name = "conv4" if args.quick else "resnet50"
    size = 32 if args.quick else 64
    report = Report("artifact", args, device)
    model = build(name, size)
    images = torch.randn(2, 3, size, size)
    with tempfile.TemporaryDirectory() as folder:
        path, dense = Path(folder) / "hidden.safetensors", Path(folder) / "dense.pt"
        hn.export(model, path)
        state = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
        torch.save(state, dense)

        @torch.no_grad()
        def check() -> None:
            same("logits of the loaded file", hn.load(path)(images), model(images))

        works: dict[str, Work] = {
            "hiddennet.load": lambda: hn.load(path),
            "torch.load, dense": lambda: torch.load(dense, weights_only=True),
        }
        if device.type == "cuda":
            works["hiddennet.load, to the GPU"] = lambda: hn.load(path).to(device)
        effort = Effort.quick() if args.quick else Effort(sample_s=0.0, budget_s=10.0)
        times = measure(works, check=check, device=torch.device("cpu"), effort=effort)
        what = f"{name} at density {DENSITY}"
        report.timings(what, times)
        mb, dense_mb = path.stat().st_size / 1e6, dense.stat().st_size / 1e6
        report.value(what, "file", mb, "MB", at_most=SIZE_BAR_MB)
        report.value(what, "dense float32 file", dense_mb, "MB")
        median_ms = times["hiddennet.load"].median * 1e3
        report.value(what, "load, median", median_ms, "ms", at_most=LOAD_BAR_MS)
        found = ratio(times["torch.load, dense"], times["hiddennet.load"])
        report.ratio(what, "torch.load, dense / hiddennet.load", found)
    report.close()


if __name__ == "__main__":
    main()
