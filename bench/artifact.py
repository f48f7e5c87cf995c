"""The shipped file: a ResNet-50 hidden at density 0.3, its size and the time to load it.

The file holds one bit a weight and batch norm's statistics; the dense float32 checkpoint is beside
it. Loading is from the operating system's file cache, as a second start of a program finds it.

python -m bench.artifact [--device cpu|cuda] [--json PATH] [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

import hiddennet as hn
from bench import table
from bench.harness import Effort, Timing, Work, same
from bench.table import Benchmark, Case, Claim, Setting, Value
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


def cases(at: Setting) -> Iterator[Case]:
    name, size = ("conv4", 32) if at.quick else ("resnet50", 64)
    model = build(name, size)
    images = torch.randn(2, 3, size, size)
    with tempfile.TemporaryDirectory() as folder:
        path, dense = Path(folder) / "hidden.safetensors", Path(folder) / "dense.pt"
        hn.export(model, path)
        torch.save({k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}, dense)
        works: dict[str, Work] = {
            "hiddennet.load": lambda: hn.load(path),
            "torch.load, dense": lambda: torch.load(dense, weights_only=True),
        }
        if not at.on_cpu:
            works["hiddennet.load, to the GPU"] = lambda: hn.load(path).to(at.device)

        def sizes(times: Mapping[str, Timing]) -> Iterator[Value]:
            yield Value("file", path.stat().st_size / 1e6, "MB", at_most=SIZE_BAR_MB)
            yield Value("dense float32 file", dense.stat().st_size / 1e6, "MB")
            yield Value("load, median", times["hiddennet.load"].median * 1e3, "ms", at_most=LOAD_BAR_MS)

        yield Case(
            f"{name} at density {DENSITY}",
            works,
            lambda: same("logits of the loaded file", hn.load(path)(images), model(images)),
            [Claim("torch.load, dense", "hiddennet.load")],
            values=sizes,
            host=True,
        )


def main() -> None:
    table.main("artifact", Benchmark(cases, Effort(sample_s=0.0, budget_s=10.0)), __doc__)


if __name__ == "__main__":
    main()
