"""generate_weight: equal to the reference to the bit, in every layout, and distributed as each init says."""

from __future__ import annotations

import math

import pytest
import torch

from hiddennet import ops
from tests import reference
from tests.checks import assert_equal
from tests.golden import Golden

pytestmark = pytest.mark.isa

SHAPES = ((1, 1), (5, 7), (3, 43), (8, 3, 3, 3), (16, 8, 1, 1), (33, 17, 3, 3), (2, 4, 7, 7), (256, 129))


@pytest.mark.parametrize("init", ops.INITS)
def test_equals_the_reference(device, init):
    for shape in SHAPES:
        for name in ({"seed": 0}, {"seed": 2**62 + 12345, "layer": 3, "redraw": 7}):
            scaled = ops.init_scale(shape, init)
            want = reference.generate(scaled.kind, scaled.scale, math.prod(shape), **name).view(shape)
            got = ops.generate_weight(shape, init, device=device, **name)
            assert_equal(got, want, f"{init} {shape} {name}")
            for dtype in (torch.bfloat16, torch.float16):
                rounded = ops.generate_weight(shape, init, device=device, dtype=dtype, **name)
                assert_equal(rounded, want.to(dtype), f"{init} {shape} {dtype}")
            if len(shape) == 4:
                other = ops.generate_weight(shape, init, device=device, memory_format=torch.channels_last, **name)
                assert other.is_contiguous(memory_format=torch.channels_last)
                assert_equal(other, want, f"{init} {shape} channels_last")


@pytest.mark.parametrize("init", ops.INITS)
def test_distribution(init):
    """By the family that a name tells: Kaiming's and the constants' deviation is g / sqrt(fan), Xavier's its own."""
    w = ops.generate_weight((256, 64, 3, 3), init, seed=1).double()
    fan_in, fan_out = 64 * 9, 256 * 9
    kind, scale = ops.init_scale((256, 64, 3, 3), init)
    root_mean_square = float((w**2).mean().sqrt())
    if "kaiming" in init or init in ("signed_constant", "unsigned_constant"):
        assert root_mean_square == pytest.approx(math.sqrt(2 / fan_in), rel=0.01)
    elif "xavier" in init:
        assert root_mean_square == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.01)
    assert not bool((w == 0).any())
    if kind == "constant":
        assert float(w.min()) == float(w.max())
    else:
        assert abs(float(w.mean())) < 4 * root_mean_square / math.sqrt(w.numel())
    if kind == "uniform":
        assert scale * 0.999 < float(w.abs().max()) <= scale * (1 + 1e-6)


def test_scales_of_the_plain_uniforms():
    assert ops.init_scale((8, 4, 3, 3), "standard") == ("uniform", pytest.approx(1 / 6))
    assert ops.init_scale((8, 4, 3, 3), "uniform") == ("uniform", 1.0)


def test_normals_follow_the_normal_distribution():
    z = reference.normals(200_000, seed=3).double().sort().values
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    distance = (cdf - torch.linspace(0, 1, z.numel(), dtype=torch.float64)).abs().max()
    assert float(distance) < 1.95 / math.sqrt(z.numel())  # Kolmogorov-Smirnov at 0.1 %
    assert abs(float((z**4).mean()) - 3) < 0.1


def test_laplaces_follow_the_laplace_distribution():
    z = reference.laplaces(200_000, seed=3).double().sort().values
    cdf = torch.where(z < 0, z.exp() / 2, 1 - (-z).exp() / 2)
    distance = (cdf - torch.linspace(0, 1, z.numel(), dtype=torch.float64)).abs().max()
    assert float(distance) < 1.95 / math.sqrt(z.numel())  # Kolmogorov-Smirnov at 0.1 %
    assert float((z**2).mean()) == pytest.approx(2, rel=0.03)  # 4 deviations of the mean of squares
    assert float(z.abs().max()) < 24 * math.log(2)
    words = reference.random._words(2000, 3, 0, 0, reference.random.LAPLACE)
    want = -torch.log((2 * (words >> 9) + 1).double() * 2.0**-24)
    torch.testing.assert_close(reference.laplaces(2000, seed=3).abs().double(), want, rtol=3e-7, atol=0)


def test_truncated_normals_are_the_quantiles_of_their_uniforms():
    words = reference.random._words(100_000, 3, 0, 0, reference.random.TRUNCATED)
    uniform = (2 * (words >> 8) + 1 - (1 << 24)).double() * 2.0**-24
    want = math.sqrt(2) * torch.erfinv(uniform * math.erf(math.sqrt(2)))
    got = reference.random.truncated_normals(100_000, seed=3)
    torch.testing.assert_close(got.double(), want, rtol=6e-7, atol=0)
    assert 1.99 < float(got.abs().max()) <= 2 * (1 + 6e-7)


def test_kaiming_laplace_has_the_deviation_of_kaiming_normal():
    """Its scale parameter is 1 / sqrt(fan_in) behind a relu, as Peek-a-Boo draws it."""
    shape = (6, 4, 3, 3)
    assert ops.init_scale(shape, "kaiming_laplace") == ("laplace", pytest.approx(1 / 6))
    for density in (None, 0.25):
        for mode in ("fan_in", "fan_out"):
            options = {"mode": mode, "density": density, "nonlinearity": "tanh"}
            normal = ops.init_scale(shape, "kaiming_normal", **options).scale
            assert ops.init_scale(shape, "kaiming_laplace", **options).scale == pytest.approx(normal / math.sqrt(2))


@pytest.mark.parametrize(
    ("theirs", "ours", "kind", "scale"),
    [
        ("standard", "standard", "uniform", lambda i, o: 1 / math.sqrt(i)),
        ("kaiming_normal", "kaiming_normal", "normal", lambda i, o: math.sqrt(2 / i)),
        ("kaiming_uniform", "kaiming_uniform", "uniform", lambda i, o: math.sqrt(6 / i)),
        ("kaiming_constant_signed", "signed_constant", "signs", lambda i, o: math.sqrt(2 / i)),
        ("kaiming_constant_unsigned", "unsigned_constant", "constant", lambda i, o: math.sqrt(2 / i)),
        ("kaiming_laplace", "kaiming_laplace", "laplace", lambda i, o: 1 / math.sqrt(i)),
        ("xavier_normal", "xavier_normal", "normal", lambda i, o: math.sqrt(2 / (i + o))),
        ("xavier_constant", "xavier_constant", "signs", lambda i, o: math.sqrt(2 / (i + o))),
    ],
)
def test_peek_a_boos_init_methods(theirs, ours, kind, scale):
    """Each of its names has a counterpart here, with its scale for a convolution's fans."""
    for shape in ((64, 3, 3, 3), (16, 32, 1, 1)):
        fan_in, fan_out = (shape[i] * shape[2] * shape[3] for i in (1, 0))
        assert ops.init_scale(shape, ours) == (kind, pytest.approx(scale(fan_in, fan_out))), theirs


def test_normals_are_box_mullers_to_float32_precision():
    """The fixed polynomials against float64 mathematics."""
    words = reference.random.philox(torch.arange(2000), 0, 0, reference.random.NORMAL, 9)
    u = (2 * (words[:, 0] >> 9) + 1).double() * 2.0**-24
    turn = words[:, 1] >> 8
    angle = (turn >> 22).double() + (2 * (turn & 0x3FFFFF) + 1 - (1 << 22)).double() / (1 << 23)
    r = torch.sqrt(-2 * torch.log(u))
    z = reference.normals(8000, seed=9).view(-1, 4).double()
    for got, want in ((z[:, 0], r * torch.cos(angle * math.pi / 2)), (z[:, 1], r * torch.sin(angle * math.pi / 2))):
        assert float((got - want).abs().max()) < 2e-6
        assert float(((got - want) / want).abs().max()) < 1e-6


def test_draws_differ_by_every_part_of_their_name():
    names = [{"seed": 1}, {"seed": 2}, {"seed": 1 + 2**32}, {"seed": 1, "layer": 1}, {"seed": 1, "redraw": 1}]
    signs = [ops.generate_weight((64, 64), "signed_constant", **name).sign() for name in names]
    for i, a in enumerate(signs):
        for b in signs[:i]:
            assert abs(float((a * b).mean())) < 0.07  # independent: 4.5 deviations of 1 / 64


def test_known_answers_of_philox():
    """Random123's published vectors for philox4x32-10."""
    want = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert reference.random.philox(torch.tensor([0]), 0, 0, 0, 0)[0].tolist() == want
    ones = 0xFFFFFFFF
    got = reference.random.philox(torch.tensor([ones]), ones, ones, ones, 2**64 - 1)[0].tolist()
    assert got == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    got = reference.random.philox(torch.tensor([0x243F6A88]), 0x85A308D3, 0x13198A2E, 0x03707344, 0x299F31D0A4093822)[
        0
    ].tolist()
    assert got == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_original_constants():
    values = Golden("hidden_networks")
    rows = [
        (init, mode, scaled, rate)
        for init in ("signed_constant", "unsigned_constant", "xavier_constant")
        for mode in ("fan_in", "fan_out")
        for scaled, rate in ((False, 0.5), (True, 0.5), (True, 0.3), (True, 0.7))
    ]
    for (init, mode, scaled, rate), want in zip(rows, values["init_const_absvalue"], strict=True):
        for shape, value in zip(values["init_shapes"], want, strict=True):
            # the original scales the fan by 1 - prune_rate, so its rate r is our density 1 - r
            density = 1 - rate if scaled and init != "xavier_constant" else None
            got = ops.init_scale(tuple(int(s) for s in shape), init, mode=mode, density=density)
            assert got.scale == pytest.approx(float(value), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"init": "kaiming"}, ValueError, "expected init to be"),
        ({"mode": "fan"}, ValueError, "expected mode to be"),
        ({"nonlinearity": "elephant"}, ValueError, "nonlinearity"),
        ({"shape": (4,)}, ValueError, "at least 2 dimensions"),
        ({"shape": (4, 0)}, ValueError, "with elements"),
        ({"seed": -1}, ValueError, "expected seed"),
        ({"seed": 0.5}, TypeError, "expected seed to be an int"),
        ({"dtype": torch.float64}, TypeError, "float32, bfloat16 or float16"),
        ({"density": 0.0}, ValueError, r"density in \(0, 1\]"),
        ({"init": "standard", "density": 0.5}, ValueError, "no scale_fan"),
        ({"memory_format": torch.channels_last}, ValueError, "4 dimensions"),
        ({"shape": (2**16, 2**15)}, ValueError, "2\\^31 elements"),
    ],
)
def test_bad_input(arguments, error, message):
    good = {"shape": (4, 3), "init": "signed_constant", "seed": 0}
    with pytest.raises(error, match=message):
        ops.generate_weight(**{**good, **arguments})


def test_opcheck(device):
    out = torch.empty(6, 5, device=device)
    torch.library.opcheck(torch.ops.hiddennet.generate_weight.default, (out, 4, False, 0.5, 1, 2, 3))
    plane = torch.empty(4, dtype=torch.uint8, device=device)
    torch.library.opcheck(torch.ops.hiddennet.generate_signs.default, (plane, 30, 1, 2, 3))
