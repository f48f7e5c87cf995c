"""The original systems' sequences of operations, written anew, to be timed against.

Not for training: `hiddennet` is. Faithful where time goes: edge-popup sorts every layer's scores at
every forward, writes zeros and ones through the sort's indices, multiplies the mask with a stored
weight and lets autograd keep what it wants; fully connected layers are 1x1 convolutions on 1x1
maps; the optimiser is torch's default SGD. IteRand (`KthvalueConv2d`) finds its threshold with
kthvalue, reads it back to the host and takes zeros and ones that live on the CPU. Gem-Miner's
pruning gathers the active scores of all layers, sorts them and multiplies integer flags.

The networks around the layers are the library's. The random draws come in the originals' order (per layer: the default
weight, then the scores), so a seed gives the networks it gave there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet import models


def pruned_count(n: int, density: float) -> int:
    """How many of n scores edge-popup prunes: (1 - density) n in double precision, cut off."""
    return int((1 - density) * n)


class SortedMask(torch.autograd.Function):
    """Zeros at the lowest places of an ascending sort, ones at the others; identity backwards."""

    @staticmethod
    def forward(ctx, magnitudes: Tensor, density: float) -> Tensor:
        mask = magnitudes.clone()
        _, ascending = magnitudes.flatten().sort()
        pruned = pruned_count(magnitudes.numel(), density)
        entries = mask.flatten()  # a view: the scores of this system are always contiguous
        entries[ascending[:pruned]] = 0
        entries[ascending[pruned:]] = 1
        return mask

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


class KthvalueMask(torch.autograd.Function):
    """Ones at or above the percentile `removed` of the scores, ties kept; identity backwards."""

    @staticmethod
    def forward(ctx, scores: Tensor, removed: float, zeros: Tensor, ones: Tensor) -> Tensor:
        rank = 1 + round(0.01 * float(100 * removed) * (scores.numel() - 1))
        threshold = scores.flatten().kthvalue(rank).values.item()
        below = scores < threshold
        return torch.where(below, zeros.to(scores.device), ones.to(scores.device))

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None, None, None


def redraw_(
    weight: Tensor, twin: Tensor, scores: Tensor, zeros: Tensor, ones: Tensor, removed: float, init: str, rate: float
) -> None:
    """IteRand's re-randomisation of one layer: a whole new weight and a coin for each entry, then three products.

    twin is a buffer of the weight's shape; zeros and ones live on the CPU. init: signed_constant (its draw is used for
    the signs), kaiming_uniform or kaiming_normal.
    """
    mask = KthvalueMask.apply(scores, removed, zeros, ones)
    if init == "kaiming_uniform":
        nn.init.kaiming_uniform_(twin, nonlinearity="relu")
    else:
        nn.init.kaiming_normal_(twin, nonlinearity="relu")
    if init == "signed_constant":
        deviation = math.sqrt(2) / math.sqrt(nn.init._calculate_correct_fan(twin, "fan_in"))
        twin.data = twin.data.sign() * deviation
    coin = torch.bernoulli(rate * torch.ones_like(weight))
    weight.data = mask * weight + (1 - mask) * (1 - coin) * weight + (1 - mask) * coin * twin


def sorted_strike(scores: list[Tensor], flags: list[Tensor], rate: float) -> tuple[list[Tensor], Tensor]:
    """Gem-Miner's pruning: (new int flags, threshold); the share `rate` of the active scores goes, ties all."""
    active = torch.cat([s.abs()[f == 1] for s, f in zip(scores, flags, strict=True)])
    going = math.ceil(rate * active.numel())
    threshold = torch.sort(active).values[going - 1]
    return [f * (s.abs() > threshold) for s, f in zip(scores, flags, strict=True)], threshold


class SortConv2d(nn.Conv2d):
    """Edge-popup's layer: frozen signed constants, scores of their shape, a sort a forward."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, density: float = 0.5):
        super().__init__(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        self.density = density
        self.scores = nn.Parameter(torch.empty_like(self.weight))
        nn.init.kaiming_uniform_(self.scores, a=math.sqrt(5))
        constant = math.sqrt(2) / math.sqrt(c_in * kernel * kernel)
        self.weight.data = self.weight.data.sign() * constant
        self.weight.requires_grad = False

    def mask(self) -> Tensor:
        return SortedMask.apply(self.scores.abs(), self.density)

    def forward(self, x: Tensor) -> Tensor:
        return convolved(self, x, self.weight * self.mask())


def convolved(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """The layer's convolution; features [N, C] become 1x1 maps and back: a fully connected layer."""
    if x.dim() == 2:
        return convolved(layer, x[:, :, None, None], weight).flatten(1)
    return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


class KthvalueConv2d(SortConv2d):
    """IteRand's layer: signed scores against a threshold that visits the host."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, density: float = 0.5):
        super().__init__(c_in, c_out, kernel, stride, density)
        # plain attributes: moving the model leaves them on the CPU, as there
        self.zeros, self.ones = torch.zeros(self.scores.shape), torch.ones(self.scores.shape)

    def mask(self) -> Tensor:
        return KthvalueMask.apply(self.scores, 1 - self.density, self.zeros, self.ones)


def build(name: str, layer: Callable[..., nn.Module] = SortConv2d) -> nn.Module:
    """A network for CIFAR-10 by its name in the library, with `layer` for all layers; batch norm learns nothing."""
    with torch.random.fork_rng(devices=[]):  # only the layers that stay may draw
        model = models.build(name, num_classes=10, batch_norm="non_affine")
    for path, old in list(model.named_modules()):
        if isinstance(old, (nn.Conv2d, nn.Linear)):
            out, inp, *kernel = old.weight.shape
            made = layer(inp, out, *(kernel[:1] or [1]), *getattr(old, "stride", [1])[:1])
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, made)
    return model


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    """Torch's default SGD on what learns: the scores, with weight decay on them."""
    learning = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(learning, lr, momentum=0.9, weight_decay=1e-4)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> Tensor:
    """One training step in the original's order; returns the loss."""
    loss = F.cross_entropy(model(x), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
