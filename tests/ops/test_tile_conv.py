"""tile_conv: every direction against float64, on every instruction set; bits do not depend on threads."""

from __future__ import annotations

import pytest
import torch

from hiddennet import ops
from tests.checks import assert_equal, assert_no_worse_than

pytestmark = pytest.mark.isa

CASES = {  # input, weight, stride, padding, dilation
    "3x3 on 4x4": ((33, 40, 4, 4), (48, 40, 3, 3), (1, 1), (1, 1), (1, 1)),
    "3x3, stride 2": ((5, 16, 9, 8), (8, 16, 3, 3), (2, 2), (1, 1), (1, 1)),
    "1x1, stride 2": ((16, 33, 6, 6), (17, 33, 1, 1), (2, 2), (0, 0), (1, 1)),
    "a matrix product": ((70, 65, 1, 1), (35, 65, 1, 1), (1, 1), (0, 0), (1, 1)),
    "3 channels": ((2, 3, 7, 5), (64, 3, 3, 3), (1, 1), (1, 1), (1, 1)),
    "dilated, oblong": ((3, 32, 9, 11), (32, 32, 2, 3), (1, 3), (0, 4), (3, 2)),
    "more padding than image": ((2, 4, 2, 3), (3, 4, 3, 3), (1, 1), (4, 3), (1, 1)),
    "steps over the kernel": ((4, 5, 9, 9), (6, 5, 2, 2), (3, 4), (0, 0), (1, 1)),
    "rows in bands": ((33, 33, 26, 16), (33, 33, 3, 3), (1, 1), (1, 1), (1, 1)),
}
PLAIN = (1, 1), (0, 0), (1, 1)
DIRECTIONS = ("forward", "input_gradient", "weight_gradient")


def _case(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict]:
    size, shape, stride, padding, dilation = CASES[name]
    how = {"stride": stride, "padding": padding, "dilation": dilation}
    x, weight = torch.randn(size), torch.randn(shape)
    dy = torch.randn_like(torch.nn.functional.conv2d(x, weight, None, **how))
    return *(t.bfloat16().contiguous(memory_format=torch.channels_last) for t in (x, weight, dy)), how


def _library(x, weight, dy, how, dtype) -> dict[str, torch.Tensor]:
    x, weight = (t.detach().to(dtype).requires_grad_() for t in (x, weight))
    y = torch.nn.functional.conv2d(x, weight, None, **how)
    y.backward(dy.to(dtype))
    return dict(zip(DIRECTIONS, (y.detach(), x.grad, weight.grad), strict=True))


def _tiles(x, weight, dy, how) -> dict[str, torch.Tensor]:
    return {
        "forward": ops.tile_conv_forward(x, weight, **how),
        "input_gradient": ops.tile_conv_input_gradient(dy, weight, x.shape, **how),
        "weight_gradient": ops.tile_conv_weight_gradient(x, dy, weight.shape, **how),
    }


@pytest.mark.parametrize("name", CASES)
def test_no_worse_than_the_library(name):
    x, weight, dy, how = _case(name)
    got, want, exact = (
        _tiles(x, weight, dy, how),
        *(_library(x, weight, dy, how, t) for t in (torch.bfloat16, torch.float64)),
    )
    for direction in DIRECTIONS:
        dtype = torch.float32 if direction == "weight_gradient" else torch.bfloat16
        assert got[direction].dtype is dtype and got[direction].shape == exact[direction].shape
        assert got[direction].is_contiguous(memory_format=torch.channels_last)
        assert_no_worse_than(got[direction], want[direction], exact[direction], floor=2**-8)


def test_the_weight_gradient_keeps_float32():
    x, weight, dy, how = _case("rows in bands")
    got = ops.tile_conv_weight_gradient(x, dy, weight.shape, **how)
    want, exact = (_library(x, weight, dy, how, t)["weight_gradient"] for t in (torch.float32, torch.float64))
    assert_no_worse_than(got, want, exact, floor=1e-6)


@pytest.mark.parametrize("name", ["3x3 on 4x4", "rows in bands"])
def test_bits_do_not_depend_on_threads(name):
    x, weight, dy, how = _case(name)
    threads = torch.get_num_threads()
    found = []
    for n in (1, 3):
        torch.set_num_threads(n)
        found.append(_tiles(x, weight, dy, how))
    torch.set_num_threads(threads)
    for direction in DIRECTIONS:
        assert_equal(found[0][direction], found[1][direction])


def test_padding_does_not_meet_infinity():
    x, weight = torch.ones(1, 1, 3, 3).bfloat16(), torch.full((1, 1, 3, 3), torch.inf).bfloat16()
    assert bool(ops.tile_conv_forward(x, weight, (1, 1), (1, 1), (1, 1)).isinf().all()), "no 0 * inf"


@pytest.mark.parametrize("size", [(0, 4, 5, 5), (3, 0, 5, 5)])
def test_nothing_gives_zeros(size):
    weight = torch.randn(6, size[1], 3, 3).bfloat16()
    y = ops.tile_conv_forward(torch.randn(size).bfloat16(), weight, *PLAIN)
    assert y.shape == (size[0], 6, 3, 3) and not bool(y.any())
    assert not bool(ops.tile_conv_weight_gradient(torch.randn(size).bfloat16(), y, weight.shape, *PLAIN).any())
    assert not bool(ops.tile_conv_input_gradient(y, weight, size, *PLAIN).any())


def test_what_does_not_fit_is_refused():
    x, weight, dy, how = _case("3x3 on 4x4")
    for words, call in {
        "dtype bfloat16": lambda: ops.tile_conv_forward(x.float(), weight, *PLAIN),
        "a weight of shape": lambda: ops.tile_conv_forward(x, weight[:, :3], *PLAIN),
        "at least as large as the kernel": lambda: ops.tile_conv_forward(x[:, :, :2, :2], weight, *PLAIN),
        "dy of shape": lambda: ops.tile_conv_weight_gradient(x, dy[:1], weight.shape, **how),
        r"shape \(N, C, H, W\)": lambda: ops.tile_conv_forward(x[0], weight, *PLAIN),
    }.items():
        with pytest.raises((TypeError, ValueError), match=words):
            call()


def test_under_compile_and_on_meta():
    x, weight, _, how = _case("3x3, stride 2")
    torch.library.opcheck(
        torch.ops.hiddennet.tile_conv_forward.default,
        (x, weight, *how.values()),
        test_utils=("test_schema", "test_faketensor"),
    )
    assert ops.tile_conv_forward(x.to("meta"), weight.to("meta"), **how).shape == (5, 8, 5, 4)
