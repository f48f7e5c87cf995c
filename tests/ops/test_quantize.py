"""quantize and its kernels: equal to the reference in every layout and dtype; what is odd is told, nothing crashes."""

from __future__ import annotations

import math

import pytest
import torch

from hiddennet import ops
from hiddennet.ops.quantize import _code_range, _quantize_codes, _threshold_gradient, code_dtype
from tests import reference
from tests.checks import assert_equal

LAYOUTS = (torch.contiguous_format, torch.channels_last)
HALVES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((3, 5, 4, 7), (1, 16, 16, 16), (2, 33, 3, 3), (0, 3, 4, 4), (2, 3, 0, 4), (7, 12), (9,), (2, 70, 33, 32))


def some(shape, device, dtype=torch.float32) -> torch.Tensor:
    x = torch.randn(shape, device=device)
    return torch.where(torch.rand(shape, device=device) < 0.2, 0.0, x).to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES)
def test_ranges(device, shape, dtype):
    x = some(shape, device, dtype)
    for layout in LAYOUTS if len(shape) == 4 else LAYOUTS[:1]:
        for per_sample in (False, True):
            got = _code_range(x.contiguous(memory_format=layout), per_sample)
            assert_equal(got, reference.code_range(x.cpu(), per_sample and len(shape) > 0))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bits", [1, 5, 8, 9, 15, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_codes(device, shape, bits, dtype):
    x = some(shape, device, dtype)
    maximum = torch.tensor([1.7], device=device)
    for signed in (False, True):
        want, step = reference.quantize_codes(x.cpu(), maximum.cpu(), bits, signed)
        for layout in LAYOUTS if len(shape) == 4 else LAYOUTS[:1]:
            for turn in (False, True) if len(shape) == 4 else (False,):
                lying = x.contiguous(memory_format=layout)
                codes, delta = _quantize_codes(lying, maximum, bits, signed, turn)
                assert codes.dtype == code_dtype(bits, signed)
                last = turn or layout == torch.channels_last
                assert codes.numel() == 0 or codes.is_contiguous(memory_format=LAYOUTS[last]), "the codes' layout"
                assert_equal(codes.long(), want)
                assert_equal(delta, step)


def test_odd_input(device):
    """No crash; a range that is no number makes NaN of all values; a range too small makes zeros."""
    for bad in (math.nan, math.inf, -math.inf):
        x = some((4, 6), device)
        x[1, 2] = bad
        for kind in (torch.float32, torch.float64, torch.bfloat16):
            assert bool(ops.quantize(x.to(kind), 8, signed=True).isnan().all())
    tiny = torch.tensor([[1e-45, 0.0]], device=device)
    assert_equal(ops.quantize(tiny, 8), torch.zeros_like(tiny))
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.5], device=device)
    got = ops.quantize(x, 2, signed=True, maximum=torch.ones(1, device=device))
    assert_equal(got, torch.tensor([-1.0, 0.5, -1.0, 0.5]))  # a range of the caller's: NaN takes the lowest level


@pytest.mark.parametrize("dtype", [torch.float64, *HALVES])
def test_what_users_see(device, dtype):
    x = some((6, 5, 4, 4), device, dtype).requires_grad_()
    y = ops.quantize(x, 4, signed=True)
    assert y.dtype == dtype and y.shape == x.shape
    y.backward(torch.full_like(y, 2.0))
    assert_equal(x.grad, torch.full_like(y, 2.0))  # straight through
    assert ops.quantize(x, 32) is x
    codes = ops.quantize(x.detach(), 4, signed=True, dequantize=False)
    assert_equal(codes[x == 0], torch.full_like(codes[x == 0], 8.0))
    maximum = ops.quantize_range(x.detach())
    assert_equal(ops.quantize(x.detach(), 4, signed=True, maximum=maximum.view(1, 1, 1, 1)), y)
    odd = x.detach().permute(2, 0, 3, 1)  # neither layout
    assert_equal(ops.quantize(odd, 4, signed=True), ops.quantize(odd.contiguous(), 4, signed=True))
    assert ops.quantize(x.detach()[:0], 8).shape == (0, 5, 4, 4)
    filters = ops.quantize(x.detach(), 8, signed=True, over="channel")
    for row, filter_ in zip(filters, x.detach(), strict=True):
        assert_equal(row, ops.quantize(filter_[None], 8, signed=True)[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bits": 0}, ValueError, "from 1 to 16, or 32"),
        ({"bits": 24}, ValueError, "from 1 to 16, or 32"),
        ({"bits": 8.0}, TypeError, "bits to be an int"),
        ({"over": "row"}, ValueError, "over to be 'sample_mean'"),
        ({"x": torch.zeros(3, dtype=torch.int32)}, TypeError, "x of dtype"),
        ({"x": [1.0]}, TypeError, "x to be a Tensor"),
        ({"maximum": torch.ones(3)}, ValueError, "broadcast against x"),
        ({"maximum": torch.ones(2, 4, 1)}, ValueError, "broadcast against x"),
        ({"maximum": torch.ones(1, dtype=torch.int64)}, TypeError, "maximum of dtype"),
        ({"x": torch.tensor(1.0), "over": "channel"}, ValueError, "at least one dimension"),
    ],
)
def test_bad_input(arguments, error, message):
    call = {"x": torch.zeros(2, 4), "bits": 8, **arguments}
    with pytest.raises(error, match=message):
        ops.quantize(call.pop("x"), call.pop("bits"), **call)


def test_bad_calls_of_the_ops():
    x, one = torch.zeros(2, 3), torch.ones(1)
    for call, message in (
        (lambda: _quantize_codes(x, one, 17, False, False), "1 to 16 bits"),
        (lambda: _quantize_codes(x, torch.ones(2), 8, False, False), "maximum of one element"),
        (lambda: _quantize_codes(x, one, 8, False, True), "4 dimensions for channels_last"),
        (lambda: _quantize_codes(x.t(), one, 8, False, False), "contiguous or channels_last"),
        (lambda: _code_range(x.double(), True), "float32, bfloat16 or float16"),
        (lambda: _threshold_gradient(x, torch.zeros(5), None, 0.1, False), "exact of 6 elements"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_threshold(device, relative, mixed):
    grad, exact = some((7, 3, 3, 3), device), some((7, 3, 3, 3), device)
    grad[1, 0, 0, 0] = math.nan
    finite = grad.nan_to_num(0.0)
    for sign in (False, True):
        got = grad.clone()
        most = finite.abs().amax().view(1)
        _threshold_gradient(got, exact if mixed else None, most if relative else None, 0.25, sign)
        want = reference.threshold_gradient(finite, exact if mixed else None, 0.25, relative, sign)
        want[1, 0, 0, 0] = math.nan
        assert_equal(got, want)


def test_opcheck(device):
    x = some((2, 5, 4, 4), device)
    one = torch.ones(1, device=device)
    for layout in LAYOUTS:
        lying = x.contiguous(memory_format=layout)
        torch.library.opcheck(torch.ops.hiddennet.code_range.default, (lying, True))
        for turn in (False, True):
            torch.library.opcheck(torch.ops.hiddennet.quantize_codes.default, (lying, one, 9, False, turn))
    torch.library.opcheck(torch.ops.hiddennet.threshold_gradient_.default, (x, x.clone(), one, 0.1, True))
    compiled = torch.compile(lambda t: ops.quantize(t, 8, signed=True), fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x), ops.quantize(x, 8, signed=True))
