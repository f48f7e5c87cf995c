"""psg_conv2d and psg_linear: codes to the bit, layouts, what is saved, second backwards, autocast, compiling."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from hiddennet import ops
from hiddennet.ops import PSGConfig
from tests import reference
from tests.checks import assert_equal
from tests.reference import psg as oracle

SPARSE = PSGConfig(threshold=0.1)
GEOMETRIES = [
    # channels in, out, kernel, stride, padding, dilation, groups, bias
    (5, 7, 3, 1, 1, 1, 1, False),
    (4, 6, 3, 2, 1, 1, 2, True),
    (3, 4, (1, 2), 1, "same", 1, 1, False),
    (3, 8, 5, (2, 1), (2, 0), 1, 1, True),
    (6, 6, 3, 1, "valid", 2, 6, False),
    (17, 33, 1, 1, 0, 1, 1, False),
]


def layer(geometry, device, dtype=torch.float32) -> tuple[Tensor, Tensor | None, tuple]:
    c, o, kernel, stride, padding, dilation, groups, bias = geometry
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    weight = torch.randn(o, c // groups, height, width, device=device, dtype=dtype, requires_grad=True)
    b = torch.randn(o, device=device, dtype=dtype, requires_grad=True) if bias else None
    return weight, b, (stride, padding, dilation, groups)


def gradients(y: Tensor, dy: Tensor, *leaves: Tensor | None, keep: bool = False) -> list[Tensor]:
    return list(torch.autograd.grad(y, [t for t in leaves if t is not None], dy, retain_graph=keep))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_are_those_of_the_codes(device, geometry, last):
    """y, dX and the bias's gradient are torch's; dW is the thresholded sum of the reference's codes, to the bit."""
    layout = torch.channels_last if last else torch.contiguous_format
    weight, bias, numbers = layer(geometry, device)
    x = torch.randn(3, geometry[0], 9, 8, device=device).relu().contiguous(memory_format=layout).requires_grad_()
    y = ops.psg_conv2d(x, weight, bias, *numbers, config=SPARSE)
    plain = F.conv2d(x, weight, bias, *numbers)
    assert_close(y, plain, rtol=1e-5, atol=1e-5)
    dy = torch.randn_like(y).contiguous(memory_format=layout)
    got, want = gradients(y, dy, x, weight, bias), gradients(plain, dy, x, weight, bias)
    assert_close(got[0], want[0], rtol=1e-4, atol=1e-4)
    if bias is not None:
        assert_close(got[2], want[2], rtol=1e-5, atol=1e-4)
    if numbers[1] == "same":
        return  # an even kernel pads on one side alone: checked by the closed form below
    cpu = x.detach().cpu()
    codes = reference.quantize_codes(cpu, reference.code_range(cpu, True), 8, False)
    of_dy = reference.quantize_codes(dy.cpu(), reference.code_range(dy.cpu(), False), 16, True)
    stride, padding, dilation, groups = (n if isinstance(n, (tuple, int)) else 0 for n in numbers)
    pairs = [n if isinstance(n, tuple) else (n, n) for n in (stride, padding, dilation)]
    sums = reference.code_weight_gradient(codes[0], of_dy[0], codes[1], of_dy[1], tuple(weight.shape), *pairs, groups)
    assert_equal(got[1], reference.threshold_gradient(sums, None, 0.1, True))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        PSGConfig(),
        PSGConfig(4, 8, 0.2, sparsify=False),
        PSGConfig(8, 32, 0.1),
        PSGConfig(32, 8, 0.1, sparsify=False, sign=True),
        PSGConfig(16, 16, 0.5, "absolute"),
        PSGConfig(1, 2, 0.05, sign=True),
    ],
)
@pytest.mark.parametrize("geometry", GEOMETRIES[:4])
def test_the_closed_form(device, geometry, config, signed):
    """In float64 against the oracle with all options; float32 is near it wherever no code is at a boundary."""
    weight, _, numbers = layer(geometry, device, torch.float64)
    x = torch.randn(3, geometry[0], 6, 5, device=device, dtype=torch.float64, requires_grad=True)
    threshold = -config.threshold if config.relative else config.threshold
    options = oracle.PSGOptions(
        config.input_bits, config.gradient_bits, threshold, config.sparsify, config.sign, input_signed=signed
    )
    want = oracle.psg_conv2d(x, weight, options, *numbers)
    dy = torch.randn_like(want)
    y = ops.psg_conv2d(x, weight, None, *numbers, config=config, input_signed=signed)
    for a, b in zip(gradients(y, dy, x, weight), gradients(want, dy, x, weight), strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_linear_is_a_convolution_of_single_pixels(device):
    x = torch.randn(2, 5, 12, device=device).relu().requires_grad_()
    w, b = torch.randn(7, 12, device=device, requires_grad=True), torch.randn(7, device=device, requires_grad=True)
    y = ops.psg_linear(x, w, b, config=SPARSE)
    dy = torch.randn_like(y)
    got = gradients(y, dy, x, w, b)
    plain = gradients(F.linear(x, w, b), dy, x, w, b)
    assert_close(got[0], plain[0])
    assert_close(got[2], plain[2])
    images = x.transpose(1, 2)[..., None]  # a sample is a map of five pixels
    z = ops.psg_conv2d(images, w[:, :, None, None], None, config=SPARSE)
    assert_equal(got[1], gradients(z, dy.transpose(1, 2)[..., None], w)[0])
    one = torch.randn(12, device=device).relu()  # a vector is a batch of one
    a = gradients(ops.psg_linear(one, w, config=SPARSE), dy[0, 0], w)[0]
    assert_equal(a, gradients(ops.psg_linear(one[None], w, config=SPARSE), dy[0, :1], w)[0])


def saved_by(forward) -> list[Tensor]:
    found: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        found.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        forward()
    return found


@pytest.mark.parametrize(
    ("make", "keeps_input"),
    [
        (lambda x: x, True),  # a leaf
        (lambda x: x.relu(), True),  # ReLU saves its result
        (lambda x: x.relu().view(2, 3, 8, 8), True),
        (lambda x: F.max_pool2d(x, 1), False),  # saves its input and the places
        (lambda x: x * 2, False),
        (lambda x: x + 1, False),
    ],
)
def test_what_is_saved(device, make, keeps_input):
    leaf = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    x = make(leaf)
    w = torch.randn(4, 3, 3, 3, device=device, requires_grad=True)
    saved = saved_by(lambda: ops.psg_conv2d(x, w, config=PSGConfig()))
    floats = [t for t in saved if t.shape == x.shape and t.dtype == torch.float32]
    codes = [t for t in saved if t.shape == x.shape and t.dtype == torch.uint8]
    assert (len(floats), len(codes)) == ((1, 0) if keeps_input else (0, 1))
    for config in (PSGConfig(sparsify=False), PSGConfig(32, 32)):  # these need the input itself
        saved = saved_by(lambda c=config: ops.psg_conv2d(x, w, config=c))
        assert not any(t.dtype == torch.uint8 for t in saved)


def test_codes_or_input_give_the_same(device):
    leaf = torch.randn(3, 4, 8, 8, device=device).relu().requires_grad_()
    w = torch.randn(6, 4, 3, 3, device=device, requires_grad=True)
    a, b = (ops.psg_conv2d(x, w, config=SPARSE) for x in (leaf, leaf * 1.0))
    dy = torch.randn_like(a)
    for p, q in zip(gradients(a, dy, leaf, w), gradients(b, dy, leaf, w), strict=True):
        assert_equal(p, q)


@pytest.mark.parametrize("config", [SPARSE, PSGConfig(threshold=0.3, sparsify=False)])
def test_a_second_backward_is_the_first(device, config):
    x = torch.randn(2, 3, 6, 6, device=device).relu()
    w = torch.randn(4, 3, 3, 3, device=device, requires_grad=True)
    y = ops.psg_conv2d(x, w, config=config)
    dy = torch.randn_like(y)
    first = gradients(y, dy, w, keep=True)[0]
    assert_equal(gradients(y, dy, w, keep=True)[0], first)
    assert_close(gradients(y, 1000 * dy, w)[0], 1000 * first, rtol=1e-5, atol=1e-3)  # a relative threshold scales
    y = ops.psg_conv2d(x, w, config=config)
    (g,) = torch.autograd.grad(y.square().sum(), w, create_graph=True)
    with pytest.raises(RuntimeError, match="twice|once_differentiable|does not require grad"):
        g.sum().backward()


def test_empty_filters_and_zero_gradients(device):
    """No NaN where filters, the input or the output's gradient are all zero, nor for an empty batch."""
    w = torch.randn(4, 3, 3, 3, device=device)
    w[2] = 0
    w.requires_grad_()
    for x, scale in ((torch.rand(2, 3, 5, 5), 0.0), (torch.zeros(2, 3, 5, 5), 1.0), (torch.rand(0, 3, 5, 5), 1.0)):
        y = ops.psg_conv2d(x.to(device), w, None, 1, 1, config=PSGConfig())
        (g,) = gradients(y, torch.full_like(y, scale), w)
        assert_equal(g, torch.zeros_like(w))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_reaches_the_gradient(device, bad):
    """As an exact gradient's: a broken loss must be seen, not thresholded away."""
    for where in ("x", "dy"):
        x = torch.rand(2, 3, 5, 5, device=device)
        w = torch.randn(4, 3, 3, 3, device=device, requires_grad=True)
        dy = torch.randn(2, 4, 3, 3, device=device)
        (x if where == "x" else dy)[1, 0, 0, 0] = bad
        (g,) = gradients(ops.psg_conv2d(x, w, config=PSGConfig()), dy, w)
        assert bool(g.isnan().all())


def test_autocast(device):
    """All in bfloat16; codes of what the layer computes with; the weight's gradient in float32."""
    x = torch.randn(3, 4, 8, 8, device=device).relu().requires_grad_()
    w, b = torch.randn(6, 4, 3, 3, device=device, requires_grad=True), torch.randn(6, device=device, requires_grad=True)
    with torch.autocast(device.type, torch.bfloat16):
        y = ops.psg_conv2d(x, w, b, config=SPARSE)
        plain = F.conv2d(x, w, b)
    assert y.dtype == torch.bfloat16
    assert_equal(y, plain)
    dy = torch.randn_like(y)
    got, want = gradients(y, dy, x, w, b), gradients(plain, dy, x, w, b)
    assert [g.dtype for g in got] == [torch.float32] * 3
    assert_equal(got[0], want[0])
    assert_close(got[2], want[2], rtol=1e-2, atol=1e-1)
    rounded = x.detach().bfloat16()
    again = ops.psg_conv2d(rounded.float(), w, config=SPARSE)
    assert_equal(got[1], gradients(again, dy.float(), w)[0])


def test_compiled(device):
    x = torch.randn(3, 4, 8, 8, device=device)
    w = torch.randn(6, 4, 3, 3, device=device, requires_grad=True)

    def loss(x: Tensor, w: Tensor) -> Tensor:
        return ops.psg_conv2d(x.relu(), w, config=SPARSE).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (got,), (want,) = torch.autograd.grad(compiled(x, w), w), torch.autograd.grad(loss(x, w), w)
    assert_close(got, want, rtol=1e-5, atol=1e-4)


def test_without_gradients_it_is_torchs(device):
    x, w = torch.randn(2, 3, 5, 5, device=device), torch.randn(4, 3, 3, 3, device=device)
    assert_equal(ops.psg_conv2d(x, w, config=SPARSE), F.conv2d(x, w))
    image = torch.randn(3, 5, 5, device=device, requires_grad=True)
    assert_close(ops.psg_conv2d(image, w, config=SPARSE), F.conv2d(image, w))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_bits": 0}, ValueError, "input_bits from 1 to 16"),
        ({"gradient_bits": 17}, ValueError, "gradient_bits from 1 to 16"),
        ({"gradient_bits": "8"}, TypeError, "gradient_bits to be an int"),
        ({"threshold": -1e-7}, ValueError, "threshold >= 0"),
        ({"threshold": math.nan}, ValueError, "threshold >= 0"),
        ({"threshold": None}, TypeError, "threshold to be a float"),
        ({"threshold_mode": "both"}, ValueError, "'relative' or 'absolute'"),
        ({"sign": 1}, TypeError, "sign to be a bool"),
    ],
)
def test_bad_configs(arguments, error, message):
    with pytest.raises(error, match=message):
        PSGConfig(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"config": None}, TypeError, "config to be a PSGConfig"),
        ({"input_signed": 1}, TypeError, "input_signed to be a bool"),
        ({"weight": torch.zeros(4, 3)}, ValueError, "weight of 4 dimensions"),
        ({"weight": torch.zeros(4, 3, 3, 3).double()}, TypeError, "weight of dtype torch.float32"),
        ({"weight": torch.zeros(4, 2, 3, 3, requires_grad=True)}, ValueError, "x of 2 channels"),
        ({"x": torch.zeros(2, 3, 5, 5, dtype=torch.int32)}, TypeError, "x of dtype"),
    ],
)
def test_bad_calls(arguments, error, message):
    call = {"x": torch.zeros(2, 3, 5, 5), "weight": torch.zeros(4, 3, 3, 3), "config": PSGConfig(), **arguments}
    with pytest.raises(error, match=message):
        ops.psg_conv2d(call.pop("x"), call.pop("weight"), **call)
    with pytest.raises(ValueError, match="x of 3 features"):
        ops.psg_linear(torch.zeros(2, 4), torch.zeros(5, 3), config=PSGConfig())
