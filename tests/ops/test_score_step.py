"""score_step_: no worse than twice torch's own error, flags leave elements alone, in every layout."""

from __future__ import annotations

import math

import pytest
import torch

from hiddennet import ops
from hiddennet.ops.score_step import score_step_
from tests import reference
from tests.checks import assert_equal, assert_no_worse_than

SHAPES = ((43, 3), (1,), (33, 17, 3, 3), (16, 8, 1, 1), (300, 7), (8, 3, 5, 5))
RULES = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "adam": {"betas": (0.9, 0.99), "eps": 1e-6},
    "adam, betas below a half": {"betas": (0.3, 0.4)},
}
COMMON = {"lr": 0.07, "weight_decay": 0.01, "l1": 0.003, "l2": 0.02}


def tensors(device, channels_last: bool) -> list[torch.Tensor]:
    found = []
    for shape in SHAPES:
        t = torch.randn(shape, device=device)
        found.append(t.contiguous(memory_format=torch.channels_last) if channels_last and t.dim() == 4 else t)
    return found


def states(rule: dict, like: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    first = [torch.zeros_like(t) for t in like] if "momentum" in rule or "betas" in rule else []
    return first, [torch.zeros_like(t) for t in like] if "betas" in rule else []


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("clamp", [None, (0.0, 1.0), (-0.5, 0.25)])
@pytest.mark.parametrize("name", RULES)
def test_as_good_as_torch_in_float32(device, name, clamp, channels_last):
    """Four steps beside the reference in float32 (torch's own error) and in float64 (the truth)."""
    rule = RULES[name]
    scores = tensors(device, channels_last)
    first, second = states(rule, scores)
    beside = {
        dtype: [(s.cpu().to(dtype), *(2 * [torch.zeros(s.shape, dtype=dtype)])) for s in scores]
        for dtype in (torch.float32, torch.float64)
    }
    for step in range(1, 5):
        grads = tensors(device, channels_last)
        steps = [step] * len(scores) if "betas" in rule else ()
        score_step_(scores, grads, first, second, clamp=clamp, steps=steps, **COMMON, **rule)
        for dtype, rows in beside.items():
            for i, (s, m, v) in enumerate(rows):
                m, v = m if first else None, v if second else None
                g = grads[i].cpu().to(dtype)
                new = reference.score_step(s, g, m, v, clamp=clamp, step=step, **COMMON, **rule)
                rows[i] = tuple(torch.zeros(()) if t is None else t for t in new)
    for i, s in enumerate(scores):
        for got, part in ((s, 0), *((m[i], 1 + j) for j, m in enumerate((first, second)) if m)):
            assert_no_worse_than(got, beside[torch.float32][i][part], beside[torch.float64][i][part])
        assert clamp is None or bool(((s >= clamp[0]) & (s <= clamp[1])).all())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_flags(device, name, channels_last):
    """Elements without a flag keep score and state to the bit; the others step as without flags."""
    rule = RULES[name]
    scores, grads = tensors(device, channels_last), tensors(device, channels_last)
    masks = [torch.rand(s.shape, device=device) < 0.4 for s in scores]
    flags = [ops.pack_mask(m) for m in masks]
    flags[1] = None
    masks[1] = torch.ones_like(masks[1])
    first, second = states(rule, scores)
    for m in (*first, *second):
        m.uniform_()
    before = [[t.clone() for t in part] for part in (scores, first, second)]
    free = [[t.clone() for t in part] for part in (scores, first, second)]
    steps = [3] * len(scores) if "betas" in rule else ()
    score_step_(free[0], grads, free[1], free[2], steps=steps, **COMMON, **rule)
    score_step_(scores, grads, first, second, steps=steps, flags=flags, **COMMON, **rule)
    for part, got in enumerate((scores, first, second)):
        for i, t in enumerate(got):
            assert_equal(t, torch.where(masks[i], free[part][i], before[part][i]), f"{part} of tensor {i}")


def test_nan_stays_and_zero_has_no_sign(device):
    scores = torch.tensor([math.nan, 0.0, -0.0, 2.0, -2.0], device=device)
    score_step_([scores], [torch.zeros_like(scores)], lr=1.0, l1=0.25, clamp=(-1.9, 1.5))
    want = torch.tensor([math.nan, 0.0, 0.0, 1.5, -1.75])
    assert_equal(scores, want)


def good() -> dict:
    s = torch.rand(4, 3, 2, 2)
    return {
        "scores": [s],
        "grads": [torch.rand(4, 3, 2, 2)],
        "first": [torch.zeros_like(s)],
        "lr": 0.1,
        "momentum": 0.9,
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scores": []}, ValueError, "non-empty list"),
        ({"scores": torch.rand(3)}, ValueError, "non-empty list"),
        ({"grads": []}, ValueError, "1 tensors of grads"),
        ({"first": []}, ValueError, "1 tensors of first for SGD with momentum"),
        ({"momentum": 0.0}, ValueError, "0 tensors of first"),
        ({"second": [torch.zeros(4, 3, 2, 2)]}, ValueError, "0 tensors of second"),
        ({"betas": (0.9, 0.99)}, ValueError, "1 tensors of second for Adam"),
        ({"betas": (0.9, 0.99), "second": [torch.zeros(4, 3, 2, 2)]}, ValueError, "expected 1 steps"),
        ({"betas": (0.9, 0.99), "second": [torch.zeros(4, 3, 2, 2)], "steps": [0]}, ValueError, "ints from 1"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas in \[0, 1\)"),
        ({"grads": [torch.rand(4, 12)]}, ValueError, r"grads of shape \(4, 3, 2, 2\)"),
        ({"grads": [torch.rand(4, 3, 2, 2).double()]}, TypeError, "grads of dtype float32"),
        (
            {"grads": [torch.rand(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)]},
            ValueError,
            "memory layout of the scores",
        ),
        ({"flags": []}, ValueError, "1 planes of flags"),
        ({"flags": [torch.zeros(5, dtype=torch.uint8)]}, ValueError, r"flags of shape \(6,\)"),
        ({"lr": -1.0}, ValueError, "lr >= 0"),
        ({"lr": torch.tensor(0.1)}, TypeError, "lr to be a float"),
        ({"l1": math.nan}, ValueError, "l1 >= 0"),
        ({"first": [], "momentum": 0.0, "nesterov": True}, ValueError, "momentum above 0 with nesterov"),
        ({"clamp": (1.0, 0.0)}, ValueError, "low < high"),
        ({"clamp": 1.0}, ValueError, "low < high"),
    ],
)
def test_bad_input(arguments, error, message):
    call = good()
    before = call["scores"][0].clone()
    with pytest.raises(error, match=message):
        score_step_(**{**call, **arguments})
    assert_equal(call["scores"][0], before)


def test_opcheck(device):
    s = [torch.rand(6, 5, device=device), torch.rand(4, 3, 2, 2, device=device)]
    g, m, v = ([torch.rand_like(t) for t in s] for _ in range(3))
    flags = [torch.full((4,), 85, dtype=torch.uint8, device=device), torch.zeros(0, dtype=torch.uint8, device=device)]
    numbers = (0.1, 0.01, 0.0, 0.02, 0.0, 1.0, 0.9, False, 0.9, 0.999, 1e-8)
    op = torch.ops.hiddennet.score_step_.default
    torch.library.opcheck(op, (s, g, m, v, flags, [1, 5], *numbers, *([],) * 6))
    torch.library.opcheck(op, (s, g, [], [], [], [], *numbers, *([],) * 6))
