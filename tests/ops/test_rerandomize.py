"""rerandomize_: equal to the reference to the bit; revealed weights stay; the draws are independent and at the rate."""

from __future__ import annotations

import math

import pytest
import torch

from hiddennet import ops
from hiddennet.ops import inits
from hiddennet.ops.generate_weight import fill, sign_plane
from tests import reference
from tests.checks import assert_equal

SHAPES = ((1, 1), (43, 3), (300, 7), (33, 17, 3, 3), (8, 3, 3, 3), (16, 8, 1, 1), (2, 4, 7, 7), (257, 16))
KINDS = tuple(ops.InitScale(kind, 0.07 + 0.3 * i) for i, kind in enumerate(inits.KINDS[1:]))


class Net:
    """Layers of many shapes, layouts and kinds, with tied scores; half of them are given as planes where they can."""

    def __init__(self, device: torch.device, by: str = "value", planes: bool = True):
        cases = [
            (shape, layout, init)
            for shape in SHAPES
            for layout in (torch.contiguous_format, torch.channels_last)[: len(shape) // 2]
            for init in KINDS
        ]
        self.by, self.inits = by, [init for _, _, init in cases]
        self.layers = [3 * i + 1 for i in range(len(cases))]
        self.scores, self.weights, self.redraws = [], [], []
        for i, (shape, layout, init) in enumerate(cases):
            s = ((torch.randn(shape) * 8).round() / 8).to(device).contiguous(memory_format=layout)
            self.scores.append(s)
            self.redraws.append(torch.zeros_like(s, dtype=torch.int16))
            if init.kind == "signs" and planes and i % 2:
                w = sign_plane(s.numel(), seed=9, layer=self.layers[i], redraw=0, device=device)
            else:
                w = fill(torch.empty_like(s), init, seed=9, layer=self.layers[i], redraw=0)
            self.weights.append(w)
        self.selection = ops.topk_select(self.scores, [int(0.4 * s.numel()) for s in self.scores], by=by)

    def redraw(self, number: int, *, noted: bool = True, **arguments) -> None:
        ops.rerandomize_(
            self.weights,
            self.scores,
            self.selection,
            self.inits,
            seed=9,
            layers=self.layers,
            redraw=number,
            by=self.by,
            redraws=self.redraws if noted else None,
            **arguments,
        )

    def expected(self, number: int, **arguments) -> list[tuple[torch.Tensor, torch.Tensor]]:
        rows = zip(self.weights, self.scores, self.selection, self.inits, self.layers, strict=True)
        return [
            reference.rerandomize(
                w.cpu(), s.cpu(), row.cpu(), *init, seed=9, layer=layer, redraw=number, by=self.by, **arguments
            )
            for w, s, row, init, layer in rows
        ]


@pytest.mark.parametrize("by", ["value", "magnitude"])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.75, 1.0])
def test_equals_the_reference(device, by, rate):
    net = Net(device, by)
    noted = [torch.zeros(s.shape, dtype=torch.int16) for s in net.scores]
    for number in (1, 2, 300):
        want = net.expected(number, rate=rate)
        net.redraw(number, rate=rate)
        for i, (w, replaced) in enumerate(want):
            what = f"layer {i}, {tuple(net.scores[i].shape)}, {net.inits[i].kind}, redraw {number}"
            assert_equal(net.weights[i], w, what)
            noted[i] = torch.where(replaced, number, noted[i]).short()
            assert_equal(net.redraws[i], noted[i], what + ", redraws")
    if rate == 0.1:
        assert any(bool((r == 1).any()) for r in noted) and any(bool((r == 300).any()) for r in noted)


def test_mixed_equals_the_reference(device):
    net = Net(device, planes=False)
    want = net.expected(4, decay=0.9, mix=0.25)
    net.redraw(4, noted=False, decay=0.9, mix=0.25)
    for got, (w, _) in zip(net.weights, want, strict=True):
        assert_equal(got, w)


def test_revealed_weights_stay_and_the_rate_is_kept(device):
    shape, rate = (256, 64, 3, 3), 0.1
    scores = torch.randn(shape, device=device)
    n = scores.numel()
    row = ops.topk_select([scores], [n // 2], by="value")
    revealed = ops.rule_mask(scores, ops.Mask.selected(row[0], "value"), scores.shape)
    init = ops.init_scale(shape, "kaiming_uniform")
    before = ops.generate_weight(shape, "kaiming_uniform", seed=1, device=device)
    masks = []
    for number in (1, 2):
        after = before.clone()
        ops.rerandomize_([after], [scores], row, [init], seed=1, layers=[0], redraw=number, rate=rate)
        assert_equal(after[revealed], before[revealed], "revealed")
        changed = (after != before) & ~revealed
        deviation = math.sqrt(rate * (1 - rate) / (n - n // 2))
        assert abs(int(changed.sum()) / (n - n // 2) - rate) < 4 * deviation
        new = ops.generate_weight(shape, "kaiming_uniform", seed=1, redraw=number, device=device)
        assert_equal(after[changed], new[changed], "replaced")
        masks.append(changed)
    both = int((masks[0] & masks[1]).sum())
    assert abs(both / (n - n // 2) - rate**2) < 4 * rate / math.sqrt(n - n // 2)


def test_half_of_the_redrawn_signs_change(device):
    scores = torch.randn(512, 512, device=device)
    row = ops.topk_select([scores], [0], by="value")  # nothing is revealed
    plane = sign_plane(scores.numel(), seed=2, layer=0, redraw=0, device=device)
    before = ops.unpack_mask(plane, scores.shape)
    init = ops.init_scale(scores.shape, "signed_constant")
    ops.rerandomize_([plane], [scores], row, [init], seed=2, layers=[0], redraw=1, rate=0.2)
    share = float((ops.unpack_mask(plane, scores.shape) != before).float().mean())
    assert abs(share - 0.1) < 4 * 0.3 / 512


def test_layouts_agree(device):
    scores = torch.randn(24, 5, 3, 3, device=device)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        s = scores.contiguous(memory_format=layout)
        row = ops.topk_select([s], [300], by="value")
        w = torch.zeros_like(s)
        ops.rerandomize_(
            [w], [s], row, [ops.InitScale("normal", 1.0)], seed=5, layers=[2], redraw=3, rate=0.5, redraws=None
        )
        results.append(w)
    assert_equal(results[0], results[1])


def test_autograd_knows_that_weights_changed(device):
    """A backward that saved the weights before they were redrawn is refused, not wrong."""
    scores = torch.randn(8, 8, device=device)
    row = ops.topk_select([scores], [10], by="value")
    weight = torch.randn(8, 8, device=device)
    x = torch.randn(8, 8, device=device, requires_grad=True)
    y = (x * weight).sum()
    ops.rerandomize_([weight], [scores], row, [ops.InitScale("normal", 1.0)], seed=0, layers=[0], redraw=1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_scores_of_a_parameter_are_accepted(device):
    scores = torch.nn.Parameter(torch.randn(8, 8, device=device))
    weight = torch.nn.Parameter(torch.zeros(8, 8, device=device))
    row = ops.topk_select([scores], [10], by="value")
    ops.rerandomize_([weight], [scores], row, [ops.InitScale("constant", 1.0)], seed=0, layers=[0], redraw=1)
    assert not bool(weight.any())
    ops.rerandomize_([weight], [scores], row, [ops.InitScale("normal", 1.0)], seed=0, layers=[0], redraw=1)
    assert int((weight != 0).sum()) == 54


def good() -> dict:
    scores = torch.randn(4, 3, 2, 2)
    return {
        "weights": [torch.zeros(4, 3, 2, 2)],
        "scores": [scores],
        "selection": ops.topk_select([scores], [5], by="value"),
        "inits": [ops.InitScale("signs", 1.0)],
        "seed": 0,
        "layers": [0],
        "redraw": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scores": []}, ValueError, "non-empty lists"),
        ({"weights": torch.zeros(4, 3, 2, 2)}, ValueError, "non-empty lists"),
        ({"layers": [0, 1]}, ValueError, "one entry of layers a layer"),
        ({"inits": []}, ValueError, "one entry of inits"),
        ({"redraws": []}, ValueError, "one entry of redraws"),
        ({"inits": ["signs"]}, TypeError, "expected an InitScale"),
        ({"inits": [ops.InitScale("stored", 1.0)]}, ValueError, "the kind of an init"),
        ({"weights": [torch.zeros(4, 3, 2, 2, dtype=torch.float64)]}, TypeError, "dtype float32"),
        ({"weights": [torch.zeros(4, 12)]}, ValueError, r"shape \(4, 3, 2, 2\)"),
        (
            {"weights": [torch.zeros(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)]},
            ValueError,
            "memory layout of the scores",
        ),
        ({"weights": [torch.zeros(7, dtype=torch.uint8)]}, ValueError, r"shape \(6,\)"),
        (
            {"weights": [torch.zeros(6, dtype=torch.uint8)], "inits": [ops.InitScale("normal", 1.0)]},
            TypeError,
            "float32 weights for an init of kind 'normal'",
        ),
        ({"weights": [torch.zeros(6, dtype=torch.uint8)], "decay": 1.0, "mix": 0.1}, TypeError, "with decay and mix"),
        ({"scores": [torch.zeros(4, 2, 3, 2).transpose(1, 2)]}, ValueError, "contiguous or channels_last"),
        ({"selection": torch.zeros(4, dtype=torch.int32)}, ValueError, r"shape \(1, 4\)"),
        ({"selection": torch.zeros(1, 4)}, TypeError, "dtype int32"),
        ({"seed": -1}, ValueError, "expected seed"),
        ({"layers": [1.5]}, TypeError, "layers to be an int"),
        ({"redraw": 0}, ValueError, "redraw >= 1"),
        ({"redraw": 40000, "redraws": [torch.zeros(4, 3, 2, 2, dtype=torch.int16)]}, ValueError, "up to 32767"),
        ({"redraws": [torch.zeros(4, 3, 2, 2)]}, TypeError, "dtype int16"),
        ({"rate": 1.5}, ValueError, r"rate in \[0, 1\]"),
        ({"rate": float("nan")}, ValueError, r"rate in \[0, 1\]"),
        ({"by": "size"}, ValueError, "expected by"),
        ({"decay": 0.5}, ValueError, "decay and mix together"),
        ({"decay": 0.5, "mix": math.inf}, ValueError, "finite decay and mix"),
        ({"decay": 0.5, "mix": 0.5, "rate": 0.5}, ValueError, "expected rate 1"),
        (
            {"decay": 0.5, "mix": 0.5, "redraws": [torch.zeros(4, 3, 2, 2, dtype=torch.int16)]},
            ValueError,
            "no redraws with decay",
        ),
    ],
)
def test_bad_input(arguments, error, message):
    call = good()
    ops.rerandomize_(**call)
    before = call["weights"][0].clone()
    with pytest.raises(error, match=message):
        ops.rerandomize_(**{**call, **arguments})
    assert_equal(call["weights"][0], before)


def test_raw_op_refuses():
    """The last line: the op itself ends in an error and not in a crash."""
    s = torch.randn(4, 4)
    row = ops.topk_select([s], [3])
    op = torch.ops.hiddennet.rerandomize_.default
    with pytest.raises(RuntimeError, match="limit in"):
        op([torch.zeros(4, 4)], [s], row, [3], [1.0], 0, [0], 1, 2**33, True, [], None, None)
    with pytest.raises(RuntimeError, match="weights of 16 elements"):
        op([torch.zeros(4, 3)], [s], row, [3], [1.0], 0, [0], 1, 2**32, True, [], None, None)
    with pytest.raises(RuntimeError, match="source codes"):
        op([torch.zeros(4, 4)], [s], row, [0], [1.0], 0, [0], 1, 2**32, True, [], None, None)


def test_opcheck(device):
    s = [torch.randn(6, 5, device=device), torch.randn(40, device=device)]
    weights = [torch.zeros(6, 5, device=device), torch.zeros(5, dtype=torch.uint8, device=device)]
    redraws = [torch.zeros_like(t, dtype=torch.int16) for t in s]
    rows = ops.topk_select(s, [9, 9])
    draws = ([4, 2], [0.5, 0.5], 1, [0, 1], 3, 2**31, False)
    torch.library.opcheck(torch.ops.hiddennet.rerandomize_.default, (weights, s, rows, *draws, redraws, None, None))
