"""norm_relu, relu_pool: torch's numbers in fewer passes, on every instruction set and any number of threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet import ops
from hiddennet.ops.norm_relu import is_fused
from tests.checks import assert_equal, assert_no_worse_than

pytestmark = pytest.mark.isa

SIZES = [(8, 64, 9, 8), (3, 5, 7, 9), (6, 17, 4, 4), (2, 100, 5, 1), (4, 16, 20, 20), (64, 130, 2, 3), (1, 3, 2, 1)]


def maps(size, dtype, mean: float = 0.0) -> Tensor:
    return (torch.randn(size) * 2 + mean).to(dtype).contiguous(memory_format=torch.channels_last)


def by_torch(x, residual, gamma, beta, running, dtype, dy) -> list[Tensor]:
    """Output, running statistics and the four gradients, computed in `dtype`."""
    wide = dtype if dtype is torch.float64 else torch.float32
    values = [x.to(dtype), None if residual is None else residual.to(dtype), gamma.to(wide), beta.to(wide)]
    inputs = [None if v is None else v.detach().clone().requires_grad_() for v in values]
    state = [t.to(wide).clone() for t in running]
    y = F.batch_norm(inputs[0], *state, inputs[2], inputs[3], True, 0.3, 1e-5)
    y = F.relu(y if residual is None else y + inputs[1])
    found = torch.autograd.grad(y, [v for v in inputs if v is not None], dy.to(dtype))
    return [y.detach(), *state, *found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adds", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("mean", [0.0, 300.0])
@pytest.mark.parametrize("size", SIZES)
def test_no_worse_than_twice_torchs_error(size, mean, adds, dtype):
    x, residual, dy = maps(size, dtype, mean), maps(size, dtype) if adds else None, maps(size, dtype)
    gamma, beta = torch.rand(size[1]) + 0.5, torch.randn(size[1])
    running = torch.randn(size[1]), torch.rand(size[1])
    before = F.batch_norm(x.double(), None, None, gamma.double(), beta.double(), True)
    before = before if residual is None else before + residual.double()
    dy = dy.masked_fill(before.abs() < 0.05, 0)  # a sign that rounding decides is not an error
    exact = by_torch(x, residual, gamma, beta, running, torch.float64, dy)
    near = by_torch(x, residual, gamma, beta, running, dtype, dy)
    inputs = [None if t is None else t.clone().requires_grad_() for t in (x, residual, gamma, beta)]
    state = tuple(t.clone() for t in running)
    y = ops.norm_relu(*inputs, running=state, momentum=0.3)
    assert "NormRelu" in type(y.grad_fn).__name__ or not is_fused(x)
    found = torch.autograd.grad(y, [t for t in inputs if t is not None], dy)
    for got, other, want in zip((y.detach(), *state, *found), near, exact, strict=True):
        assert_no_worse_than(got, other, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_change_a_bit(dtype):
    x, dy = maps((16, 24, 32, 31), dtype), maps((16, 24, 32, 31), dtype)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        z = x.clone().requires_grad_()
        y = ops.norm_relu(z)
        y.backward(dy)
        found.append((y.detach(), z.grad))
    for one, two in zip(*found, strict=True):
        assert_equal(one, two)


def test_what_is_not_finite_passes_as_in_torch():
    x = maps((4, 3, 6, 6), torch.float32)
    x[0, 1, 2, 3] = float("nan")
    y, want = ops.norm_relu(x), F.relu(F.batch_norm(x, None, None, training=True))
    assert_equal(y.isnan(), want.isnan())
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any()


def test_constant_maps_and_one_channel():
    flat = torch.full((2, 3, 4, 4), 7.0).contiguous(memory_format=torch.channels_last)
    assert_equal(ops.norm_relu(flat), torch.zeros(2, 3, 4, 4))
    one = torch.randn(2, 1, 4, 4)
    assert not is_fused(one)
    torch.testing.assert_close(ops.norm_relu(one), F.relu(F.batch_norm(one, None, None, training=True)))


def test_gradients_of_gradients_and_batches_of_them():
    for call, reference in (
        (ops.norm_relu, lambda x: F.relu(F.batch_norm(x, None, None, training=True))),
        (ops.relu_pool, lambda x: F.max_pool2d(F.relu(x), 2)),
    ):
        x = maps((3, 4, 6, 7), torch.float32)
        found = []
        for function in (call, reference):
            z = x.clone().requires_grad_()
            y = function(z)
            weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
            (dx,) = torch.autograd.grad((y * weights * y).sum(), z, create_graph=True)
            (twice,) = torch.autograd.grad((dx**2).sum(), z)
            found.append((dx.detach(), twice))
        for got, want in zip(*found, strict=True):
            torch.testing.assert_close(got, want)
        z = x.clone().requires_grad_()
        y = call(z)
        rows = torch.randn(3, *y.shape)
        (together,) = torch.autograd.grad(y, z, rows, is_grads_batched=True, retain_graph=True)
        for row, got in zip(rows, together, strict=True):
            torch.testing.assert_close(got, torch.autograd.grad(y, z, row, retain_graph=True)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(8, 64, 9, 8), (3, 5, 7, 9), (2, 33, 2, 3), (5, 16, 6, 6)])
@pytest.mark.parametrize("kind", ["numbers", "ties", "nan", "negative"])
def test_pooling_equals_torchs_to_the_bit(kind, size, dtype):
    x = maps(size, dtype)
    if kind == "ties":
        x = x.round()
    elif kind == "nan":
        x[:, :, ::2, ::3], x[:, :, 1::2, :1] = float("nan"), float("inf")
    elif kind == "negative":
        x = -x.abs()
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, want = ops.relu_pool(mine), F.max_pool2d(F.relu(theirs), 2)
    assert "ReluPool" in type(y.grad_fn).__name__
    assert_equal(y.nan_to_num(nan=-1.0), want.nan_to_num(nan=-1.0))
    dy = torch.randn_like(want)
    y.backward(dy)
    want.backward(dy)
    assert_equal(mine.grad, theirs.grad)


def test_gradients_in_other_memory():
    x = maps((2, 6, 4, 4), torch.float32)
    for call in (ops.norm_relu, ops.relu_pool):
        found = []
        for change in (lambda g: g, lambda g: g.contiguous(), lambda g: g.flip(3).contiguous().flip(3)):
            z = x.clone().requires_grad_()
            y = call(z)
            y.backward(change(torch.linspace(-1, 1, y.numel()).view(y.shape)))
            found.append(z.grad)
        z = x.clone().requires_grad_()
        call(z).sum().backward()  # a gradient of one number, spread
        for other in found[1:]:
            assert_equal(other, found[0])


def test_compiled_exported_and_counted():
    x = maps((2, 6, 8, 8), torch.float32)
    for call in (ops.norm_relu, ops.relu_pool):
        torch.testing.assert_close(torch.compile(call, fullgraph=True, backend="eager")(x), call(x))
        assert call(x.to("meta")).device.type == "meta"
    state, empty = (torch.zeros(6), torch.ones(6)), (None, None, None)
    raw = torch.ops.hiddennet
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(raw.norm_relu.default, (x, *empty, *state, 0.1, 1e-5), test_utils=checks)
    y, mean, invstd = raw.norm_relu(x, *empty, None, None, 0.1, 1e-5)
    torch.library.opcheck(raw.norm_relu_backward.default, (y, x, y, None, None, mean, invstd), test_utils=checks)
    torch.library.opcheck(raw.relu_pool.default, (x,), test_utils=checks)
    pooled, places = raw.relu_pool(x)
    torch.library.opcheck(raw.relu_pool_backward.default, (pooled, places, list(x.shape)), test_utils=checks)


def test_refusals():
    x = maps((2, 6, 8, 8), torch.float32)
    with pytest.raises(TypeError, match="norm_relu: expected x"):
        ops.norm_relu(x.double())
    with pytest.raises(ValueError, match="more than one value a channel"):
        ops.norm_relu(x[:1, :, :1, :1])
    with pytest.raises(ValueError, match="residual of x's shape"):
        ops.norm_relu(x, x[:1])
    with pytest.raises(ValueError, match=r"gamma of shape \(6,\)"):
        ops.norm_relu(x, gamma=torch.ones(5))
    strided = torch.ones(12)[::2]
    with pytest.raises(ValueError, match=r"gamma of shape \(6,\), contiguous, got \(6,\) with strides \(2,\)"):
        ops.norm_relu(x, gamma=strided)
    with pytest.raises(ValueError, match=r"running mean of shape \(6,\), contiguous"):
        ops.norm_relu(x, running=(strided, torch.ones(6)))
    with pytest.raises(TypeError, match=r"running to be \(mean, variance\) or None, got \(6,\)"):
        ops.norm_relu(x, running=torch.ones(6))
    with pytest.raises(TypeError, match=r"running to be \(mean, variance\) or None"):
        ops.norm_relu(x, running=(torch.ones(6),))
    with pytest.raises(ValueError, match="at least 2 pixels a side"):
        ops.relu_pool(x[:, :, :1])
    raw = torch.ops.hiddennet
    with pytest.raises(RuntimeError, match="norm_relu"):
        raw.norm_relu(x, x[:, :3], None, None, None, None, 0.1, 1e-5)
    with pytest.raises(RuntimeError, match="half the shape"):
        raw.relu_pool_backward(x, x.byte(), list(x.shape))
