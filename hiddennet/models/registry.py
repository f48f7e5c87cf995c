"""The models by name: ``build`` makes one, ``names`` lists them. Not where a network is defined."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from .layers import BATCH_NORMS
from .resnet import ResNet
from .small import POOL, SmallNet


@dataclass(frozen=True)
class Request:
    """What ``build`` was asked for, with the model's defaults filled in."""

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    width: float
    batch_norm: str


@dataclass(frozen=True)
class Entry:
    """A model's default input and how it is made."""

    in_channels: int
    image_size: int
    make: Callable[[Request], nn.Module]


def _small(plan: tuple[int | str, ...], hidden: tuple[int, ...], request: Request) -> nn.Module:
    return SmallNet(
        plan,
        hidden,
        num_classes=request.num_classes,
        in_channels=request.in_channels,
        image_size=request.image_size,
        width=request.width,
    )


def _resnet(blocks: tuple[int, ...], bottleneck: bool, stem: str, inner: int, request: Request) -> nn.Module:
    return ResNet(
        blocks,
        bottleneck=bottleneck,
        stem=stem,
        inner=inner,
        num_classes=request.num_classes,
        in_channels=request.in_channels,
        width=request.width,
        batch_norm=request.batch_norm,
    )


def _registry() -> dict[str, Entry]:
    entries = {
        "fc": Entry(1, 28, partial(_small, (), (300, 100))),
        "digits_mlp": Entry(1, 8, partial(_small, (), (512, 512))),
        "digits_conv": Entry(1, 8, partial(_small, (32, 64, POOL), (256,))),
    }
    plan: tuple[int | str, ...] = ()
    for depth, channels in zip((2, 4, 6, 8), (64, 128, 256, 512), strict=True):
        plan = (*plan, channels, channels, POOL)
        entries[f"conv{depth}"] = Entry(3, 32, partial(_small, plan, (256, 256)))
    depths = {
        18: ((2, 2, 2, 2), False),
        34: ((3, 4, 6, 3), False),
        50: ((3, 4, 6, 3), True),
        101: ((3, 4, 23, 3), True),
        152: ((3, 8, 36, 3), True),
    }
    for depth, (blocks, bottleneck) in depths.items():
        make = partial(_resnet, blocks, bottleneck)
        entries[f"cifar_resnet{depth}"] = Entry(3, 32, partial(make, "cifar", 1))
        if depth != 152:
            entries[f"resnet{depth}"] = Entry(3, 224, partial(make, "imagenet", 1))
    for depth in (50, 101):
        make = partial(_resnet, depths[depth][0], True, "imagenet", 2)
        entries[f"wide_resnet{depth}_2"] = Entry(3, 224, make)
    return entries


_ENTRIES = _registry()


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
) -> nn.Module:
    """Makes the model ``name`` with PyTorch's default initialisation and no bias anywhere.

    Args:
        name: one of ``names()``.
        num_classes: logits of the classifier.
        in_channels, image_size: of the square input images; None: the model's own (``fc`` 1 and
            28, ``digits_*`` 1 and 8, ``conv*`` and ``cifar_*`` 3 and 32, the others 3 and 224).
            The residual networks end in a global average and take any size.
        width: factor on every layer's channels, ``int(n * width)``; input and output keep theirs.
        batch_norm: ``affine``, ``non_affine`` or ``none``, for the residual networks. The small
            nets (``fc``, ``conv*``, ``digits_*``) have no batch norm by definition: unused there.

    The model carries ``first_layer`` and ``last_layer`` (names of modules, to keep them dense) and
    ``architecture``, the arguments that make it again: ``build(**model.architecture)``.

    Raises ValueError for an unknown name or an impossible number.
    """
    if name not in _ENTRIES:
        near = difflib.get_close_matches(str(name).lower(), _ENTRIES, n=1, cutoff=0.0)
        raise ValueError(f"model: expected one of {', '.join(names())}, got {name!r}; did you mean {near[0]!r}?")
    entry = _ENTRIES[name]
    request = Request(
        name=name,
        num_classes=num_classes,
        in_channels=entry.in_channels if in_channels is None else in_channels,
        image_size=entry.image_size if image_size is None else image_size,
        width=width,
        batch_norm=batch_norm,
    )
    for key in ("num_classes", "in_channels", "image_size"):
        value = getattr(request, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key}: expected a whole number of at least 1, got {value!r}")
    if not 0 < width < float("inf"):
        raise ValueError(f"width: expected a positive number, got {width!r}")
    if batch_norm not in BATCH_NORMS:
        raise ValueError(f"batch_norm: expected one of {', '.join(BATCH_NORMS)}, got {batch_norm!r}")
    model = entry.make(request)
    model.architecture = dict(vars(request))
    return model
