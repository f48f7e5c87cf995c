"""masked_conv2d and masked_linear: every plan equals the convolution with the effective weight."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hiddennet import ops
from tests.checks import assert_equal, assert_no_worse_than

pytestmark = pytest.mark.isa

CASES = [  # input, weight, stride, padding, dilation, groups
    ((2, 3, 9, 8), (8, 3, 3, 3), 1, 1, 1, 1),
    ((2, 16, 9, 8), (8, 16, 3, 3), 2, 1, 1, 1),
    ((1, 4, 12, 12), (6, 4, 5, 5), 1, 2, 2, 1),
    ((2, 8, 7, 7), (16, 8, 1, 1), 1, 0, 1, 1),
    ((3, 40, 1, 1), (33, 40, 1, 1), 1, 0, 1, 1),
    ((2, 8, 6, 6), (8, 1, 3, 3), 1, 1, 1, 8),
    ((2, 6, 6, 6), (8, 6, 3, 3), 1, "same", 1, 1),
]


@pytest.mark.parametrize(("input_shape", "shape", "stride", "padding", "dilation", "groups"), CASES)
def test_equals_convolving_the_effective_weight(device, input_shape, shape, stride, padding, dilation, groups):
    source = ops.WeightSource.generate(shape, seed=4, device=device)
    k = torch.Size(shape).numel() // 2
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(input_shape, device=device).contiguous(memory_format=layout).requires_grad_()
        scores = torch.randn(shape, device=device).contiguous(memory_format=layout).requires_grad_()
        bias = torch.randn(shape[0], device=device)
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        y = ops.masked_conv2d(x, scores, k, source=source, bias=bias, **geometry)
        grad = torch.randn_like(y)
        y.backward(grad)
        weight = ops.masked_weight(scores.detach(), k, source=source).requires_grad_()
        x2 = x.detach().clone().requires_grad_()
        want = F.conv2d(x2, weight, bias, **geometry)
        want.backward(grad)
        exact = F.conv2d(x.double(), weight.double(), bias.double(), **geometry)
        assert_no_worse_than(y, want, exact, floor=1e-6)
        torch.testing.assert_close(x.grad, x2.grad)
        torch.testing.assert_close(scores.grad, weight.grad * source.weight(device=device) * scores.detach().sign())


def test_the_default_plan_is_named_and_every_plan_can_be_forced(device):
    source = ops.WeightSource.generate((12, 20, 1, 1), seed=1, device=device)
    scores, x = torch.randn(12, 20, 1, 1, device=device), torch.randn(5, 20, 1, 1, device=device)
    assert ops.default_plan(x, source.shape, [1, 1], [0, 0], [1, 1], 1) == "matmul"
    assert ops.default_plan(x.expand(5, 20, 2, 2), source.shape, [1, 1], [0, 0], [1, 1], 1) == "effective_weight"
    outs = [ops.masked_conv2d(x, scores, 99, source=source, plan=plan) for plan in ("matmul", "effective_weight")]
    torch.testing.assert_close(outs[0], outs[1])
    assert outs[0].shape == (5, 12, 1, 1)


@pytest.mark.parametrize(("input_shape", "shape", "stride", "padding", "dilation", "groups"), CASES[:5])
@pytest.mark.cuda
def test_implicit_gemm_equals_the_effective_weight(input_shape, shape, stride, padding, dilation, groups):
    device = torch.device("cuda")
    source = ops.WeightSource.generate(shape, seed=4, device=device)
    for layout in (torch.contiguous_format, torch.channels_last):
        scores = torch.randn(shape, device=device).contiguous(memory_format=layout).requires_grad_()
        x = torch.randn(input_shape, device=device, dtype=torch.bfloat16, requires_grad=True)
        geometry = {"stride": stride, "padding": padding, "dilation": dilation}
        y = ops.masked_conv2d(x, scores, scores.numel() // 2, source=source, plan="implicit_gemm", **geometry)
        grad = torch.randn_like(y)
        y.backward(grad)
        got = (y, x.grad, scores.grad)
        x.grad, scores.grad = None, None
        want = ops.masked_conv2d(x, scores, scores.numel() // 2, source=source, plan="effective_weight", **geometry)
        want.backward(grad)
        weight = ops.masked_weight(scores.detach(), scores.numel() // 2, source=source).double().bfloat16().double()
        exact = F.conv2d(x.detach().double(), weight, **geometry)
        assert_no_worse_than(got[0], want, exact, floor=2**-8)
        torch.testing.assert_close(got[1], x.grad, rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(got[2], scores.grad, rtol=2e-2, atol=2e-2)


def test_implicit_gemm_on_meta_has_the_right_shape():
    source = ops.WeightSource.generate((8, 3, 3, 3), "unsigned_constant", seed=0, device="meta")
    x = torch.empty(2, 3, 9, 8, device="meta", dtype=torch.bfloat16)
    y = ops.masked_conv2d(
        x, torch.empty(8, 3, 3, 3, device="meta"), 9, source=source, stride=2, padding=1, plan="implicit_gemm"
    )
    assert y.shape == (2, 8, 5, 4)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_autocast_computes_in_its_dtype(device):
    source = ops.WeightSource.generate((8, 3, 3, 3), seed=0, device=device)
    scores = torch.randn(8, 3, 3, 3, device=device, requires_grad=True)
    x = torch.randn(2, 3, 8, 8, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        y = ops.masked_conv2d(x, scores, 100, source=source)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert scores.grad.dtype == torch.float32
    z = ops.masked_linear(torch.randn(4, 9, device=device).bfloat16(), torch.randn(7, 9, device=device), 30,
                          source=ops.WeightSource.generate((7, 9), seed=0, device=device))  # fmt: skip
    assert z.dtype == torch.bfloat16


def test_linear_equals_multiplying_the_effective_weight(device):
    source = ops.WeightSource.generate((7, 9), seed=0, device=device)
    scores, x = torch.randn(7, 9, device=device), torch.randn(2, 4, 9, device=device)
    weight = ops.masked_weight(scores, 30, source=source)
    assert_equal(ops.masked_linear(x, scores, 30, source=source), F.linear(x, weight))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"plan": "magic"}, ValueError, "expected plan to be"),
        ({"plan": "matmul"}, ValueError, "1x1 map for plan 'matmul'"),
        ({"plan": "implicit_gemm"}, ValueError, "CUDA input for plan 'implicit_gemm', got cpu"),
        ({"x": torch.randn(1, 3, 8, 8, dtype=torch.float64)}, TypeError, "float32, bfloat16 or float16"),
    ],
)
def test_bad_input(change, error, message):
    good = {"x": torch.randn(1, 3, 8, 8), "scores": torch.randn(4, 3, 3, 3), "k": 50}
    arguments = {**good, "source": ops.WeightSource.generate((4, 3, 3, 3), seed=0), **change}
    with pytest.raises(error, match=message):
        ops.masked_conv2d(**arguments)
    with pytest.raises(ValueError, match="expected a weight of 2 dimensions"):
        ops.masked_linear(torch.randn(1, 3), good["scores"], 5, source=arguments["source"])
