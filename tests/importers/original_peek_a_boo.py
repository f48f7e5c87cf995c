"""Checkpoints and evaluation of the original Peek-a-Boo, written here apart from our layers, at any width.

In its format: its names of modules, a mask beside each weight that is pruned, its Seed layers' latent tensors.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CONVS = {"Conv4": (64, 64, "M", 128, 128, "M"), "Conv6": (64, 64, "M", 128, 128, "M", 256, 256, "M")}
VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
RESIDUAL = {  # planes, blocks, bottleneck, groups and base width
    "ResNet20": ((16, 32, 64), (3, 3, 3), False),
    "ResNet18": ((64, 128, 256, 512), (2, 2, 2, 2), False),
    "WideResNet28_10": ((160, 320, 640), (4, 4, 4), False),
    "resnet18": ((64, 128, 256, 512), (2, 2, 2, 2), False),
    "resnet50": ((64, 128, 256, 512), (3, 4, 6, 3), True),
}


def stack(plan: tuple, prefix: str, channels: int, width: float) -> Iterator[tuple[str, tuple[int, ...] | int]]:
    """Names in a Sequential of convolution, batch norm, ReLU, with a pooling at each M, and their shapes."""
    index = 0
    for step in plan:
        if step == "M":
            index += 1
            continue
        out = int(step * width)
        yield f"{prefix}.{index}", (out, channels, 3, 3)
        yield f"{prefix}.{index + 1}", out
        channels, index = out, index + 3


def residual(arch: str, width: float, classes: int) -> Iterator[tuple[str, tuple[int, ...] | int]]:
    planes, blocks, bottleneck = RESIDUAL[arch]
    wide, imagenet = arch.startswith("Wide"), arch.islower()
    channels = int((16 if wide else planes[0]) * width)
    size = 7 if imagenet else 3
    yield "conv1", (channels, 3, size, size)
    if not wide:
        yield "bn1", channels
    for stage, (plane, count) in enumerate(zip(planes, blocks, strict=True), start=1):
        for i in range(count):
            here, thin = f"layer{stage}.{i}.", int(plane * width)
            sizes = [(thin, 1), (thin, 3), (4 * thin, 1)] if bottleneck else [(thin, 3), (thin, 3)]
            inner = channels
            for j, (out, kernel) in enumerate(sizes, start=1):
                yield f"{here}conv{j}", (out, inner, kernel, kernel)
                yield f"{here}bn{j}", inner if wide else out
                inner = out
            if inner != channels or (stage > 1 and i == 0):
                skip = here + ("downsample" if imagenet else "shortcut")
                yield f"{skip}.0", (inner, channels, 1, 1)
                if not wide:
                    yield f"{skip}.1", inner
            channels = inner
    if wide:
        yield "bn1", channels
    yield "fc" if imagenet else "linear", (classes, channels)


def shapes(arch: str, width: float, classes: int) -> dict[str, tuple[int, ...] | int]:
    if arch == "VGG11":
        return {**dict(stack(VGG11, "features", 3, width)), "classifier": (classes, int(512 * width))}
    if arch not in CONVS:
        return dict(residual(arch, width, classes))
    found = dict(stack(CONVS[arch], "convs", 3, width))
    features = int(CONVS[arch][-2] * width) * (8 if arch == "Conv4" else 4) ** 2
    dense = int(256 * width)
    for index, shape in ((0, (dense, features)), (3, (dense, dense)), (6, (classes, dense))):
        found[f"linear.{index}"] = (*shape, 1, 1)
    return {**found, "linear.1": dense, "linear.4": dense}


def state_of(arch: str, *, width: float = 0.25, classes: int = 10, psg: bool = False, seed: bool = False):
    """A state dict as the original saves it. psg: what its Psg layers add; seed: its Seed layers."""
    generator = torch.Generator().manual_seed(5)

    def draw(shape, bound):
        return (torch.rand(shape, generator=generator) * 2 - 1) * bound

    state = OrderedDict()
    for name, shape in shapes(arch, width, classes).items():
        if isinstance(shape, int):
            state[f"{name}.weight"] = 1 + draw((shape,), 0.5)
            state[f"{name}.bias"] = draw((shape,), 0.5)
            state[f"{name}.running_mean"] = draw((shape,), 0.1)
            state[f"{name}.running_var"] = 1 + draw((shape,), 0.5)
            state[f"{name}.num_batches_tracked"] = torch.tensor(391)
            continue
        bound = 1.7 / math.sqrt(math.prod(shape[1:]))
        state[f"{name}.weight"] = draw(shape, bound)
        biased = len(shape) == 2 or (arch == "VGG11" and not psg)
        if biased:
            state[f"{name}.bias"] = draw(shape[:1], 0.3)
        if (name == "linear" and len(shape) == 2) or (".downsample." in name and not psg):
            continue  # plain layers
        state[f"{name}.weight_mask"] = (draw(shape, 1) > 0.2).float()
        if ".downsample." in name:
            state[f"{name}.weight_mask"] = torch.ones(shape)
        if biased:
            state[f"{name}.bias_mask"] = torch.ones(shape[:1])
        if psg and len(shape) == 4:
            state[f"{name}.quant_input.running_max_values"] = torch.zeros(1, 1, 1, 1)
        if seed and len(shape) == 4:
            state[f"{name}.t"] = draw(shape, 0.5)
    return state


def effective(state) -> dict[str, Tensor]:
    """Weights as the original computes with them, by layer; Seed layers with signs of t."""
    found = {}
    for key, weight in state.items():
        name, _, leaf = key.rpartition(".")
        if leaf == "weight" and weight.dim() > 1:
            found[name] = weight * state.get(f"{name}.weight_mask", 1)
            if f"{name}.t" in state:
                found[name] = found[name] * state[f"{name}.t"].sign()
    return found


class Network:
    """The original's evaluation, functionally: with the given effective weights and the state's rest."""

    def __init__(self, arch: str, state, weights: dict[str, Tensor]) -> None:
        self.arch, self.state, self.weights = arch, state, weights

    def norm(self, name: str, x: Tensor) -> Tensor:
        rest = (self.state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *rest)

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = self.weights[name], self.state.get(f"{name}.bias")
        if bias is not None:
            bias = bias * self.state[f"{name}.bias_mask"]
        return F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2)

    def stack(self, plan: tuple, prefix: str, x: Tensor) -> Tensor:
        index = 0
        for step in plan:
            if step == "M":
                x, index = F.max_pool2d(x, 2), index + 1
            else:
                x = F.relu(self.norm(f"{prefix}.{index + 1}", self.conv(f"{prefix}.{index}", x)))
                index += 3
        return x

    def __call__(self, x: Tensor) -> Tensor:
        if self.arch in CONVS:
            x = self.stack(CONVS[self.arch], "convs", x).flatten(1)[:, :, None, None]
            for index in (0, 3):
                x = F.relu(self.norm(f"linear.{index + 1}", self.conv(f"linear.{index}", x)))
            return self.conv("linear.6", x).flatten(1)
        if self.arch == "VGG11":
            return self.linear("classifier", self.stack(VGG11, "features", x).flatten(1))
        return self.wide(x) if self.arch.startswith("Wide") else self.residual(x)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[name], self.state[f"{name}.bias"])

    def blocks(self) -> Iterator[tuple[str, int]]:
        """Prefix and stride of each block."""
        for stage, count in enumerate(RESIDUAL[self.arch][1], start=1):
            for i in range(count):
                yield f"layer{stage}.{i}.", 2 if stage > 1 and i == 0 else 1

    def residual(self, x: Tensor) -> Tensor:
        imagenet, bottleneck = self.arch.islower(), RESIDUAL[self.arch][2]
        x = F.relu(self.norm("bn1", self.conv("conv1", x, 2 if imagenet else 1)))
        x = F.max_pool2d(x, 3, 2, 1) if imagenet else x
        for here, stride in self.blocks():
            y, depth = x, 3 if bottleneck else 2
            for j in range(1, depth + 1):
                y = self.conv(f"{here}conv{j}", y, stride if j == depth - 1 else 1)
                y = self.norm(f"{here}bn{j}", y)
                y = F.relu(y) if j < depth else y
            skip = here + ("downsample" if imagenet else "shortcut")
            if f"{skip}.0" in self.weights:
                x = self.norm(f"{skip}.1", self.conv(f"{skip}.0", x, stride))
            elif x.shape != y.shape:
                empty = (y.shape[1] - x.shape[1]) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, empty, empty))
            x = F.relu(y + x)
        return self.linear("fc" if imagenet else "linear", x.mean((2, 3)))

    def wide(self, x: Tensor) -> Tensor:
        x = self.conv("conv1", x)
        for here, stride in self.blocks():
            y = self.conv(f"{here}conv1", F.relu(self.norm(f"{here}bn1", x)))
            y = self.conv(f"{here}conv2", F.relu(self.norm(f"{here}bn2", y)), stride)
            skip = f"{here}shortcut.0"
            x = y + (self.conv(skip, x, stride) if skip in self.weights else x)
        return self.linear("linear", F.relu(self.norm("bn1", x)).mean((2, 3)))


def save_cifar(path, state, *, parallel: bool = False):
    """As main_cifar.py writes ckpt.pth."""
    if parallel:
        state = OrderedDict((f"module.{key}", value) for key, value in state.items())
    torch.save({"net": state, "acc": 92.5, "epoch": 179}, path)
    return path


def save_imagenet(path, arch: str, state):
    """As main_imagenet_train.py writes checkpoint.pth.tar."""
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    best = {"best_acc1": torch.tensor(70.5), "acc5": torch.tensor(90.0)}
    state = OrderedDict((f"module.{key}", value) for key, value in state.items())
    torch.save({"epoch": 100, "arch": arch, "state_dict": state, "optimizer": optimizer, **best}, path)
    return path


def save_pruned(path, state):
    """As main_imagenet_prune.py writes its file."""
    torch.save({"epoch": 0, "best_acc1": 0, "state_dict": state, "optimizer": None}, path)
    return path
