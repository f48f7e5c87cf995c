"""pack_mask and unpack_mask: 1 bit a weight in OIHW order."""

from __future__ import annotations

import pytest
import torch

from hiddennet import ops
from tests import reference
from tests.checks import assert_equal


def test_by_eye(device):
    mask = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 1], dtype=torch.bool, device=device)
    assert ops.pack_mask(mask).tolist() == [0b10000001, 0b1]


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (31, 3), (5, 3, 3, 3), (64, 16, 3, 3), (100_003,), (0,)])
def test_equals_the_reference_and_comes_back(device, shape):
    mask = torch.rand(shape) < 0.3
    bits = ops.pack_mask(mask.to(device))
    assert_equal(bits, reference.pack_mask(mask))
    assert_equal(ops.unpack_mask(bits, shape), mask)
    assert_equal(reference.unpack_mask(bits.cpu(), shape), mask)
    if len(shape) == 4:
        other = mask.to(device).contiguous(memory_format=torch.channels_last)
        assert_equal(ops.pack_mask(other), bits)


def test_bad_input():
    with pytest.raises(TypeError, match="dtype bool, got float32"):
        ops.pack_mask(torch.ones(3))
    with pytest.raises(TypeError, match="dtype uint8"):
        ops.unpack_mask(torch.ones(3), (3,))
    with pytest.raises(ValueError, match=r"expected 2 bytes for shape \(9,\), got 1"):
        ops.unpack_mask(torch.zeros(1, dtype=torch.uint8), (9,))


def test_opcheck(device):
    mask = torch.rand(4, 5, device=device) < 0.5
    torch.library.opcheck(torch.ops.hiddennet.pack_mask.default, (mask,))
    torch.library.opcheck(torch.ops.hiddennet.unpack_mask.default, (ops.pack_mask(mask), [4, 5]))
