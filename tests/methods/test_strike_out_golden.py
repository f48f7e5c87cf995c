"""Gem-Miner's pruning: the original's flags, counts and thresholds on fixed scores, its rates; and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hiddennet.methods.strike import prune_rate, strike_out
from tests.golden import Golden

SHAPES = (  # of the network the original's values were computed on: convolutions, then 1x1 ones
    (4, 3, 3, 3),
    (4, 4, 3, 3),
    (6, 4, 3, 3),
    (6, 6, 3, 3),
    (12, 24, 1, 1),
    (12, 12, 1, 1),
    (10, 12, 1, 1),
)
HOW = {
    "bottomk": {},
    "ties": {},
    "invert": {"invert": True},
    "local": {"scope": "layer"},
}


@pytest.fixture
def values():
    return Golden("rare_gems")


def _layers(flat: np.ndarray) -> list[torch.Tensor]:
    sizes = [math.prod(shape) for shape in SHAPES]
    parts = torch.from_numpy(flat).split(sizes)
    return [part.view(shape).clone() for part, shape in zip(parts, SHAPES, strict=True)]


def _scores() -> np.ndarray:
    """The original's scores by their formula: layer l is 0.5 + 0.5 sin((.91 + .07 l) i + .3 + l)."""
    layers = [
        0.5 + 0.5 * np.sin((0.91 + 0.07 * layer) * np.arange(math.prod(shape), dtype=np.float64) + 0.3 + layer)
        for layer, shape in enumerate(SHAPES)
    ]
    return np.concatenate(layers).astype(np.float32)


def test_the_scores_are_the_originals(values):
    np.testing.assert_array_equal(values["T_layer_sizes"], [math.prod(shape) for shape in SHAPES])
    np.testing.assert_allclose(_scores(), values["T_scores0"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", HOW)
def test_repeated_pruning_is_the_originals(values, case, channels_last):
    if f"C_{case}_flags" not in values:
        pytest.skip(f"the original's C_{case}_flags is not in the file of golden values")
    scores = _layers(values.get(f"C_{case}_scores", values["T_scores0"]))
    if channels_last:
        scores = [s.contiguous(memory_format=torch.channels_last) for s in scores]
    flags = [torch.ones_like(s, dtype=torch.bool) for s in scores]
    want = np.unpackbits(values[f"C_{case}_flags"], axis=1)[:, : sum(f.numel() for f in flags)]
    rate = float(values[f"C_{case}_rate"])
    for kept, active, threshold in zip(want, values[f"C_{case}_active"], values[f"C_{case}_thresholds"], strict=True):
        tau = strike_out(scores, flags, rate, **HOW[case])
        got = torch.cat([f.contiguous().flatten() for f in flags])
        np.testing.assert_array_equal(got.numpy(), kept.astype(bool))
        assert int(got.sum()) == int(active)
        assert (tau if isinstance(tau, float) else tau[-1]) == pytest.approx(float(threshold), abs=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.9])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_exact_strikes_out_exactly_the_count(scope, rate):
    """Whatever the ties; without them, the same as the original's rule."""
    tied = [(s * 4).round() for s in _layers(_scores())]
    flags = [torch.ones_like(s, dtype=torch.bool) for s in tied]
    for _ in range(3):
        before = [int(f.sum()) for f in flags]
        strike_out(tied, flags, rate, scope, exact=True)
        gone = [b - int(f.sum()) for b, f in zip(before, flags, strict=True)]
        if scope == "global":
            assert sum(gone) == math.ceil(rate * sum(before))
        else:
            assert gone == [math.ceil(rate * b) for b in before]
    distinct = [torch.rand(shape) for shape in SHAPES]
    both = [[torch.ones(shape, dtype=torch.bool) for shape in SHAPES] for _ in range(2)]
    for flags, exact in zip(both, (False, True), strict=True):
        strike_out(distinct, flags, rate, scope, exact=exact)
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))


def test_invert_takes_the_others():
    """Of distinct scores, the largest K go: the smallest K of the reversed order."""
    scores = [torch.randperm(60).view(3, 20).float() + 1, torch.randperm(40).float() + 61]
    flags = [torch.ones_like(s, dtype=torch.bool) for s in scores]
    assert strike_out(scores, flags, 0.45, invert=True) == 56.0
    assert torch.equal(flags[0], scores[0] < 56) and not bool(flags[1].any())
    assert strike_out(scores, flags, 0.0, invert=True) == math.inf


def test_flags_stay_where_they_are():
    """In place, in any memory format; a rate of 0 strikes nothing out."""
    scores = [torch.rand(4, 6, 3, 3, requires_grad=True)]
    flags = [torch.ones(4, 6, 3, 3, dtype=torch.bool).to(memory_format=torch.channels_last)]
    pointer = flags[0].data_ptr()
    assert strike_out(scores, flags, 0.0) == -math.inf
    assert bool(flags[0].all())
    tau = strike_out(scores, flags, 0.5, "layer")
    assert tau == [float(scores[0].detach().flatten().sort().values[107])]
    assert flags[0].data_ptr() == pointer and torch.equal(flags[0], scores[0] > tau[0])


def test_prune_rates_are_the_originals(values):
    for target, period, epochs, prunings, rate in values["B_prune_rate_target_period_epochs_N_rate"].tolist():
        got = prune_rate(target / 100, int(period), int(epochs))
        assert got[0] == int(prunings)
        assert got[1] == pytest.approx(rate, rel=1e-12)


def test_prune_rate_by_eye():
    assert prune_rate(0.25, 1, 3) == (2, 0.5)
    assert prune_rate(0.25, 2, 3) == (1, 0.75)  # epochs 1 to 3, pruned after the second
    assert prune_rate(1.0, 5, 150) == (29, 0.0)


S, F = [torch.rand(3, 5)], [torch.ones(3, 5, dtype=torch.bool)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: strike_out([], [], 0.1), ValueError, "a non-empty list of scores, got an empty list"),
        (lambda: strike_out(S[0], F, 0.1), ValueError, "a non-empty list of scores, got one Tensor"),
        (lambda: strike_out(S, [], 0.1), ValueError, "a non-empty list of flags, got an empty list"),
        (lambda: strike_out(S, F * 2, 0.1), ValueError, "flags for each of 1 layers, got 2"),
        (lambda: strike_out([S[0].double()], F, 0.1), TypeError, "scores of dtype float32, got float64"),
        (lambda: strike_out(S, [F[0].float()], 0.1), TypeError, "flags of dtype bool, got float32"),
        (lambda: strike_out(S, [F[0].t()], 0.1), ValueError, r"the scores' shape \(3, 5\), got \(5, 3\)"),
        (lambda: strike_out(S, F, 1.0), ValueError, r"a rate in \[0, 1\), got 1.0"),
        (lambda: strike_out(S, F, -0.1), ValueError, r"a rate in \[0, 1\), got -0.1"),
        (lambda: strike_out(S, F, math.nan), ValueError, r"a rate in \[0, 1\), got nan"),
        (lambda: strike_out(S, F, 0.1, "net"), ValueError, "'global' or 'layer', got 'net'"),
        (lambda: prune_rate(0.0, 5, 150), ValueError, r"a target density in \(0, 1\], got 0.0"),
        (lambda: prune_rate(1.44, 5, 150), ValueError, r"a target density in \(0, 1\], got 1.44"),
        (lambda: prune_rate(0.5, 0, 150), ValueError, "a period of at least 1 epoch, got 0"),
        (lambda: prune_rate(0.5, 5, 5), ValueError, "nothing would be pruned"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
