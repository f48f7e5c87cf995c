"""dense_conv_weight_gradient against float64; threads and instruction sets are in test_sparse_conv.py."""

from __future__ import annotations

import pytest
import torch

from hiddennet.ops import dense_conv_weight_gradient
from tests import reference
from tests.checks import assert_equal, assert_no_worse_than
from tests.ops.test_sparse_conv import CASES, EMPTY, make_case


def _case(name: str):
    x, weight, dy, geometry = make_case(name, "everything")
    return x, dy, weight.shape, geometry


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_is_near_float64(name, channels_last):
    x, dy, shape, geometry = _case(name)
    got = dense_conv_weight_gradient(x, dy, shape, *geometry, channels_last=channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert got.is_contiguous(memory_format=layout)
    like, want = (
        reference.dense_conv_weight_gradient(x.to(t), dy.to(t), shape, *geometry)
        for t in (torch.float32, torch.float64)
    )
    assert_no_worse_than(got, like, want, floor=5e-7)
    plain = dense_conv_weight_gradient(x.contiguous(), dy.contiguous(), shape, *geometry)
    assert_equal(plain, got)


@pytest.mark.parametrize("name", EMPTY)
def test_empty(name):
    x, dy, shape, geometry = _case(name)
    assert_equal(dense_conv_weight_gradient(x, dy, shape, *geometry), torch.zeros(shape))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_stays_in_its_channel(bad):
    x, dy, shape, geometry = _case("3x3")
    want = dense_conv_weight_gradient(x, dy, shape, *geometry)
    x[3, 7, 4, 4] = bad
    dw = dense_conv_weight_gradient(x, dy, shape, *geometry)
    assert not bool(dw[:, 7].isfinite().any())
    others = [c for c in range(shape[1]) if c != 7]
    assert_equal(dw[:, others], want[:, others])


def _wrong():
    x, dy, shape, geometry = _case("3x3")
    good = dict(x=x, dy=dy, weight_shape=shape, stride=geometry[0], padding=geometry[1], dilation=geometry[2])
    return good, {
        "expected x of dtype float32": dict(x=x.double()),
        "expected x of shape": dict(x=x[0]),
        "without groups": dict(x=x[:, :3]),
        "expected dy of shape": dict(dy=dy[:, 1:]),
        "expected stride": dict(stride=(1, 0)),
        "to be a Tensor": dict(dy=None),
    }


@pytest.mark.parametrize("message", _wrong()[1])
def test_refuses(message):
    good, wrong = _wrong()
    with pytest.raises((TypeError, ValueError), match=message):
        dense_conv_weight_gradient(**{**good, **wrong[message]})


def test_opcheck():
    x, dy, shape, geometry = _case("oblong")
    raw = torch.ops.hiddennet.dense_conv_weight_gradient.default
    for channels_last in (True, False):
        torch.library.opcheck(raw, (x, dy, list(shape), *geometry, channels_last))
    with pytest.raises(RuntimeError, match="output shape"):
        raw(x, dy[1:], list(shape), *geometry, True)
