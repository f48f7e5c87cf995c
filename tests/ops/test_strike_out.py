"""strike_out_ and count_flags: every ranking and memory format against the reference; ties, NaN and ends by eye."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch

from hiddennet import ops
from hiddennet.ops.strike_out import SCOPES
from tests import reference
from tests.checks import assert_equal

SHAPES = ((1, 1), (5, 7), (3, 50, 3, 3), (8, 3, 3, 3), (16, 8, 1, 1), (33, 17, 3, 3), (64, 300))
INF, NAN = float("inf"), float("nan")


def _layouts(scores: list[torch.Tensor], device) -> list[list[torch.Tensor]]:
    """The scores on the device, in both memory formats."""
    plain = [s.to(device) for s in scores]
    return [plain, [s.to(memory_format=torch.channels_last) if s.dim() == 4 else s for s in plain]]


def _check(scores, flags, counts, device, **how) -> None:
    want, thresholds = reference.strike_out(scores, flags, counts, **how)
    for laid in _layouts(scores, device):
        planes = [ops.pack_mask(f).to(device) for f in flags]
        before = [s.clone() for s in laid]
        got = ops.strike_out_(laid, planes, counts, **how)
        assert got.device == laid[0].device
        for i, (plane, mask) in enumerate(zip(planes, want, strict=True)):
            assert_equal(plane, reference.pack_mask(mask), f"flags of layer {i}, {how}, {counts}")
        assert_equal(got, thresholds, f"thresholds, {how}, {counts}")
        assert not bool((torch.signbit(got.cpu()) & (got.cpu() == 0)).any()), "a zero threshold is +0"
        assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(laid, before, strict=True))
        assert ops.count_flags(planes).tolist() == [int(m.sum()) for m in want]


@pytest.mark.parametrize(
    ("scores", "flags", "count", "how", "want", "threshold"),
    [
        ([3.0, 1.0, 2.0], [1, 1, 1], 1, {}, [1, 0, 1], 1.0),
        ([3.0, 1.0, 2.0], [1, 0, 1], 1, {}, [1, 0, 0], 2.0),  # inactive scores are not ranked
        ([3.0, -1.0, 2.0], [1, 1, 1], 2, {}, [1, 0, 0], 2.0),
        ([3.0, -1.0, 2.0], [1, 1, 1], 2, {"by": "value"}, [1, 0, 0], 2.0),
        ([0.0, 0.5, -0.0, 0.0], [1, 1, 1, 1], 1, {}, [0, 1, 0, 0], 0.0),  # all ties go
        ([0.0, 0.5, -0.0, 0.0], [0, 1, 1, 1], 1, {"exact": True}, [0, 1, 0, 1], 0.0),  # the lower index goes first
        ([3.0, 1.0, 2.0], [1, 1, 1], 1, {"invert": True}, [0, 1, 1], 3.0),
        ([1.0, 1.0, 0.5], [1, 1, 1], 1, {"invert": True}, [0, 0, 1], 1.0),
        ([1.0, 1.0, 0.5], [1, 1, 1], 1, {"invert": True, "exact": True}, [0, 1, 1], 1.0),
        ([1.0, 2.0], [1, 1], 2, {}, [0, 0], 2.0),  # a layer may be left empty
        ([1.0, 2.0], [1, 0], 2, {}, [0, 0], 1.0),  # no more than there are
        ([1.0, 2.0], [1, 0], 0, {}, [1, 0], -INF),
        ([1.0, 2.0], [1, 0], 0, {"invert": True}, [1, 0], INF),
        ([1.0, 2.0], [0, 0], 1, {}, [0, 0], -INF),
        ([NAN, 1.0, INF], [1, 1, 1], 2, {}, [1, 0, 0], INF),  # NaN ranks highest
        ([NAN, 1.0, INF], [1, 1, 1], 1, {"invert": True}, [0, 1, 1], NAN),
        ([NAN, 1.0, INF], [1, 1, 1], 3, {}, [0, 0, 0], NAN),
    ],
)
def test_by_eye(device, scores, flags, count, how, want, threshold):
    planes = [ops.pack_mask(torch.tensor(flags, device=device).bool())]
    got = ops.strike_out_([torch.tensor(scores, device=device)], planes, [count], **how)
    assert_equal(ops.unpack_mask(planes[0], (len(want),)), torch.tensor(want).bool())
    assert_equal(got, torch.tensor([threshold]))


@pytest.mark.parametrize(
    ("scope", "by", "invert", "exact"),
    list(itertools.product(SCOPES, ("magnitude", "value"), (False, True), (False, True))),
)
def test_equals_the_reference(device, scope, by, invert, exact):
    how = {"scope": scope, "by": by, "invert": invert, "exact": exact}
    for levels in (0, 4):  # distinct scores; few values, with ties at every threshold and special ones
        scores = [torch.randn(shape) for shape in SHAPES]
        if levels:
            scores = [(s * levels).round() / levels for s in scores]
            for i, special in enumerate((NAN, -NAN, INF, -INF, -0.0, 1e-42)):
                for s in scores[1:]:
                    s.view(-1)[i::31] = special
        for density in (1.0, 0.4, 0.03):
            flags = [torch.rand(shape) < density for shape in SHAPES]
            sizes = [int(f.sum()) for f in flags]
            if scope == "global":
                amounts = [[int(sum(sizes) * part)] for part in (0.0, 0.001, 0.3, 0.9, 1.0)]
            else:
                amounts = [[int(n * part) for n in sizes] for part in (0.0, 0.3, 1.0)]
                amounts.append([int(n * i / len(sizes)) for i, n in enumerate(sizes)])
            for counts in amounts:
                _check(scores, flags, counts, device, **how)


@pytest.mark.parametrize("scope", SCOPES)
def test_every_count_of_a_few_ties(device, scope):
    """The quota ends in each place of each layer."""
    scores = [torch.tensor([1.0, 2.0, 1.0, 1.0, 0.5]), torch.ones(2, 3, 2, 2), torch.full((9,), -1.0)]
    flags = [torch.rand(s.shape) < 0.7 for s in scores]
    for count in range(27 if scope == "global" else 6):
        counts = [count] if scope == "global" else [min(count, s.numel()) for s in scores]
        _check(scores, flags, counts, device, scope=scope, exact=True)
        _check(scores, flags, counts, device, scope=scope, exact=True, invert=True)


def test_a_second_call_goes_on(device):
    """What is struck out stays out: repeated calls are the reference repeated."""
    scores = [torch.rand(40, 30, 3, 3), torch.rand(500, 21)]
    flags = [torch.ones_like(s).bool() for s in scores]
    planes = [ops.pack_mask(f).to(device) for f in flags]
    moved = [s.to(device) for s in scores]
    left = sum(s.numel() for s in scores)
    for _ in range(4):
        count = left // 4
        flags, want = reference.strike_out(scores, flags, [count])
        assert_equal(ops.strike_out_(moved, planes, [count]), want)
        for plane, mask in zip(planes, flags, strict=True):
            assert_equal(plane, reference.pack_mask(mask))
        left = int(ops.count_flags(planes).sum())
        assert left == sum(int(f.sum()) for f in flags)


def test_bits_past_the_end_stay(device):
    for count in (0, 1, 3):
        plane = torch.tensor([0xFF], dtype=torch.uint8, device=device)
        ops.strike_out_([torch.tensor([1.0, 2.0, 3.0], device=device)], [plane], [count])
        assert int(plane) == 0xFF & ~((1 << count) - 1)


def test_many_layers(device):
    """More than one launch holds, each ranked by itself."""
    shapes = [(1 + i % 40,) for i in range(600)]
    scores, flags = [torch.rand(s) for s in shapes], [torch.rand(s) < 0.8 for s in shapes]
    _check(scores, flags, [s[0] // 2 for s in shapes], device, scope="layer", exact=True)


CODE = """
import hashlib, torch
from hiddennet import ops
torch.manual_seed(0)
digest = hashlib.sha256()
for shape in ((43, 3), (33, 17, 3, 3), (300, 301)):
    scores = (torch.randn(shape) * 16).round() / 16
    for by in ("magnitude", "value"):
        for invert in (False, True):
            plane = ops.pack_mask(torch.rand(shape) < 0.7)
            tau = ops.strike_out_([scores], [plane], [scores.numel() // 3], by=by, invert=invert)
            digest.update(plane.numpy().tobytes() + tau.numpy().tobytes())
print(digest.hexdigest())
"""


def test_avx2_equals_scalar():
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this CPU has no AVX2: there is one path only")
    digests = []
    for isa in ("", "scalar"):
        environment = {**os.environ, "HIDDENNET_ISA": isa}
        run = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        digests.append(run.stdout)
    assert digests[0] == digests[1]


def test_opcheck(device):
    scores = [torch.randn(6, 5, device=device), torch.randn(7, device=device)]
    planes = [ops.pack_mask(torch.ones_like(s).bool()) for s in scores]
    raw = torch.ops.hiddennet.strike_out_.default
    torch.library.opcheck(raw, (scores, planes, [9], True, False, False, True))
    torch.library.opcheck(torch.ops.hiddennet.count_flags.default, (planes,))


S, F = torch.rand(3, 5), torch.zeros(2, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.strike_out_([], [], [0]), ValueError, "a non-empty list of scores, got an empty list"),
        (lambda: ops.strike_out_(S, [F], [0]), ValueError, "a non-empty list of scores, got one Tensor"),
        (lambda: ops.strike_out_([S], [], [0]), ValueError, "a non-empty list of flags, got an empty list"),
        (lambda: ops.strike_out_([S, S], [F], [0]), ValueError, r"a plane of flags a layer \(2\), got 1"),
        (lambda: ops.strike_out_([S.double()], [F], [0]), TypeError, "dtype float32, got float64"),
        (lambda: ops.strike_out_([S], [F.bool()], [0]), TypeError, "dtype uint8, got bool"),
        (lambda: ops.strike_out_([S], [F[:1]], [0]), ValueError, r"flags of shape \(2,\) for scores of shape \(3, 5\)"),
        (lambda: ops.strike_out_([S], [torch.cat([F, F])[::2]], [0]), ValueError, "contiguous"),
        (lambda: ops.strike_out_([S], [F], [16]), ValueError, r"a count in \[0, 15\], got 16"),
        (lambda: ops.strike_out_([S], [F], [-1]), ValueError, r"a count in \[0, 15\], got -1"),
        (lambda: ops.strike_out_([S], [F], [1.0]), TypeError, "a count to be an int, got float"),
        (lambda: ops.strike_out_([S, S], [F, F], [0], scope="layer"), ValueError, r"one count a ranking \(2\), got 1"),
        (lambda: ops.strike_out_([S], [F], [0], scope="net"), ValueError, "'global' or 'layer'"),
        (lambda: ops.strike_out_([S], [F], [0], by="size"), ValueError, "'magnitude' or 'value'"),
        (lambda: ops.strike_out_([S.to("meta")], [F], [0]), ValueError, "expected scores on cpu"),
        (lambda: ops.count_flags([]), ValueError, "a non-empty list of flags"),
        (lambda: ops.count_flags([S]), TypeError, "dtype uint8, got float32"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_raw_op_refuses_instead_of_crashing():
    raw = torch.ops.hiddennet.strike_out_.default
    how = (True, False, False, False)
    bad = [
        ([S], [], [0], *how),
        ([S], [F[:1]], [0], *how),
        ([S], [F.bool()], [0], *how),
        ([S.double()], [F], [0], *how),
        ([S.t()], [F], [0], *how),
        ([S], [F], [], *how),
        ([S], [F], [16], *how),
        ([S], [F], [-1], *how),
        ([S, S], [F, F], [0], False, *how[1:]),
    ]
    for arguments in bad:
        with pytest.raises(RuntimeError, match="expected"):
            raw(*arguments)
    with pytest.raises(RuntimeError, match="expected"):
        torch.ops.hiddennet.count_flags.default([S])
