"""code_weight_gradient: the int64 reference's bits, for every type of codes, shape and layout, also at the extremes."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hiddennet.ops import code_weight_gradient
from tests import reference
from tests.checks import assert_equal

RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-(2**15), 2**15 - 1), torch.int32: (0, 65535)}
INPUTS, GRADIENTS = tuple(RANGES), (torch.int8, torch.int16)


class Conv(NamedTuple):
    """A layer and its input."""

    batch: int
    channels: int
    size: tuple[int, int]
    out: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def weight(self) -> tuple[int, ...]:
        return (self.out, self.channels // self.groups, *self.kernel)

    @property
    def output(self) -> tuple[int, ...]:
        zipped = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return (self.batch, self.out, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zipped))

    @property
    def geometry(self) -> dict:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


CONVS = {
    "3x3": Conv(2, 16, (8, 8), 8, (3, 3), padding=(1, 1)),
    "3x3, odd sizes": Conv(3, 33, (7, 9), 25, (3, 3), padding=(1, 1)),
    "3x3, four vectors": Conv(2, 64, (6, 6), 17, (3, 3), padding=(1, 1)),
    "3x3, stride 2": Conv(2, 48, (9, 8), 13, (3, 3), (2, 2), (1, 1)),
    "1x1, even": Conv(4, 32, (6, 6), 10, (1, 1)),
    "1x1, odd": Conv(4, 80, (5, 5), 40, (1, 1)),
    "1x1, stride 2": Conv(4, 32, (6, 7), 10, (1, 1), (2, 2)),
    "1x1 on 1x1": Conv(37, 50, (1, 1), 30, (1, 1)),
    "7x7 stem, stride 2": Conv(3, 3, (19, 22), 20, (7, 7), (2, 2), (3, 3)),
    "3x3 of 2 channels, far taps": Conv(3, 2, (5, 4), 17, (3, 3), (1, 1), (4, 4), (3, 3)),
    "5x5": Conv(2, 20, (6, 7), 9, (5, 5), padding=(2, 2)),
    "two groups": Conv(2, 40, (6, 7), 18, (3, 3), padding=(1, 1), groups=2),
    "depthwise": Conv(2, 24, (8, 7), 24, (3, 3), padding=(1, 1), groups=24),
    "depthwise, two outputs": Conv(2, 6, (5, 5), 12, (3, 3), padding=(1, 1), groups=6),
    "dilation 6": Conv(2, 16, (15, 15), 8, (3, 3), padding=(6, 6), dilation=(6, 6)),
    "each axis its own": Conv(2, 16, (9, 11), 8, (3, 1), (3, 2), (2, 0), (1, 2)),
    "many small images": Conv(70, 16, (4, 4), 8, (3, 3), padding=(1, 1)),
    "large image": Conv(1, 16, (67, 66), 8, (3, 3), padding=(1, 1)),
    "wide row": Conv(1, 16, (2, 1300), 8, (1, 3), padding=(0, 1)),
    "all padding": Conv(1, 16, (1, 1), 8, (3, 3), padding=(3, 3)),
    "one of each": Conv(1, 1, (1, 1), 1, (1, 1)),
}


def codes(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, channels_last: bool = True) -> Tensor:
    low, high = RANGES[dtype]
    drawn = torch.randint(low, high + 1, shape).to(dtype).to(device)
    return drawn.contiguous(memory_format=torch.channels_last) if channels_last else drawn


def deltas(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor([0.0123], device=device), torch.tensor([3.4e-7], device=device)


def check(c: Conv, x: Tensor, g: Tensor) -> Tensor:
    """Both layouts of the result hold the reference's bits, and its largest magnitude."""
    dx, dg = deltas(x.device)
    want = reference.code_weight_gradient(x.cpu(), g.cpu(), dx.cpu(), dg.cpu(), c.weight, **c.geometry)
    for channels_last in (False, True):
        dw, largest = code_weight_gradient(x, g, dx, dg, c.weight, channels_last=channels_last, **c.geometry)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert dw.is_contiguous(memory_format=layout)
        assert_equal(dw, want)
        assert_equal(largest, want.abs().max().view(1), "largest")
    return want


@pytest.mark.parametrize("input_type", INPUTS, ids=str)
@pytest.mark.parametrize("name", CONVS)
def test_bits_of_the_reference(device, name, input_type):
    c = CONVS[name]
    for gradient_type in GRADIENTS:
        x, g = codes((c.batch, c.channels, *c.size), input_type, device), codes(c.output, gradient_type, device)
        check(c, x, g)


def test_codes_in_any_layout(device):
    c = CONVS["3x3, odd sizes"]
    x, g = (
        codes((c.batch, c.channels, *c.size), torch.uint8, device, False),
        codes(c.output, torch.int16, device, False),
    )
    check(c, x, g)
    check(c, x.transpose(2, 3).contiguous().transpose(2, 3), g)


# Every product of one sign and as large as it can be: an int32 holds 257 of the second pair.
@pytest.mark.parametrize("name", ["3x3", "1x1, odd", "7x7 stem, stride 2", "wide row", "depthwise"])
@pytest.mark.parametrize("input_type", INPUTS, ids=str)
@pytest.mark.parametrize("gradient_type", GRADIENTS, ids=str)
def test_extreme_codes(device, name, input_type, gradient_type):
    c = CONVS[name]._replace(batch=40 if name != "wide row" else 1)
    for x_code in RANGES[input_type]:
        for g_code in RANGES[gradient_type]:
            x = torch.full((c.batch, c.channels, *c.size), x_code, dtype=input_type, device=device)
            check(c, x, torch.full(c.output, g_code, dtype=gradient_type, device=device))


def test_a_row_longer_than_an_int32_holds(device):
    """8 by 8 bits: 65793 products fit; one row of 140000 pixels."""
    c = Conv(1, 1, (1, 140000), 1, (1, 1))
    x = torch.full((1, 1, 1, 140000), 255, dtype=torch.uint8, device=device)
    want = check(c, x, torch.full(c.output, -128, dtype=torch.int8, device=device))
    dx, dg = deltas(torch.device("cpu"))
    assert (
        want.item() == torch.tensor(-255 * 128 * 140000 * (dx.item() * dg.item()), dtype=torch.float64).float().item()
    )


def test_reference_is_torchs_gradient():
    """Of codes small enough that float64 is exact, for every shape."""
    for name, c in CONVS.items():
        x, g = codes((c.batch, c.channels, *c.size), torch.int8, "cpu"), codes(c.output, torch.int16, "cpu")
        want = torch.nn.grad.conv2d_weight(x.double(), c.weight, g.double(), **c.geometry)
        assert_equal(reference.code_sums(x, g, c.weight, **c.geometry).double(), want, name)


@pytest.mark.parametrize("input_type", INPUTS, ids=str)
def test_linear_layer(device, input_type):
    x, g = codes((53, 300), input_type, device, False), codes((53, 21), torch.int16, device, False)
    dx, dg = deltas(device)
    dw, largest = code_weight_gradient(x, g, dx, dg, (21, 300))
    want = (g.cpu().long().T @ x.cpu().long()).double() * (dx.cpu().double() * dg.cpu().double())
    assert_equal(dw, want.float())
    assert_equal(largest, dw.abs().max().view(1))


def test_rounds_once(device):
    """A sum that is no float32, and deltas whose float32 product is not their product."""
    x = torch.full((1000, 1), 253, dtype=torch.uint8, device=device)
    g = torch.full((1000, 1), 32749, dtype=torch.int16, device=device)
    a, b = torch.tensor([1.1], device=device), torch.tensor([0.7], device=device)
    total = 1000 * 253 * 32749
    dw, _ = code_weight_gradient(x, g, a, b, (1, 1))
    want = torch.tensor(total * (a.item() * b.item()), dtype=torch.float64).float()
    assert dw.item() == want.item()
    assert want.item() != (torch.tensor(total).float() * (a.cpu() * b.cpu())).item()


def test_without_pixels_or_with_deltas_that_are_none(device):
    nan, one = torch.tensor([math.nan], device=device), torch.ones(1, device=device)
    x, g = codes((0, 8, 4, 4), torch.uint8, device), codes((0, 4, 4, 4), torch.int16, device)
    dw, largest = code_weight_gradient(x, g, nan, one, (4, 8, 1, 1))
    assert_equal(dw, torch.zeros(4, 8, 1, 1))
    assert_equal(largest, torch.zeros(1))
    x, g = codes((1, 8, 4, 4), torch.uint8, device), codes((1, 4, 4, 4), torch.int16, device)
    dw, largest = code_weight_gradient(x, g, nan, one, (4, 8, 1, 1))
    assert bool(dw.isnan().all()) and bool(largest.isnan())
    dw, largest = code_weight_gradient(x, g, one * 0, one, (4, 8, 1, 1))
    assert not dw.any() and not largest.any()


def good() -> dict:
    return {
        "input": torch.zeros(2, 6, 5, 5, dtype=torch.uint8),
        "gradient": torch.zeros(2, 4, 5, 5, dtype=torch.int16),
        "input_delta": torch.ones(1),
        "gradient_delta": torch.ones(1),
        "shape": (4, 3, 3, 3),
        "padding": 1,
        "groups": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input": torch.zeros(2, 6, 5, 5)}, TypeError, "input codes of dtype uint8 or int8 or int16 or int32"),
        ({"gradient": torch.zeros(2, 4, 5, 5, dtype=torch.uint8)}, TypeError, "gradient codes of dtype int8 or int16"),
        ({"gradient": torch.zeros(2, 4, 5, 4, dtype=torch.int16)}, ValueError, r"shape \(2, 4, 5, 5\)"),
        ({"gradient": torch.zeros(3, 4, 5, 5, dtype=torch.int16)}, ValueError, r"shape \(2, 4, 5, 5\)"),
        ({"input_delta": torch.ones(1).double()}, TypeError, "input_delta of dtype float32"),
        ({"gradient_delta": torch.ones(2)}, ValueError, "gradient_delta of 1 element"),
        ({"gradient_delta": torch.ones(1, device="meta")}, ValueError, "gradient_delta on cpu"),
        ({"shape": (4, 3)}, ValueError, "of 4 dimensions, or of 2"),
        ({"shape": (4, 2, 3, 3)}, ValueError, "input codes of 4 channels"),
        ({"groups": 3}, ValueError, "multiples of the groups"),
        ({"groups": 0}, ValueError, "multiples of the groups"),
        ({"padding": -1}, ValueError, "padding to be one or two ints >= 0"),
        ({"stride": (1, 0)}, ValueError, "stride to be one or two ints >= 1"),
        ({"dilation": (1, 1, 1)}, ValueError, "dilation to be one or two ints >= 1"),
        ({"dilation": 4}, ValueError, "at least as large as the kernel"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        code_weight_gradient(**{**good(), **arguments})


def test_the_raw_op_refuses_too():
    op = torch.ops.hiddennet.code_weight_gradient.default
    x = torch.zeros(2, 6, 5, 5, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    g = torch.zeros(2, 4, 5, 5, dtype=torch.int16).contiguous(memory_format=torch.channels_last)
    one, geometry = torch.ones(1), ([1, 1], [1, 1], [1, 1])
    op(x, g, one, one, [4, 6, 3, 3], *geometry, 1, False)
    for arguments, message in (
        ((x.float(), g, one, one, [4, 6, 3, 3], *geometry, 1, False), "input codes of uint8"),
        ((x, g.int(), one, one, [4, 6, 3, 3], *geometry, 1, False), "gradient codes of int8 or int16"),
        ((x.contiguous(), g, one, one, [4, 6, 3, 3], *geometry, 1, False), "dense in channels_last"),
        ((x, g, one, torch.ones(2), [4, 6, 3, 3], *geometry, 1, False), "gradient_delta of 1 element"),
        ((x, g, one, one, [4, 6, 3, 3], *geometry, 0, False), "multiples of the groups"),
        ((x, g, one, one, [4, 6, 0, 3], *geometry, 1, False), "kernel >= 1"),
        ((x, g, one, one, [4, 6, 3, 3], [1, 1], [1, 1], [2**40, 1], 1, False), "at most 2.29"),
        ((x, g, one, one, [5, 6, 3, 3], *geometry, 1, False), "output shape"),
        ((x, g, one, one, [4, 6, 3], *geometry, 1, False), "4-d input and weight"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(*arguments)


def test_opcheck(device):
    op = torch.ops.hiddennet.code_weight_gradient.default
    for name in ("3x3, odd sizes", "two groups"):
        c = CONVS[name]
        x, g = codes((c.batch, c.channels, *c.size), torch.uint8, device), codes(c.output, torch.int16, device)
        for channels_last in (False, True):
            geometry = (list(c.stride), list(c.padding), list(c.dilation), c.groups, channels_last)
            torch.library.opcheck(op, (x, g, *deltas(device), list(c.weight), *geometry))
