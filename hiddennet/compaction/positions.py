"""Places of edges in few bytes: an ascending list of numbers as Elias and Fano wrote it (1974, 1971)."""

import math

import torch
from torch import Tensor

from hiddennet import ops


def encode(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Write ascending, different numbers of [0, size): at most 0.6 bits each more than any code of them needs.

    The low bits lie one number after another; of the high parts, each number's has a one at itself plus its rank.

    Args:
        positions: int64 [n].
        size: what they are below.

    Returns:
        (low, high), uint8 each.
    """
    n, bits = positions.numel(), _low_bits(positions.numel(), size)
    low = (positions[:, None] >> torch.arange(bits)) & 1
    high = torch.zeros(_high_length(n, size, bits), dtype=torch.bool)
    high[(positions >> bits) + torch.arange(n)] = True
    return _pack(low.flatten().bool()), _pack(high)


def decode(low: Tensor, high: Tensor, n: int, size: int) -> Tensor:
    """The numbers again.

    Raises:
        ValueError: streams that no n ascending numbers below size give.
    """
    bits = _low_bits(n, size)
    length = _high_length(n, size, bits)
    lengths = (_bytes(n * bits), _bytes(length))
    if (low.numel(), high.numel()) != lengths:
        raise ValueError(f"positions: expected streams of {lengths} bytes, got {(low.numel(), high.numel())}")
    ones = _unpack(high, length).nonzero().flatten()
    if ones.numel() != n:
        raise ValueError(f"positions: expected {n} numbers, got {ones.numel()}")
    positions = (ones - torch.arange(n)) << bits
    if bits:
        positions += (_unpack(low, n * bits).view(n, bits).long() << torch.arange(bits)).sum(1)
    if n and (int(positions[-1]) >= size or bool((positions.diff() <= 0).any())):
        raise ValueError(f"positions: expected ascending numbers below {size}, got others")
    return positions


def sizes(n: int, size: int) -> tuple[int, int]:
    """Bytes of both streams."""
    bits = _low_bits(n, size)
    return _bytes(n * bits), _bytes(_high_length(n, size, bits))


def information(n: int, size: int) -> float:
    """Bits that n different numbers below size hold, all choices being alike: log2 of the binomial coefficient."""
    return (math.lgamma(size + 1) - math.lgamma(n + 1) - math.lgamma(size - n + 1)) / math.log(2)


def _low_bits(n: int, size: int) -> int:
    return max(0, (size // n).bit_length() - 1) if n else 0


def _high_length(n: int, size: int, bits: int) -> int:
    return n + (max(size - 1, 0) >> bits) if n else 0


def _bytes(bits: int) -> int:
    return (bits + 7) // 8


def _pack(bits: Tensor) -> Tensor:
    return ops.pack_mask(bits) if bits.numel() else torch.empty(0, dtype=torch.uint8)


def _unpack(stream: Tensor, count: int) -> Tensor:
    return ops.unpack_mask(stream, (count,)) if count else torch.empty(0, dtype=torch.bool)
