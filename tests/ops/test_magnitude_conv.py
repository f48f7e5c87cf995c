"""magnitude_conv, its way back and single slopes against torch's conv2d in float64; equal bits on every path."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from hiddennet import ops
from tests import reference
from tests.checks import assert_equal

# channels, filters, (height, width), (kernel), stride, padding, dilation
CASES = {
    "3x3": (5, 11, (20, 20), (3, 3), (1, 1), (1, 1), (1, 1)),
    "stride 2": (5, 9, (21, 20), (3, 3), (2, 2), (1, 1), (1, 1)),
    "1x1, stride 2": (16, 8, (12, 12), (1, 1), (2, 2), (0, 0), (1, 1)),
    "dilated": (3, 17, (17, 17), (3, 3), (1, 1), (2, 2), (2, 2)),
    "oblong": (4, 8, (18, 31), (2, 5), (3, 1), (0, 4), (1, 2)),
    "more padding than image": (2, 3, (3, 2), (3, 3), (1, 1), (3, 3), (1, 1)),
    "one position": (30, 20, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    "a row of 4": (70, 33, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "many positions": (1, 2, (33, 30), (3, 3), (1, 1), (1, 1), (1, 1)),
}


def _case(name: str, repeated: bool = False):
    """x, weight, mask, dy and geometry; `repeated`: neighbouring lines of x are equal, as far from an edge of ones."""
    channels, filters, size, kernel, *geometry = CASES[name]
    x = torch.rand(channels, *size, dtype=torch.float64)
    if repeated:
        x[:, 2:-2] = x[:, 1:2]
        x[:, :, 1:-3] = x[:, :, 1:2]
    weight = torch.randn(filters, channels, *kernel)
    mask = torch.rand_like(weight) < 0.6
    how = dict(zip(("stride", "padding", "dilation"), geometry, strict=True))
    dy = torch.rand_like(reference.magnitude_conv(x, weight, mask, **how))
    return x, weight, mask, dy, how


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name, repeated):
    x, weight, mask, dy, how = _case(name, repeated)
    bits, scores = ops.pack_mask(mask), torch.full_like(weight, 7.0)
    y = ops.magnitude_conv(x, weight, bits, **how)
    torch.testing.assert_close(y, reference.magnitude_conv(x, weight, mask, **how), rtol=1e-13, atol=0)
    dx = ops.magnitude_conv_backward_(x, dy, weight, bits, scores, **how)
    want_dx, slopes, want = reference.magnitude_conv_backward(x, dy, weight, mask, **how)
    torch.testing.assert_close(dx, want_dx, rtol=1e-13, atol=1e-300)
    positions = y[0].numel()
    bound = (min(positions, 256) + positions / 256 + 4) * 2.0**-24
    assert bool(((scores.double() - want).abs() <= bound * want).all())
    assert not bool(scores[~mask].any()), "no score without a bit"
    places = torch.randint(weight.numel(), (50,))
    got = ops.magnitude_conv_slopes(x, dy, weight.shape, places, **how)
    torch.testing.assert_close(got, slopes.flatten()[places], rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("name", CASES)
def test_equal_patches_change_no_bit(name):
    """A channel of noise whose weights have no bit makes all patches differ and adds zeros."""
    x, weight, mask, _, how = _case(name, repeated=True)
    noisy = torch.cat([x, torch.rand_like(x[:1])])
    wider, wider_mask = torch.cat([weight, weight[:, :1]], 1), torch.cat([mask, torch.zeros_like(mask[:, :1])], 1)
    once = ops.magnitude_conv(x, weight, ops.pack_mask(mask), **how)
    assert_equal(once, ops.magnitude_conv(noisy, wider, ops.pack_mask(wider_mask), **how))


def test_nothing_else_is_touched():
    x, weight, mask, dy, how = _case("oblong")
    bits, scores = ops.pack_mask(mask), torch.empty_like(weight)
    before = [t.clone() for t in (x, weight, bits, dy)]
    first = ops.magnitude_conv_backward_(x, dy, weight, bits, scores, **how)
    again, none = torch.ones_like(weight), torch.empty_like(weight)
    ops.magnitude_conv_backward_(x, dy, weight, bits, again, accumulate=True, **how)
    assert_equal(again, scores + 1)
    assert ops.magnitude_conv_backward_(x, dy, weight, bits, none, want_dx=False, **how) is None
    assert_equal(none, scores)
    assert first is not None
    for now, then in zip((x, weight, bits, dy), before, strict=True):
        assert_equal(now, then)


def test_infinity_and_nan_are_seen():
    x, weight, mask, dy, how = _case("3x3")
    mask[0, 0] = True
    for bad in (float("inf"), float("nan")):
        spoiled = weight.clone()
        spoiled[0, 0, 1, 1] = bad
        scores = torch.empty_like(weight)
        assert not bool(ops.magnitude_conv(x, spoiled, ops.pack_mask(mask), **how).isfinite().all())
        ops.magnitude_conv_backward_(x, dy, spoiled, ops.pack_mask(mask), scores, **how)
        assert not bool(scores.isfinite().all())


CODE = """
import hashlib, torch
from hiddennet import ops
from tests.ops.test_magnitude_conv import CASES, _case
CASES["large"] = (40, 48, (24, 24), (3, 3), (1, 1), (1, 1), (1, 1))  # enough for two threads
for threads in (1, 2):
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for name in CASES:
        for repeated in (False, True):
            x, weight, mask, dy, how = _case(name, repeated)
            bits, scores = ops.pack_mask(mask), torch.empty_like(weight)
            y = ops.magnitude_conv(x, weight, bits, **how)
            dx = ops.magnitude_conv_backward_(x, dy, weight, bits, scores, **how)
            for t in (y, dx, scores): digest.update(t.numpy().tobytes())
    print(digest.hexdigest())
"""


def test_threads_and_vectors_change_no_bit():
    digests = set()
    for isa in ("", "avx512", "avx2", "scalar"):
        environment = {**os.environ, "HIDDENNET_ISA": isa}
        run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        digests |= set(run.stdout.split())
    assert len(digests) == 1


def _wrong():
    x, weight, mask, dy, how = _case("3x3")
    bits, scores = ops.pack_mask(mask), torch.empty_like(weight)
    good = dict(x=x, dy=dy, weight=weight, bits=bits, scores=scores, **how)
    return good, {
        "expected x of dtype float64": dict(x=x.float()),
        "expected x of shape": dict(x=x[:3]),
        "not empty": dict(x=x[:, :0]),
        "at least as large as the kernel": dict(x=x[:, :2, :2], padding=(0, 0)),
        "expected dy of dtype float64": dict(dy=dy.float()),
        "expected dy of shape": dict(dy=dy[:, 1:]),
        "expected weight of dtype float32": dict(weight=weight.double()),
        "contiguous weight": dict(weight=weight.to(memory_format=torch.channels_last)),
        "bits": dict(bits=bits[1:]),
        "expected scores of dtype float32": dict(scores=scores.double()),
        "contiguous scores": dict(scores=scores[:4]),
        "expected stride": dict(stride=(1, 0)),
        "expected padding": dict(padding=(1, -1)),
        "expected dilation": dict(dilation=(1,)),
    }


@pytest.mark.parametrize("message", _wrong()[1])
def test_refuses(message):
    good, wrong = _wrong()
    with pytest.raises((TypeError, ValueError), match=message):
        ops.magnitude_conv_backward_(**{**good, **wrong[message]})


def test_refuses_places_outside():
    x, weight, _, dy, how = _case("3x3")
    for place in (-1, weight.numel()):
        with pytest.raises(RuntimeError, match="expected places in"):
            ops.magnitude_conv_slopes(x, dy, weight.shape, torch.tensor([0, place]), **how)
    with pytest.raises(ValueError, match="1 dimension"):
        ops.magnitude_conv_slopes(x, dy, weight.shape, torch.zeros(1, 1, dtype=torch.int64), **how)


def test_opcheck():
    x, weight, mask, dy, how = _case("oblong")
    bits, geometry = ops.pack_mask(mask), [list(pair) for pair in how.values()]
    raw = torch.ops.hiddennet
    torch.library.opcheck(raw.magnitude_conv.default, (x, weight, bits, *geometry))
    scores = torch.empty_like(weight)
    torch.library.opcheck(raw.magnitude_conv_backward_.default, (x, dy, weight, bits, scores, False, True, *geometry))
    places = torch.tensor([0, 5])
    torch.library.opcheck(raw.magnitude_conv_slopes.default, (x, dy, list(weight.shape), places, *geometry))
