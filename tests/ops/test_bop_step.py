"""bop_step_: equal to the reference to the bit, in every layout and with flags; magnitudes never change."""

from __future__ import annotations

import math

import pytest
import torch

from hiddennet import ops
from hiddennet.ops.bop_step import bop_step_
from tests import reference
from tests.checks import assert_equal

SHAPES = ((43, 3), (1,), (33, 17, 3, 3), (16, 8, 1, 1), (300, 7), (8, 3, 5, 5), (0, 4))
HYPERS = ((0.3, 0.2), (1e-3, 1e-6), (0.5, 0.0))


def tensors(device, channels_last: bool = False) -> list[torch.Tensor]:
    """Normals with some zeros of either sign among them."""
    found = []
    for shape in SHAPES:
        t = torch.randn(shape)
        t[torch.rand(shape) < 0.1] = 0.0
        t = torch.where(torch.rand(shape) < 0.5, t, -t).to(device)
        found.append(t.contiguous(memory_format=torch.channels_last) if channels_last and t.dim() == 4 else t)
    return found


def counters(device) -> list[torch.Tensor]:
    return [torch.full((1,), 10 * i, dtype=torch.int64, device=device) for i in range(len(SHAPES))]


def assert_bits(got: torch.Tensor, want: torch.Tensor, what: str) -> None:
    """Zeros of different sign differ."""
    assert_equal(got.contiguous().view(torch.int32), want.contiguous().view(torch.int32), what)


@pytest.mark.parametrize(
    ("weight", "grad", "average", "threshold", "want", "flips"),
    [
        ([2.0, -2.0], [1.0, 1.0], None, 0.1, [-2.0, -2.0], 1),  # m = 1.5: of the first one's sign
        ([2.0, -2.0], [-1.0, -1.0], [0.0, 0.0], 0.1, [2.0, 2.0], 1),
        ([2.0, 2.0], [0.5, 0.5], [0.0, -0.01], 0.25, [-2.0, 2.0], 1),  # |m| = threshold flips, below it does not
        ([2.0, 2.0, 0.0], [0.0, math.nan, 0.0], [0.0, 0.0, 0.0], 0.0, [2.0, 2.0, -0.0], 1),
        ([3.0, 3.0], [0.0, 0.0], [1.0, -1.0], 0.1, [-3.0, 3.0], 1),  # the average alone
    ],
)
def test_by_eye(device, weight, grad, average, threshold, want, flips):
    w, g = torch.tensor(weight, device=device), torch.tensor(grad, device=device)
    m = torch.full_like(w, 99.0) if average is None else torch.tensor(average, device=device)
    last, total = (torch.tensor([5], device=device) for _ in range(2))
    bop_step_([w], [g], [m], [last], [total], adaptivity_rate=0.5, threshold=threshold, fresh=[average is None])
    assert_bits(w, torch.tensor(want, device=device), "weights")
    assert (last.item(), total.item()) == (flips, 5 + flips)


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("rate", "threshold"), HYPERS)
def test_equal_to_the_reference(device, rate, threshold, channels_last, flagged):
    """Three steps, the first of them fresh for half of the tensors; weights, averages and counts to the bit."""
    weights, averages = tensors(device, channels_last), tensors(device, channels_last)
    masks = [torch.rand(w.shape, device=device) < 0.4 for w in weights]
    flags = [ops.pack_mask(m) for m in masks] if flagged else None
    if flagged:
        flags[0] = None
    last, total = counters(device), counters(device)
    sums = [c.item() for c in total]
    magnitudes = [w.abs() for w in weights]
    for step in range(3):
        grads = tensors(device, channels_last)
        grads[4][0] = math.nan
        fresh = [step == 0 and i % 2 == 0 for i in range(len(weights))]
        if step == 0 and flagged:
            for i, f in enumerate(fresh):
                if f:
                    averages[i].zero_()  # what the reference takes for elements without a flag
        want = [
            reference.bop_step(
                w.cpu(),
                g.cpu(),
                None if f else m.cpu(),
                adaptivity_rate=rate,
                threshold=threshold,
                flags=None if plane is None else plane.cpu(),
            )
            for w, g, m, f, plane in zip(weights, grads, averages, fresh, flags or [None] * len(weights), strict=True)
        ]
        bop_step_(
            weights,
            grads,
            averages,
            last,
            total,
            adaptivity_rate=rate,
            threshold=threshold,
            fresh=fresh,
            flags=flags,
        )
        for i, (w, m, flips) in enumerate(want):
            assert_bits(weights[i].cpu(), w, f"weights {i} after step {step}")
            assert_equal(averages[i].cpu(), m, f"averages {i} after step {step}")
            sums[i] += flips
            assert (last[i].item(), total[i].item()) == (flips, sums[i]), f"flips of {i} after step {step}"
    for w, size in zip(weights, magnitudes, strict=True):
        assert_bits(w.abs(), size, "magnitudes")
    assert sums[2] > 20  # something flipped


def test_layouts_agree(device):
    """The same numbers in OIHW and OHWI memory, with flags in OIHW order."""
    w, g = (torch.randn(16, 5, 3, 3, device=device) for _ in range(2))
    flags = [ops.pack_mask(torch.rand(w.shape, device=device) < 0.5)]
    runs = []
    for layout in (torch.contiguous_format, torch.channels_last):
        p, m = w.clone(memory_format=layout), torch.zeros_like(w).contiguous(memory_format=layout)
        count = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2)]
        grads = [g.contiguous(memory_format=layout)]
        bop_step_([p], grads, [m], count[:1], count[1:], adaptivity_rate=0.1, threshold=0.01, flags=flags)
        runs.append((p, m, count[0]))
    for ours, theirs in zip(*runs, strict=True):
        assert_equal(ours, theirs)


def good() -> dict:
    return {
        "weights": [torch.rand(4, 3, 2, 2)],
        "grads": [torch.rand(4, 3, 2, 2)],
        "averages": [torch.zeros(4, 3, 2, 2)],
        "flips": [torch.zeros(1, dtype=torch.int64)],
        "total_flips": [torch.zeros(1, dtype=torch.int64)],
        "adaptivity_rate": 0.1,
        "threshold": 0.0,
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": []}, ValueError, "non-empty list"),
        ({"weights": torch.rand(3)}, ValueError, "non-empty list"),
        ({"grads": []}, ValueError, "expected 1 grads"),
        ({"averages": []}, ValueError, "expected 1 averages"),
        ({"total_flips": []}, ValueError, "expected 1 total_flips"),
        ({"fresh": []}, ValueError, "expected 1 fresh"),
        ({"flags": []}, ValueError, "expected 1 flags"),
        ({"adaptivity_rate": 0.0}, ValueError, r"adaptivity_rate in \(0, 1\), got 0.0"),
        ({"adaptivity_rate": 1.0}, ValueError, r"adaptivity_rate in \(0, 1\), got 1.0"),
        ({"adaptivity_rate": math.nan}, ValueError, r"adaptivity_rate in \(0, 1\)"),
        ({"threshold": -1e-9}, ValueError, "threshold >= 0"),
        ({"threshold": math.nan}, ValueError, "threshold >= 0"),
        ({"threshold": torch.tensor(0.1)}, TypeError, "threshold to be a float"),
        ({"weights": [torch.rand(4, 3, 2, 2).double()]}, TypeError, "weights of dtype float32"),
        ({"weights": [torch.rand(2, 3, 2, 4).mT]}, ValueError, "contiguous or channels_last"),
        ({"grads": [torch.rand(4, 12)]}, ValueError, r"grads of shape \(4, 3, 2, 2\) like the weights"),
        ({"grads": [torch.rand(4, 3, 2, 2).to_sparse()]}, TypeError, "dense grads"),
        (
            {"averages": [torch.rand(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)]},
            ValueError,
            "memory layout of the weights",
        ),
        ({"flips": [torch.zeros(1)]}, TypeError, "flips of dtype int64"),
        ({"flips": [torch.zeros(2, dtype=torch.int64)]}, ValueError, r"flips of shape \(1,\)"),
        ({"flags": [torch.zeros(5, dtype=torch.uint8)]}, ValueError, r"flags of shape \(6,\)"),
    ],
)
def test_bad_input(arguments, error, message):
    call = good()
    before = call["weights"][0].clone()
    with pytest.raises(error, match=message):
        bop_step_(**{**call, **arguments})
    assert_equal(call["weights"][0], before)


def test_writes_are_seen_by_autograd(device):
    call = {k: [t.to(device) for t in v] if isinstance(v, list) else v for k, v in good().items()}
    p = call["weights"][0].requires_grad_()
    loss = (p * p).sum()
    bop_step_(**call)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_opcheck(device):
    w = [torch.rand(6, 5, device=device), torch.rand(4, 3, 2, 2, device=device)]
    g, m = ([torch.rand_like(t) for t in w] for _ in range(2))
    last, total = ([torch.zeros(1, dtype=torch.int64, device=device) for _ in w] for _ in range(2))
    flags = [torch.full((4,), 85, dtype=torch.uint8, device=device), torch.zeros(0, dtype=torch.uint8, device=device)]
    op = torch.ops.hiddennet.bop_step_.default
    torch.library.opcheck(op, (w, g, m, last, total, flags, [0, 1], 0.1, 0.01))
    torch.library.opcheck(op, (w, g, m, last, total, [], [1, 1], 0.1, 0.01))
