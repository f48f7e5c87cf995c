"""strike_near_ against a sort: flags, threshold, and where scores are near it; also where its sample misleads."""

from __future__ import annotations

import pytest
import torch

from hiddennet import ops
from tests import reference
from tests.checks import assert_equal

INF, NAN = float("inf"), float("nan")
SAMPLES = 1 << 15  # as strike_near_cpu.cpp takes of four times as many scores or more


def _check(scores: list[torch.Tensor], count: int, margin: float = 2.0**-14) -> None:
    want, threshold, below, near = reference.strike_near(scores, count, margin)
    before = [s.clone() for s in scores]
    planes = [torch.randint(256, ((s.numel() + 7) // 8,), dtype=torch.uint8) for s in scores]
    got, got_below, places = ops.strike_near_(scores, planes, count, margin)
    assert_equal(got, threshold, f"threshold of {count}")
    for plane, flags in zip(planes, want, strict=True):
        assert_equal(plane, reference.pack_mask(flags), f"flags of {count}")
    for s, then in zip(scores, before, strict=True):
        assert_equal(s, then)
    if float(threshold) == 0:  # of zeros none is near
        assert got_below.tolist() == [sum(int((s == 0).sum()) for s in scores)]
        assert not any(at.numel() for at in places)
        return
    assert got_below.tolist() == [below]
    for found, at in zip(places, near, strict=True):
        assert_equal(found, at, f"places of {count}")


@pytest.mark.parametrize("margin", [0.0, 2.0**-14, 0.5])
def test_small(margin):
    scores = [torch.randn(shape) for shape in ((1,), (7, 3), (5, 3, 3, 3), (2000,))]
    n = sum(s.numel() for s in scores)
    for count in (1, 2, n // 3, n - 1, n):
        _check(scores, count, margin)
    tied = [(s * 2).round() / 2 for s in scores]  # zeros of both signs, too
    for count in (1, n // 10, n // 3, n // 2, n):
        _check(tied, count, margin)


@pytest.mark.parametrize("threads", [1, 2])
def test_many(threads, request):
    request.getfixturevalue("one_thread")  # which restores the number
    torch.set_num_threads(threads)
    scores = [torch.randn(shape).exp() for shape in ((100, 999), (3,), (256, 128, 3, 3))]
    scores[2][torch.rand_like(scores[2]) < 0.5] = 0.0
    n = sum(s.numel() for s in scores)
    for count in (1, 1000, n // 4, n // 2, n - 1000, n):
        _check(scores, count)
    _check([torch.full((300_001,), 2.0)], 150_000)
    _check([torch.zeros(300_001)], 150_000)


@pytest.mark.parametrize("sampled", [1e-3, 5.0, 0.0])
def test_sample_that_misleads(sampled):
    """Every score that is looked at first is alike, the others are between 0.5 and 1.5."""
    n = 8 * SAMPLES
    i = torch.arange(SAMPLES)
    places = i * 8 + ((i * 0x9E3779B9 & 0xFFFFFFFF) * 8 >> 32)
    scores = torch.rand(n) + 0.5
    scores[places] = sampled
    for count in (10, n // 9, n // 2, n - n // 9):
        _check([scores], count)


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_not_finite(bad):
    scores = torch.rand(5000)
    scores[4321] = bad
    planes = [torch.randint(256, (625,), dtype=torch.uint8)]
    before = planes[0].clone()
    threshold, _, (places,) = ops.strike_near_([scores], planes, 10, 0.1)
    assert bool(threshold.isnan())
    assert places.numel() == 0
    assert_equal(planes[0], before)


def test_refuses():
    scores, planes = [torch.rand(20)], [torch.zeros(3, dtype=torch.uint8)]
    for changed, message in (
        (dict(scores=scores[0]), "non-empty list"),
        (dict(scores=[]), "non-empty list"),
        (dict(scores=[scores[0].double()]), "float32"),
        (dict(scores=[torch.rand(40)[::2]]), "contiguous"),
        (dict(flags=[]), "flags"),
        (dict(flags=planes * 2), "a plane of flags"),
        (dict(flags=[planes[0][:2]]), "flags of shape"),
        (dict(count=0), "a count in"),
        (dict(count=21), "a count in"),
        (dict(count=1.0), "to be an int"),
        (dict(margin=1.0), "a margin in"),
        (dict(margin=NAN), "a margin in"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ops.strike_near_(**{**dict(scores=scores, flags=planes, count=3, margin=0.1), **changed})


def test_opcheck():
    planes = [torch.zeros(3, dtype=torch.uint8)]
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.hiddennet.strike_near_.default, ([torch.rand(20)], planes, 7, 0.1), test_utils=checks
    )
