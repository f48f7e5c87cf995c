"""The models by name: ``build`` makes one, ``names`` lists them. Not where a network is defined."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from . import dnw
from .layers import BATCH_NORMS
from .lstm import LstmLm
from .mnist import LeNet5, RamanujanNet
from .mobilenet import MobileNetV2
from .mobilenet_v1 import MobileNetV1
from .resnet import ResNet
from .small import POOL, SmallNet
from .thin_resnet import ThinResNet
from .vgg import DEPTHS, Vgg
from .wide_resnet import WideResNet


@dataclass(frozen=True)
class Request:
    """What ``build`` was asked for, with the model's defaults filled in."""

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    width: float
    batch_norm: str
    bias: bool
    conv_bias: bool
    stem_scaled: bool
    layers: int | None
    dropout: float | None
    graph: dict[str, Any] | None


@dataclass(frozen=True)
class Entry:
    """A model's default input, how it is made, which keys of the request ``make`` takes, and their
    defaults where they are None."""

    in_channels: int
    image_size: int
    make: Callable[..., nn.Module]
    takes: tuple[str, ...]
    defaults: dict[str, float] = field(default_factory=dict)


_COMMON = ("num_classes", "in_channels", "width", "bias")
_SIZED = (*_COMMON, "image_size")
_NORMED = (*_COMMON, "batch_norm")
_GRAPH = ("num_classes", "in_channels", "image_size", "width", "graph")
TEXT = ("lstm_lm",)  # models of words, not of images


def _double_thin(*arguments: int, width: float, **others: object) -> nn.Module:
    return ThinResNet(*arguments, width=2 * width, **others)


def _small() -> dict[str, Entry]:
    entries = {
        "fc": Entry(1, 28, partial(SmallNet, (), (300, 100)), _SIZED),
        "digits_mlp": Entry(1, 8, partial(SmallNet, (), (512, 512)), _SIZED),
        "digits_conv": Entry(1, 8, partial(SmallNet, (32, 64, POOL), (256,)), _SIZED),
        "lenet5": Entry(1, 28, LeNet5, _SIZED),
        "ramanujan_net": Entry(1, 28, RamanujanNet, _SIZED),
    }
    for depth in (1, 2, 3):
        entries[f"fc1000_{depth}"] = Entry(1, 28, partial(SmallNet, (), (1000,) * depth), _SIZED)
    plan: tuple[int | str, ...] = ()
    for depth, channels in zip((2, 4, 6, 8), (64, 128, 256, 512), strict=True):
        plan = (*plan, channels, channels, POOL)
        make = partial(SmallNet, plan, (256, 256))
        entries[f"conv{depth}"] = Entry(3, 32, make, _SIZED)
        if depth in (4, 6):
            entries[f"conv{depth}_bn"] = Entry(3, 32, make, (*_SIZED, "batch_norm"))
    return entries


def _resnets() -> dict[str, Entry]:
    entries = {}
    takes = (*_NORMED, "stem_scaled")
    depths = {
        18: ((2, 2, 2, 2), False),
        34: ((3, 4, 6, 3), False),
        50: ((3, 4, 6, 3), True),
        101: ((3, 4, 23, 3), True),
        152: ((3, 8, 36, 3), True),
    }
    for depth, (blocks, bottleneck) in depths.items():
        make = partial(ResNet, blocks, bottleneck=bottleneck)
        entries[f"cifar_resnet{depth}"] = Entry(3, 32, partial(make, stem="cifar"), takes)
        entries[f"resnet{depth}"] = Entry(3, 224, partial(make, stem="imagenet"), takes)
    for depth in (50, 101):
        make = partial(ResNet, depths[depth][0], bottleneck=True, stem="imagenet", inner=2)
        entries[f"wide_resnet{depth}_2"] = Entry(3, 224, make, takes)
    for name, depth, inner in (("resnext50_32x4d", 50, 2), ("resnext101_32x8d", 101, 4)):
        make = partial(ResNet, depths[depth][0], bottleneck=True, stem="imagenet", inner=inner, groups=32)
        entries[name] = Entry(3, 224, make, takes)
    entries["tiny_resnet18"] = Entry(3, 64, entries["resnet18"].make, takes)
    return entries


def _vggs() -> dict[str, Entry]:
    takes = (*_NORMED, "image_size", "conv_bias")
    entries = {f"vgg{depth}": Entry(3, 32, partial(Vgg, counts), takes) for depth, counts in DEPTHS.items()}
    entries["tiny_vgg16"] = Entry(3, 64, entries["vgg16"].make, takes)
    return entries


def _registry() -> dict[str, Entry]:
    return {
        **_small(),
        **_resnets(),
        **_vggs(),
        "resnet20": Entry(3, 32, partial(ThinResNet, 3), _NORMED),
        "resnet32": Entry(3, 32, partial(ThinResNet, 5), _NORMED),
        "resnet32_double": Entry(3, 32, partial(_double_thin, 5), _NORMED),
        "resnet20_projection": Entry(3, 32, partial(ThinResNet, 3, projection=True), _NORMED),
        "resnet110_projection": Entry(3, 32, partial(ThinResNet, 18, projection=True), _NORMED),
        "wide_resnet28_2": Entry(3, 32, partial(WideResNet, 4, 2), _NORMED),
        "wide_resnet28_10": Entry(3, 32, partial(WideResNet, 4, 10, plain_skip=True, last_momentum=0.9), _NORMED),
        "mobilenet_v1": Entry(3, 32, MobileNetV1, (*_NORMED, "image_size")),
        "mobilenet_v2": Entry(3, 32, MobileNetV2, _NORMED),
        **{name: Entry(3, size, partial(dnw.make, name), _GRAPH) for name, size in dnw.IMAGE_SIZES.items()},
        "lstm_lm": Entry(
            1, 35, LstmLm, ("num_classes", "width", "bias", "layers", "dropout"), {"layers": 2, "dropout": 0.65}
        ),
    }


_ENTRIES = _registry()
GRAPHS = tuple(dnw.NETWORKS)  # models whose channels are the nodes of a wiring


def names() -> list[str]:
    """The names ``build`` knows, sorted."""
    return sorted(_ENTRIES)


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int | None = None,
    image_size: int | None = None,
    width: float = 1.0,
    batch_norm: str = "affine",
    bias: bool = False,
    conv_bias: bool = False,
    stem_scaled: bool = True,
    layers: int | None = None,
    dropout: float | None = None,
    graph: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Makes the model ``name`` with PyTorch's default initialisation of its weights.

    Args:
        name: one of ``names()``.
        num_classes: logits of the classifier.
        in_channels, image_size: of the square input images; None: the model's own (``fc*``,
            ``lenet5`` and ``ramanujan_net`` 1 and 28, ``digits_*`` 1 and 8, ``tiny_*`` 3 and 64,
            ``resnet18`` ... ``resnet152``, ``wide_resnet50_2``, ``101_2`` and ``resnext*`` 3 and 224,
            the others 3 and 32). The networks that end in a global average take any size;
            ``mobilenet_v1`` begins with stride 2 above 64.
        width: factor on every layer's channels, ``int(n * width)``; input and output keep theirs.
        batch_norm: ``affine``, ``non_affine`` or ``none``. The small nets (``fc*``, ``conv2`` ... ``conv8``,
            ``digits_*``, ``lenet5``, ``ramanujan_net``) have no batch norm by definition: unused there.
        bias: biases, zero at the start: in every layer of the small nets, in the classifier of the
            others, whose batch norm shifts the rest.
        conv_bias: zero biases in the convolutions of ``vgg*`` and ``tiny_vgg16`` too, refused elsewhere.
        stem_scaled: False: the first convolution keeps its 64 channels whatever the width, and the
            first block gets a projection (arXiv 2106.09269); for the residual networks of 64 to 512
            channels, refused elsewhere.
        layers, dropout: of ``lstm_lm`` (2 and 0.65), refused elsewhere. Its num_classes are the words
            of the vocabulary, it has 1500 units times ``width``, biases where ``bias`` is true, and no
            use for in_channels and image_size.
        graph: of the ``dnw_*`` networks: fields of their config objects (hiddennet.models.dnw), by name; the kind of
            graph is "complete" where it does not say. Refused elsewhere.

    The model carries ``first_layer`` and ``last_layer`` (names of modules, to keep them dense) and
    ``architecture``, the arguments that make it again: ``build(**model.architecture)``.

    Raises ValueError for an unknown name or an impossible number.
    """
    if name not in _ENTRIES:
        near = difflib.get_close_matches(str(name).lower(), _ENTRIES, n=1, cutoff=0.0)
        raise ValueError(f"model: expected one of {', '.join(names())}, got {name!r}; did you mean {near[0]!r}?")
    entry = _ENTRIES[name]
    if graph is not None and not isinstance(graph, Mapping):
        raise ValueError(f"graph: expected a map of keys such as {{'kind': 'dnw'}}, or None, got {graph!r}")
    request = Request(
        name=name,
        num_classes=num_classes,
        in_channels=entry.in_channels if in_channels is None else in_channels,
        image_size=entry.image_size if image_size is None else image_size,
        width=width,
        batch_norm=batch_norm,
        bias=bias,
        conv_bias=conv_bias,
        stem_scaled=stem_scaled,
        layers=entry.defaults.get("layers") if layers is None else layers,
        dropout=entry.defaults.get("dropout") if dropout is None else dropout,
        graph=None if graph is None else dict(graph),
    )
    _check(request, entry)
    model = entry.make(**{key: getattr(request, key) for key in entry.takes})
    model.architecture = dict(vars(request))
    return model


def _check(request: Request, entry: Entry) -> None:
    for key in ("num_classes", "in_channels", "image_size"):
        value = getattr(request, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key}: expected a whole number of at least 1, got {value!r}")
    if not 0 < request.width < float("inf"):
        raise ValueError(f"width: expected a positive number, got {request.width!r}")
    if request.batch_norm not in BATCH_NORMS:
        raise ValueError(f"batch_norm: expected one of {', '.join(BATCH_NORMS)}, got {request.batch_norm!r}")
    for key in ("bias", "conv_bias", "stem_scaled"):
        if not isinstance(getattr(request, key), bool):
            raise ValueError(f"{key}: expected true or false, got {getattr(request, key)!r}")
    for key, usual in (
        ("conv_bias", False),
        ("stem_scaled", True),
        ("layers", None),
        ("dropout", None),
        ("graph", None),
    ):
        value = getattr(request, key)
        if value is not usual and key not in entry.takes:
            takers = ", ".join(sorted(name for name, other in _ENTRIES.items() if key in other.takes))
            raise ValueError(f"{key}: expected {usual} for {request.name}, got {value}; it is for {takers}")
    if request.layers is not None and (not isinstance(request.layers, int) or request.layers < 1):
        raise ValueError(f"layers: expected a whole number of at least 1, got {request.layers!r}")
    if request.dropout is not None and not 0 <= request.dropout < 1:
        raise ValueError(f"dropout: expected a number in [0, 1), got {request.dropout!r}")
