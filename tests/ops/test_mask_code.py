"""encode_mask and decode_mask: near the entropy of a mask's density, the same mask again, and nothing else taken."""

from __future__ import annotations

import bisect
import math

import pytest
import torch

from hiddennet import ops
from hiddennet.ops import mask_code
from tests.checks import assert_equal


def drawn(n: int, density: float) -> torch.Tensor:
    return torch.rand(n) < density


def entropy(mask: torch.Tensor) -> float:
    p = float(mask.float().mean())
    return 0.0 if p in (0.0, 1.0) else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


@pytest.mark.parametrize("density", [0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.99])
def test_within_three_per_cent_of_the_entropy(density):
    mask = drawn(400_003, density)
    coded = ops.encode_mask(mask)
    assert 8 * coded.numel() <= 1.03 * entropy(mask) * mask.numel()
    assert_equal(ops.decode_mask(coded, int(mask.sum()), (400_003,)), mask)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (8,), (9,), (31, 3), (5, 3, 3, 3), (64, 16, 3, 3)])
def test_every_mask_comes_back(shape, density):
    mask = drawn(math.prod(shape), density).view(shape)
    assert_equal(ops.decode_mask(ops.encode_mask(mask), int(mask.sum()), shape), mask)
    turned = mask.mT if mask.dim() > 1 else mask
    assert_equal(ops.decode_mask(ops.encode_mask(turned), int(mask.sum()), tuple(turned.shape)), turned.contiguous())


def test_a_mask_that_is_not_drawn_evenly():
    mask = torch.zeros(1000, 37, dtype=torch.bool)
    mask[:300] = True
    coded = ops.encode_mask(mask)
    assert_equal(ops.decode_mask(coded, 11_100, (1000, 37)), mask)


def decoded(coded: list[int], frequencies: list[int], count: int) -> list[int]:
    """The definition, in whole numbers of Python."""
    per_byte = [frequencies[bin(byte).count("1")] for byte in range(256)]
    below = [sum(per_byte[:byte]) for byte in range(256)]
    raw = bytes(coded)
    lanes = 1 if count < 32768 else 4
    states = [int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(lanes)]
    words = [int.from_bytes(raw[i : i + 4], "little") for i in range(8 * lanes, len(raw), 4)]
    found = []
    for i in range(count):
        slot, lane = states[i % lanes] % 2**16, i % lanes
        byte = bisect.bisect_right(below, slot) - 1
        found.append(byte)
        states[lane] = per_byte[byte] * (states[lane] >> 16) + slot - below[byte]
        if states[lane] < 2**31:
            states[lane] = states[lane] << 32 | words.pop(0)
    assert states == [2**31] * lanes and not words
    return found


@pytest.mark.parametrize("n", [3001, 270_001])
@pytest.mark.parametrize("density", [0.02, 0.4, 0.8])
def test_equals_the_definition(density, n):
    mask = drawn(n, density)
    frequencies = mask_code._frequencies(int(mask.sum()), n)
    coded = ops.encode_mask(mask).tolist()
    assert decoded(coded, frequencies, (n + 7) // 8) == ops.pack_mask(mask).tolist()


def test_frequencies_are_those_of_every_machine():
    assert mask_code._frequencies(3, 10) == [3906, 1619, 693, 297, 127, 54, 23, 10, 4]
    for kept in (0, 1, 17, 500, 999, 1000):
        found = mask_code._frequencies(kept, 1000)
        assert min(found) >= 1 and sum(math.comb(8, k) * f for k, f in enumerate(found)) == 2**16


def test_damage_is_one_sentence():
    mask = drawn(5003, 0.2)
    kept, coded = int(mask.sum()), ops.encode_mask(mask)
    bad = [coded[:-4], coded[:-1], coded[:7], coded[:0], torch.cat([coded, coded[:4]]), coded.flip(0)]
    for at in range(0, coded.numel(), 7):
        changed = coded.clone()
        changed[at] ^= 1 << at % 8
        bad.append(changed)
    bad += [torch.randint(256, (coded.numel(),), dtype=torch.uint8) for _ in range(200)]
    for one in bad:
        with pytest.raises(ValueError, match="decode_mask: expected") as raised:
            ops.decode_mask(one, kept, (5003,))
        assert "\n" not in str(raised.value)
    for other in (kept - 1, kept + 1, -1, 5004):
        with pytest.raises(ValueError, match="decode_mask: expected"):
            ops.decode_mask(coded, other, (5003,))
    with pytest.raises(ValueError, match="decode_mask: expected"):
        ops.decode_mask(coded, kept, (5010,))
    with pytest.raises(TypeError, match="dtype bool, got float32"):
        ops.encode_mask(torch.ones(3))
    with pytest.raises(TypeError, match="dtype uint8"):
        ops.decode_mask(torch.ones(3), 1, (3,))
    with pytest.raises(RuntimeError, match="expected frequencies of bytes by their number of ones"):
        torch.ops.hiddennet.decode_mask.default(coded, [0] * 9, 5)


def test_opcheck():
    mask = drawn(4001, 0.2)
    arguments = ops.encode_mask(mask), mask_code._frequencies(int(mask.sum()), 4001), 501
    torch.library.opcheck(torch.ops.hiddennet.decode_mask.default, arguments)
