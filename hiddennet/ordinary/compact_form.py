"""Compact networks as modules that torch.export traces: products as convolutions of 1 x 1 pixels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiddennet.compaction.base import CompactNetwork
from hiddennet.compaction.discrete import CompactDiscrete
from hiddennet.compaction.mobilenet import CompactMobileNet
from hiddennet.compaction.parts import Nodes, Product
from hiddennet.compaction.static import CompactStatic
from hiddennet.compaction.stem import Stem, normed


class _Sum(nn.Module):
    """A Product, dense."""

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.weight = nn.Parameter(product.matrix()[:, :, None, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


def _sent(nodes: Nodes, x: Tensor, first: int, stride: int = 1, *, plain: bool = False) -> Tensor:
    """What Nodes.send_into writes."""
    span = slice(first, first + x.shape[1])
    ready = x if plain else x * nodes.scale[span, None, None] + nodes.shift[span, None, None]
    return F.conv2d(F.relu(ready), nodes.taps[span, None], stride=stride, padding=1, groups=x.shape[1])


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class CompactForm(nn.Module):
    """The compact network is `model`."""

    def __init__(self, model: CompactNetwork) -> None:
        super().__init__()
        self.model = model
        self.sums = nn.ModuleDict(
            {name.replace(".", "/"): _Sum(product) for name, product in model.products_by_name().items()}
        )

    def sum(self, name: str) -> nn.Module:
        return self.sums[name.replace(".", "/")]

    def products(self) -> dict[int, str]:
        """The names of the products by the id of their weight here."""
        return {id(one.weight): name.replace("/", ".") for name, one in self.sums.items()}


class _MobileNet(CompactForm):
    def forward(self, images: Tensor) -> Tensor:
        model: CompactMobileNet = self.model
        x = F.conv2d(images, model.conv1.weight, stride=model.spec["stride"], padding=1)
        for i, stage in enumerate(model.stages):
            sent, seen, stride = [], 0, stage.stride
            for j in range(len(stage.products)):
                sent.append(_sent(stage.nodes, x, seen, stride))
                seen, stride = seen + x.shape[1], 1
                x = self.sum(f"stages.{i}.products.{j}")(_joined(sent))
        head = model.classifier
        x = F.relu(x * head.scale[:, None, None] + head.shift[:, None, None]).mean((2, 3), keepdim=True)
        return self.sum("classifier.product")(x).flatten(1) + head.bias


def _stem(stem: Stem, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = F.relu(F.conv2d(images, stem.first_weight, stem.first_bias, stride=2, padding=1))
    x = F.conv2d(x, stem.middle_weight, stem.middle_bias, stride=2, padding=1, groups=len(stem.middle_bias))
    return F.conv2d(x, weight, bias)


class _Static(CompactForm):
    def forward(self, images: Tensor) -> Tensor:
        model: CompactStatic = self.model
        x, sent, seen = _stem(model.stem, images, model.stem.last_weight, model.stem.last_bias), [], 0
        for j in range(len(model.products)):
            sent.append(_sent(model.nodes, normed(x), seen))
            seen += x.shape[1]
            x = self.sum(f"products.{j}")(_joined(sent))
        return model.head(x)


class _Discrete(CompactForm):
    def __init__(self, model: CompactDiscrete) -> None:
        super().__init__(model)
        stem = model.stem
        weight = stem.last_weight.new_zeros(model.senders, *stem.last_weight.shape[1:])
        bias = stem.last_bias.new_zeros(model.senders)
        weight[model.place], bias[model.place] = stem.last_weight.data, stem.last_bias.data
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> Tensor:
        model: CompactDiscrete = self.model
        first, between, _ = model.spec["groups"]
        x = _stem(model.stem, images, self.weight, self.bias)
        for step in range(model.spec["steps"]):
            if step:
                x = normed(_joined([self.sum(f"products.{j}")(x) for j, n in enumerate((first, between)) if n]))
            x = _sent(model.nodes, x, 0, plain=step == 0)
        read = [self.sum(f"products.{j}")(x) for j, n in enumerate(model.spec["groups"]) if n and j]
        scale, shift = (one[first:, None, None] for one in (model.nodes.scale, model.nodes.shift))
        return model.head(normed(_joined(read)) * scale + shift)


_FORMS: dict[type[CompactNetwork], Callable[..., CompactForm]] = {
    CompactMobileNet: _MobileNet,
    CompactStatic: _Static,
    CompactDiscrete: _Discrete,
}


def compact_form(model: CompactNetwork) -> CompactForm:
    """The network as a module that torch.export traces; it shares what tensors it can.

    Raises ValueError for a network of which next to nothing is left.
    """
    empty = [name for name, one in model.products_by_name().items() if not one.n_sources or not one.n_destinations]
    if isinstance(model, CompactDiscrete):  # whose groups may be empty
        empty = [] if model.read and model.senders else ["products"]
    if empty:
        raise ValueError(f"runtime: expected a compact network with nodes in every block, got none in {empty[0]}")
    return _FORMS[type(model)](model).eval()
