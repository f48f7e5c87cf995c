"""The network and the numbers of the Rare Gems golden values: their tests share it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hiddennet import config, methods
from hiddennet.methods import Method
from tests.golden import Golden

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def golden() -> Any:
    """The golden arrays."""
    return Golden("rare_gems")


def fill(shape: tuple[int, ...], f: float, p: float, amp: float = 1.0) -> torch.Tensor:
    """amp sin(f i + p), computed in float64, stored in float32."""
    index = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.from_numpy((amp * np.sin(f * index + p)).astype(np.float32)).view(shape)


class Tiny(nn.Sequential):
    """Four convolutions and three linear layers, 1344 weights; images (B, 3, 8, 8)."""

    first_layer, last_layer = "0", "15"

    def __init__(self) -> None:
        def conv(a: int, b: int) -> nn.Module:
            return nn.Conv2d(a, b, 3, padding=1, bias=False)

        def linear(a: int, b: int) -> nn.Module:
            return nn.Linear(a, b, bias=False)

        relu, pool = nn.ReLU, lambda: nn.MaxPool2d(2)
        super().__init__(
            *(conv(3, 4), relu(), conv(4, 4), relu(), pool(), conv(4, 6), relu(), conv(6, 6), relu(), pool()),
            *(nn.Flatten(), linear(24, 12), relu(), linear(12, 12), relu(), linear(12, 10)),
        )
        with torch.no_grad():
            for layer, module in enumerate(m for m in self if isinstance(m, nn.Conv2d | nn.Linear)):
                fan = module.weight[0].numel()
                wave = fill(tuple(module.weight.shape), 1.7 + 0.1 * layer, 0.5 * layer)
                signs = torch.where(wave < 0, -1.0, 1.0)
                module.weight.copy_(signs * (2.0 / fan) ** 0.5)


def set_scores(layers: list, f: float = 0.91, step: float = 0.07, p: float = 0.3) -> None:
    """Scores 0.5 + 0.5 sin, in place."""
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.scores.copy_(0.5 + 0.5 * fill(tuple(layer.weight_shape), f + step * i, p + i))


def flat(tensors) -> np.ndarray:
    return torch.cat([t.detach().flatten() for t in tensors]).numpy()


def method_of(tmp_path: Path, document: dict[str, Any]) -> tuple[nn.Module, Method]:
    """The tiny network made a method's, its weights kept."""
    torch.save(Tiny().state_dict(), tmp_path / "tiny.pt")
    settings = config.parse(
        {"name": "tiny", "model": {"name": "conv4"}, "data": {"name": "digits"}, "runs": str(tmp_path), **document}
    )
    method = methods.create(settings.setting())
    return method.build(Tiny()), method
