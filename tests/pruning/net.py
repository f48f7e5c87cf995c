"""The small network on which the original system's pruners were recorded, and how its values are named."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Two convolutions with batch norm, the mean over the image, a linear layer with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.b1 = nn.BatchNorm2d(4)
        self.c2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.b2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b1(self.c1(x)))
        x = torch.relu(self.b2(self.c2(x)))
        return self.fc(x.mean(dim=(2, 3)))


@torch.no_grad()
def golden_net(values: dict[str, Tensor], default_norms: bool = False) -> Net:
    """The network with the recorded weights; default_norms leaves batch norm as torch makes it."""
    net = Net()
    for name in ("c1", "c2", "fc"):
        getattr(net, name).weight.copy_(values[f"prune/w_{name}"])
    net.fc.bias.copy_(values["prune/w_fcb"])
    for name in () if default_norms else ("b1", "b2"):
        for part in ("weight", "bias", "running_mean", "running_var"):
            getattr(getattr(net, name), part).copy_(values[f"prune/{name}_{part}"])
    return net
