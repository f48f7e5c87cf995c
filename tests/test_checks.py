"""The tolerance policy itself: it must fail when it should."""

from __future__ import annotations

import pytest
import torch

from tests.checks import assert_equal, assert_no_worse_than


def test_equal_accepts_nan_and_refuses_one_bit():
    a = torch.tensor([1.0, float("nan")])
    assert_equal(a, a.clone())
    with pytest.raises(AssertionError, match="1 differ, first at 0"):
        assert_equal(torch.nextafter(a, torch.tensor(2.0)), a)
    with pytest.raises(AssertionError, match="dtype"):
        assert_equal(a.double(), a)


def test_no_worse_than_uses_torchs_error():
    exact = torch.tensor([1.0], dtype=torch.float64)
    assert_no_worse_than(torch.tensor([1.02]), torch.tensor([1.01]), exact)
    with pytest.raises(AssertionError, match="worst at 0"):
        assert_no_worse_than(torch.tensor([1.03]), torch.tensor([1.01]), exact)
