"""Sparse convolutions against torch's in float64: no worse than twice torch's float32; equal bits on any threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from hiddennet import ops
from hiddennet.ops.sparse_conv import output_shape
from tests import reference
from tests.checks import assert_equal, assert_no_worse_than

# batch, channels, filters, (height, width), (kernel), stride, padding, dilation
CASES = {
    "3x3": (17, 20, 19, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    "4x4 maps": (32, 48, 33, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "7x7 maps": (5, 16, 32, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "stride 2": (6, 16, 24, (11, 8), (3, 3), (2, 2), (1, 1), (1, 1)),
    "1x1": (3, 65, 31, (6, 5), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, stride 2": (9, 32, 16, (8, 8), (1, 1), (2, 2), (0, 0), (1, 1)),
    "first layer": (8, 3, 64, (12, 12), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one image": (1, 5, 7, (13, 17), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one of all": (1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    "dilated": (4, 6, 5, (12, 10), (3, 3), (1, 1), (4, 3), (4, 3)),
    "oblong": (2, 4, 9, (15, 20), (2, 5), (3, 1), (0, 4), (1, 2)),
    "stride above kernel": (3, 4, 5, (14, 13), (2, 2), (5, 4), (0, 1), (1, 1)),
    "kernel above map": (2, 3, 4, (2, 3), (5, 5), (1, 1), (3, 2), (1, 1)),
    "more padding than kernel": (2, 3, 4, (3, 2), (1, 1), (1, 1), (2, 3), (1, 1)),
    "large kernel": (1, 2, 3, (16, 16), (31, 29), (1, 1), (15, 14), (1, 1)),
    "most taps": (1, 1, 2, (3, 3), (64, 64), (7, 9), (64, 96), (2, 3)),
    "many channels": (2, 300, 20, (2, 2), (3, 3), (1, 1), (1, 1), (1, 1)),
    "blocks of images": (70, 40, 70, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    "classifier": (130, 33, 10, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
}
EMPTY = {
    "no image": (0, 4, 5, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
    "no channel": (2, 0, 5, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
    "no filter": (2, 4, 0, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1)),
}
KINDS = ("values", "signs", "nearly signs", "ones", "nothing", "everything")


def make_weight(shape, kind: str, density: float = 0.3) -> Tensor:
    w = torch.randn(shape)
    mask = torch.rand(shape) < {"nothing": 0.0, "everything": 1.0}.get(kind, density)
    if "signs" in kind:
        w = w.sign() * 0.37
    if kind == "ones":
        w = torch.full(shape, -0.5)
    w = torch.where(mask, w, torch.where(torch.rand(shape) < 0.5, 0.0, -0.0))
    if kind == "nearly signs" and w.numel():
        w.view(-1)[-1] = 0.1
    return w


def make_case(name: str, kind: str = "values", last: bool = True):
    """x, weight, dy and geometry."""
    n, c, o, size, kernel, *geometry = (CASES | EMPTY)[name]
    torch.manual_seed(len(name))
    x, weight = torch.randn(n, c, *size), make_weight((o, c, *kernel), kind)
    dy = torch.randn(output_shape(x.shape, weight.shape, *geometry))
    if last:
        x, weight, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight, dy))
    return x, weight, dy, geometry


def results(x, weight, dy, geometry) -> dict[str, Tensor]:
    return {
        "dense dw": ops.dense_conv_weight_gradient(x, dy, weight.shape, *geometry),
        "y": ops.sparse_conv_forward(x, weight, *geometry),
        "dx": ops.sparse_conv_input_gradient(dy, weight, x.shape, *geometry),
        "dw": ops.sparse_conv_weight_gradient(x, dy, weight, *geometry),
    }


def torchs(x, weight, dy, geometry, dtype) -> dict[str, Tensor]:
    x, w, dy = x.to(dtype), weight.to(dtype), dy.to(dtype)
    return {
        "dense dw": reference.dense_conv_weight_gradient(x, dy, w.shape, *geometry),
        "y": reference.sparse_conv_forward(x, w, *geometry),
        "dx": reference.sparse_conv_input_gradient(dy, w, x.shape, *geometry),
        "dw": reference.sparse_conv_weight_gradient(x, dy, w, *geometry),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_is_near_float64(name, kind):
    like, want = (torchs(*make_case(name, kind), dtype) for dtype in (torch.float32, torch.float64))
    for last in (True, False):
        case = make_case(name, kind, last)
        got = results(*case)
        for what, value in got.items():
            assert value.dtype == torch.float32 and value.shape == want[what].shape
            assert_no_worse_than(value, like[what], want[what], floor=5e-7)
        assert not bool(got["dw"][case[1] == 0].any()), "no gradient without a weight"


@pytest.mark.parametrize("name", EMPTY)
def test_empty(name):
    case = make_case(name)
    for what, value in results(*case).items():
        want = {"y": case[2], "dx": case[0]}.get(what, case[1])
        assert_equal(value, torch.zeros_like(want), what)


def test_layouts_of_the_results():
    x, weight, dy, geometry = make_case("3x3")
    got = results(x, weight, dy, geometry)
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in got.values())
    plain = ops.sparse_conv_weight_gradient(x, dy, weight.contiguous(), *geometry)
    assert plain.is_contiguous()
    assert_equal(plain, got["dw"].contiguous())


def test_inputs_of_any_strides():
    x, weight, dy, geometry = make_case("3x3")
    want = results(x, weight, dy, geometry)
    wide = torch.zeros(*x.shape[:3], 2 * x.shape[3])
    wide[..., ::2] = x
    odd = torch.empty(weight.shape[::-1]).permute(3, 2, 1, 0).copy_(weight)
    got = results(wide[..., ::2], weight, dy.transpose(0, 1).contiguous().transpose(0, 1), geometry)
    for what in want:
        assert_equal(got[what], want[what], what)
    like = torchs(x, weight, dy, geometry, torch.float64)
    assert_no_worse_than(ops.sparse_conv_forward(x, odd, *geometry), want["y"], like["y"])
    params = torch.nn.Parameter(weight), x.clone().requires_grad_()
    assert not ops.sparse_conv_forward(params[1], params[0], *geometry).requires_grad


def test_nothing_spreads_through_a_pruned_weight():
    x, weight, dy, geometry = make_case("3x3")
    weight[:, 3] = 0
    weight[5] = 0
    want = results(x, weight, dy, geometry)
    bad_x, bad_dy = x.clone(), dy.clone()
    bad_x[:, 3, 2, 2] = float("inf")
    bad_dy[:, 5] = float("nan")
    assert_equal(ops.sparse_conv_forward(bad_x, weight, *geometry), want["y"])
    assert_equal(ops.sparse_conv_input_gradient(bad_dy, weight, x.shape, *geometry), want["dx"])
    assert_equal(ops.sparse_conv_weight_gradient(bad_x, bad_dy, weight, *geometry), want["dw"])


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("kind", ["values", "signs"])
def test_what_is_not_finite_is_seen(kind, bad):
    x, weight, dy, geometry = make_case("3x3", kind)
    weight[2, 4, 1, 1] = weight.abs().max()
    spoiled = x.clone()
    spoiled[0, 4, 3, 3] = bad
    clean = ops.sparse_conv_forward(x, weight, *geometry)
    y = ops.sparse_conv_forward(spoiled, weight, *geometry)
    assert not bool(y[0, 2, 3, 3].isfinite())
    assert_equal(y[1:], clean[1:])
    assert not bool(ops.sparse_conv_weight_gradient(spoiled, dy, weight, *geometry)[2, 4, 1, 1].isfinite())
    weight[2, 4, 1, 1] = bad
    y = ops.sparse_conv_forward(x, weight, *geometry)
    assert not bool(y[:, 2, 3, 3].isfinite().any()) and bool(y[:, 3].isfinite().all())
    dx = ops.sparse_conv_input_gradient(dy, weight, x.shape, *geometry)
    assert not bool(dx[:, 4, 3, 3].isfinite().any()) and bool(dx[:, 5].isfinite().all())


def digest_of_all() -> str:
    digest = hashlib.sha256()
    for name in CASES:
        for kind in ("values", "signs"):
            for value in results(*make_case(name, kind)).values():
                digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


CODE = """
import torch
from tests.checks import assert_no_worse_than
from tests.ops.test_sparse_conv import CASES, LARGE, digest_of_all, make_case, results, torchs
CASES["large"] = LARGE
digests = set()
for threads in (1, 2, 3):
    torch.set_num_threads(threads)
    digests.add(digest_of_all())
assert len(digests) == 1, "threads change no bit"
for name in CASES:
    for kind in ("values", "signs"):
        case = make_case(name, kind)
        like, want = torchs(*case, torch.float32), torchs(*case, torch.float64)
        for what, value in results(*case).items():
            assert_no_worse_than(value, like[what], want[what], floor=5e-7)
"""
LARGE = (40, 64, 80, (13, 13), (3, 3), (1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize("isa", ["", "avx2", "scalar"])
def test_every_instruction_set_and_any_threads(isa):
    """Of the dense weight gradient, too."""
    environment = {**os.environ, "HIDDENNET_ISA": isa}
    run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def _wrong():
    x, weight, dy, geometry = make_case("3x3")
    good = dict(x=x, dy=dy, weight=weight, stride=geometry[0], padding=geometry[1], dilation=geometry[2])
    return good, {
        "expected x of dtype float32": dict(x=x.double()),
        "expected x of shape": dict(x=x[0]),
        "without groups": dict(x=x[:, :3]),
        "at least as large as the kernel": dict(x=x[:, :, :2, :2], padding=(0, 0)),
        "expected dy of dtype float32": dict(dy=dy.half()),
        "expected dy of shape": dict(dy=dy[:, 1:]),
        "expected weight of dtype float32": dict(weight=weight.bfloat16()),
        "at most 4096 taps": dict(weight=torch.zeros(1, 20, 65, 64)),
        "expected stride": dict(stride=(1, 0)),
        "expected padding": dict(padding=(1, -1)),
        "expected dilation": dict(dilation=(1,)),
        "to be a Tensor": dict(weight=None),
    }


@pytest.mark.parametrize("message", _wrong()[1])
def test_refuses(message):
    good, wrong = _wrong()
    with pytest.raises((TypeError, ValueError), match=message):
        ops.sparse_conv_weight_gradient(**{**good, **wrong[message]})


def test_raw_ops_refuse():
    x, weight, dy, geometry = make_case("3x3")
    raw = torch.ops.hiddennet
    for wrong, message in ((x.contiguous(), "channels_last"), (x[:, :3], "channels"), (x.double(), "scalar type")):
        with pytest.raises(RuntimeError, match=message):
            raw.sparse_conv_forward(wrong, weight, *geometry)
    with pytest.raises(RuntimeError, match="output shape"):
        raw.sparse_conv_input_gradient(dy[1:], weight, x.shape, *geometry)
    with pytest.raises(RuntimeError, match="2\\^29"):
        raw.sparse_conv_forward(x, weight, [1, 1], [2**40, 1], [1, 1])


def test_opcheck():
    x, weight, dy, geometry = make_case("oblong")
    raw = torch.ops.hiddennet
    torch.library.opcheck(raw.sparse_conv_forward.default, (x, weight, *geometry))
    torch.library.opcheck(raw.sparse_conv_input_gradient.default, (dy, weight, list(x.shape), *geometry))
    torch.library.opcheck(raw.sparse_conv_weight_gradient.default, (x, dy, weight, *geometry))
