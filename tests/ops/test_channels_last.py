"""channels_last: the same elements, in the other memory format, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from hiddennet import ops
from tests.checks import assert_equal

pytestmark = pytest.mark.isa


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "size", [(3, 64, 8, 8), (2, 33, 5, 7), (1, 1, 4, 4), (5, 70, 1, 1), (2, 3, 40, 41), (0, 4, 3, 3), (2, 32, 0, 4)]
)
def test_equals_torchs(size, dtype):
    x = torch.randn(size).to(dtype)
    got = ops.channels_last(x)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert_equal(got, x)


def test_other_memory_is_left_to_torch():
    x = torch.randn(2, 40, 6, 6)
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        x[:, ::2],
        x.transpose(2, 3),
        x.expand(2, 40, 6, 6)[:1],
    ):
        got = ops.channels_last(other)
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert_equal(got, other)
    assert ops.channels_last(x.to("meta")).is_contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(
        torch.ops.hiddennet.channels_last.default, (x,), test_utils=("test_schema", "test_faketensor")
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="expected x of dtype float32 or bfloat16 or float16, got int64"):
        ops.channels_last(torch.zeros(1, 2, 3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected x of shape \(N, C, H, W\), got \(2, 3\)"):
        ops.channels_last(torch.zeros(2, 3))
