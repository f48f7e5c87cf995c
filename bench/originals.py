"""The original systems' sequences of operations, written anew, to be timed against.

Not for training: `hiddennet` is. Faithful where time goes: edge-popup sorts every layer's scores at
every forward, writes zeros and ones through the sort's indices, multiplies the mask with a stored
weight and lets autograd keep what it wants; fully connected layers are 1x1 convolutions on 1x1
maps; the optimiser is torch's default SGD. IteRand (`KthvalueConv2d`) finds its threshold with
kthvalue, reads it back to the host and takes zeros and ones that live on the CPU. Gem-Miner's
pruning gathers the active scores of all layers, sorts them and multiplies integer flags.

The random draws come in the originals' order (per layer: the default weight, then the scores), so a
seed gives the networks it gave there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL = {
    "conv2": (64, 64, "pool"),
    "conv4": (64, 64, "pool", 128, 128, "pool"),
    "conv6": (64, 64, "pool", 128, 128, "pool", 256, 256, "pool"),
    "conv8": (64, 64, "pool", 128, 128, "pool", 256, 256, "pool", 512, 512, "pool"),
}


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
        weight = self.weight * self.mask()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class KthvalueConv2d(SortConv2d):
    """IteRand's layer: signed scores against a threshold that visits the host."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, density: float = 0.5):
        super().__init__(c_in, c_out, kernel, stride, density)
        # plain attributes: moving the model leaves them on the CPU, as there
        self.zeros, self.ones = torch.zeros(self.scores.shape), torch.ones(self.scores.shape)

    def mask(self) -> Tensor:
        return KthvalueMask.apply(self.scores, 1 - self.density, self.zeros, self.ones)


Layer = Callable[..., nn.Module]


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm that learns nothing."""
    return nn.BatchNorm2d(channels, affine=False)


class SmallNet(nn.Module):
    """Conv2/4/6/8: 3x3 convolutions and poolings, then three 1x1 convolutions on a 1x1 map."""

    def __init__(self, plan: tuple[int | str, ...], layer: Layer = SortConv2d):
        super().__init__()
        convs: list[nn.Module] = []
        channels, side = 3, 32
        for step in plan:
            if step == "pool":
                convs.append(nn.MaxPool2d(2, 2))
                side //= 2
            else:
                convs += [layer(channels, step, 3), nn.ReLU()]
                channels = step
        self.convs = nn.Sequential(*convs)
        self.features = channels * side * side
        self.linear = nn.Sequential(
            layer(self.features, 256, 1),
            nn.ReLU(),
            layer(256, 256, 1),
            nn.ReLU(),
            layer(256, 10, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = self.convs(x).reshape(x.shape[0], self.features, 1, 1)
        return self.linear(maps).squeeze()


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int, layer: Layer):
        super().__init__()
        self.conv1, self.bn1 = layer(c_in, c_out, 3, stride), batch_norm(c_out)
        self.conv2, self.bn2 = layer(c_out, c_out, 3), batch_norm(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(layer(c_in, c_out, 1, stride), batch_norm(c_out))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class ResNet18(nn.Module):
    """The CIFAR network: a 3x3 stem, four stages of two blocks, a 1x1 convolution as classifier."""

    def __init__(self, layer: Layer = SortConv2d):
        super().__init__()
        self.conv1, self.bn1 = layer(3, 64, 3), batch_norm(64)
        channels = 64
        for stage, (wide, stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2)), start=1):
            first = Block(channels, wide, stride, layer)
            self.add_module(f"layer{stage}", nn.Sequential(first, Block(wide, wide, 1, layer)))
            channels = wide
        self.fc = layer(512, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.avg_pool2d(x, 4)).flatten(1)


def build(name: str, layer: Layer = SortConv2d) -> nn.Module:
    """conv2, conv4, conv6, conv8 or cifar_resnet18, with `layer` for every convolution."""
    if name == "cifar_resnet18":
        return ResNet18(layer)
    if name not in SMALL:
        raise ValueError(f"originals: expected one of {', '.join(SMALL)} or cifar_resnet18, got {name!r}")
    return SmallNet(SMALL[name], layer)


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
