"""The heaviest layers of a network, convolutions and linear ones by multiply-adds, and how long a step of one takes."""

import copy
import time
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from hiddennet.nn.hidden import HiddenMixin


class LayerShape(NamedTuple):
    """What the time of a layer depends on, and the multiply-adds of one input. Options as torch's function has them.

    input: without the batch.
    """

    function: str  # of torch.nn.functional
    input: tuple[int, ...]
    weight: tuple[int, ...]
    options: tuple
    multiply_adds: int

    @property
    def words(self) -> str:
        """Such as "conv2d 64x32x32 by 64x64x3x3 (1, 1) (1, 1) (1, 1) 1"."""
        sizes = ("x".join(map(str, shape)) for shape in (self.input, self.weight))
        return " ".join([self.function, " by ".join(sizes), *map(str, self.options)])


def heaviest(model: nn.Module, one: Tensor, count: int = 3) -> list[LayerShape]:
    """The shapes of layer with most multiply-adds in all layers of that shape, the heaviest first.

    Raises whatever the model raises.

    one: a batch of one input of the model. The model is left as it is, and so are its and torch's random numbers.
    """
    found: Counter[LayerShape] = Counter()

    def look(module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and isinstance(inputs[0], Tensor):
            found[_shape_of(module, inputs[0], output)] += 1

    tried = copy.deepcopy(model).eval()
    for module in tried.modules():
        if isinstance(module, (nn.Linear, _ConvNd)):
            module.register_forward_hook(look)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        tried(one)
    return sorted(found, key=lambda layer: (-layer.multiply_adds * found[layer], layer.words))[:count]


def _shape_of(module: nn.Module, x: Tensor, y: Tensor) -> LayerShape:
    weight = tuple(module.weight_shape if isinstance(module, HiddenMixin) else module.weight.shape)
    size = torch.Size(weight).numel()
    if isinstance(module, nn.Linear):
        rows = x.numel() // max(1, weight[1])
        return LayerShape("linear", (rows, weight[1]), weight, (), size * rows)
    function = f"conv{'_transpose' if isinstance(module, _ConvTransposeNd) else ''}{len(weight) - 2}d"
    options: tuple = (module.stride, module.padding)
    if isinstance(module, _ConvTransposeNd):
        options += (module.output_padding, module.groups, module.dilation)
    else:
        options += (module.dilation, module.groups)
    positions = (x if isinstance(module, _ConvTransposeNd) else y).shape[2:].numel()
    return LayerShape(function, tuple(x.shape[1:]), weight, options, size * positions)


class Step:
    """Forward and both gradients of a plain layer on numbers of its own, under autocast to bfloat16 or without."""

    def __init__(self, layer: LayerShape, batch: int, *, bfloat16: bool, channels_last: bool):
        generator = torch.Generator().manual_seed(0)
        layout = torch.channels_last if channels_last and len(layer.input) == 3 else torch.contiguous_format
        shape = (batch * layer.input[0], *layer.input[1:]) if layer.function == "linear" else (batch, *layer.input)
        x, weight = (torch.randn(size, generator=generator) for size in (shape, layer.weight))
        self.layer, self.bfloat16 = layer, bfloat16
        self.x = x.to(torch.bfloat16 if bfloat16 else torch.float32).contiguous(memory_format=layout).requires_grad_()
        if len(layer.weight) == 4:
            weight = weight.contiguous(memory_format=layout)
        self.weight = weight.requires_grad_()

    def seconds(self) -> float:
        """CPU time of one, all threads together: what else runs on the machine does not count."""
        begun = time.process_time()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            y = getattr(F, self.layer.function)(self.x, self.weight, None, *self.layer.options)
        torch.autograd.grad(y, (self.x, self.weight), y.detach())
        return time.process_time() - begun
