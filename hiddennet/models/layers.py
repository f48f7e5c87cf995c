"""The layers every model here is built from: convolutions and classifiers, without bias unless asked
for, the three kinds of batch norm, and stages of residual blocks. Not for hidden layers: ``hide`` puts
those in afterwards."""

from collections.abc import Callable, Iterator, Sequence

from torch import nn

BATCH_NORMS = ("affine", "non_affine", "none")


def conv(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A square convolution, its bias zero; ``padding`` None: what keeps the size at stride 1."""
    padding = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=bias)
    return _zero_bias(layer)


def linear(features_in: int, features_out: int, bias: bool = False) -> nn.Linear:
    """A fully connected layer, its bias zero."""
    return _zero_bias(nn.Linear(features_in, features_out, bias=bias))


def _zero_bias(layer: nn.Module) -> nn.Module:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def norm(channels: int, kind: str, momentum: float = 0.1) -> nn.Module:
    """Batch norm over ``channels``; ``kind`` is one of ``BATCH_NORMS``. ``none`` is an identity of
    the same name, so that module names do not depend on the kind."""
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels, momentum=momentum, affine=kind == "affine")


def stages(
    channels: int, outs: Sequence[int], counts: Sequence[int], block: Callable[[int, int, int], nn.Module]
) -> Iterator[nn.Sequential]:
    """The stages of a residual network on ``channels``: ``counts[i]`` blocks to ``outs[i]`` channels in
    stage i. ``block(channels in, channels out, stride)`` makes one; the stride is 2 in the first block
    of every stage but the first, else 1."""
    for stage, (out, count) in enumerate(zip(outs, counts, strict=True)):
        blocks = []
        for i in range(count):
            blocks.append(block(channels, out, 2 if stage > 0 and i == 0 else 1))
            channels = out
        yield nn.Sequential(*blocks)


def scaled(channels: int, width: float) -> int:
    """``int(channels * width)``, the rounding of the paper's wide variants.

    Raises ValueError where nothing would be left.
    """
    result = int(channels * width)
    if result < 1:
        raise ValueError(
            f"width: expected at least one channel in every layer, got {width} for a layer of "
            f"{channels}; use a width of at least {1 / channels:.3g}"
        )
    return result
