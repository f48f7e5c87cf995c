"""Make small.hidden: one layer of each way in which an artifact holds weights, and most operations of the runtime.

    python -m tests.runtime.files.make tests/runtime/files

Beside it input.f32, two images, and output.txt, what examples/runtime/classify says of them. The C++ tests read these.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn

LAYERS = {
    "signs": (hn.Generated("signed_constant", seed=5), hn.TopK(0.5)),
    "coded": (hn.Generated("signed_constant", seed=5), hn.TopK(0.05)),
    "normal": (hn.Generated("kaiming_normal", seed=2**40), hn.TopK(0.4)),
    "stored": (hn.Stored(), hn.TopK(0.3)),
    "constant": (hn.Generated("unsigned_constant"), hn.All()),
    "flipped": (hn.Flipped("kaiming_uniform", seed=3), hn.TopK(0.4)),
    "redrawn": (hn.Redrawn("kaiming_laplace", seed=8), hn.TopK(0.5)),
    "expectation": (hn.Generated("kaiming_truncated"), hn.Sampled(seed=4)),
}


class Small(nn.Module):
    """Every layer of LAYERS, once."""

    def __init__(self) -> None:
        super().__init__()
        self.signs, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.coded = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.normal = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.stored, self.constant = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.flipped = nn.Conv2d(16, 8, 2, stride=2)
        self.redrawn, self.expectation = nn.Conv2d(24, 8, 1), nn.Linear(8 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.signs(x)))
        x = F.relu(x + self.coded(x)) + 0.5
        x = x + F.hardswish(self.normal(x))
        x = x * torch.sigmoid(self.constant(F.relu6(self.stored(x.mean((2, 3), keepdim=True)))))
        x = torch.cat([F.silu(self.flipped(x)), F.max_pool2d(x, 2)], 1)
        return F.log_softmax(self.expectation(F.adaptive_avg_pool2d(self.redrawn(x), 2).flatten(1)), 1)


def make(folder: Path) -> None:
    """Write the files."""
    torch.manual_seed(0)
    model = hn.hide(Small(), lambda name, _: LAYERS[name][0], lambda name, _: LAYERS[name][1])
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 8, 8))
    hn.redraw(model, 3, rate=0.5)
    hn.export(model.eval(), folder / "small.hidden", runtime=True, example=torch.zeros(1, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    (folder / "input.f32").write_bytes(x.numpy().tobytes())
    with torch.no_grad():
        lines = [f"{int(y.argmax())} {float(y.max()):.3g}" for y in model(x)]
    (folder / "output.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
