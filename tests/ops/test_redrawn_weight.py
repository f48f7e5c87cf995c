"""redrawn_weight: equal to the reference, and to what rerandomize_ left behind, to the bit."""

from __future__ import annotations

import pytest
import torch

from hiddennet import ops
from hiddennet.ops import inits
from hiddennet.ops.generate_weight import fill
from tests import reference
from tests.checks import assert_equal

SHAPES = ((1, 1), (43, 3), (33, 17, 3, 3), (8, 3, 3, 3), (16, 8, 1, 1), (7,), (3, 5, 2, 1, 2))
KINDS = tuple(ops.InitScale(kind, 0.07 + 0.3 * i) for i, kind in enumerate(inits.KINDS[1:]))


def layouts(shape: tuple[int, ...]) -> tuple[torch.memory_format, ...]:
    return (torch.contiguous_format, torch.channels_last) if len(shape) == 4 else (torch.contiguous_format,)


@pytest.mark.parametrize("init", KINDS, ids=lambda init: init.kind)
def test_equals_the_reference(device, init):
    for shape in SHAPES:
        for numbers in ((0,), (0, 5), (0, 1, 2, 300, 32767)):
            redraws = torch.tensor(numbers, dtype=torch.int16)[torch.randint(len(numbers), shape)]
            want = reference.redrawn_weight(redraws, *init, seed=2**40 + 1, layer=7)
            for layout in layouts(shape):
                r = redraws.to(device).contiguous(memory_format=layout)
                got = ops.redrawn_weight(r, init, seed=2**40 + 1, layer=7)
                assert got.stride() == r.stride()
                assert_equal(got, want, f"{shape} {numbers} {layout}")


@pytest.mark.parametrize("init", KINDS, ids=lambda init: init.kind)
def test_makes_redrawn_weights_again(device, init):
    """Five redraws at several rates, with scores that move between them."""
    for shape in ((40, 12, 3, 3), (65, 33)):
        for layout in layouts(shape):
            scores = torch.randn(shape, device=device).contiguous(memory_format=layout)
            weight = fill(torch.empty_like(scores), init, seed=3, layer=4, redraw=0)
            redraws = torch.zeros_like(scores, dtype=torch.int16)
            for number, rate in enumerate((0.1, 1.0, 0.5, 0.02, 0.3), start=1):
                scores += torch.randn(shape, device=device).contiguous(memory_format=layout) * 0.1
                row = ops.topk_select([scores], [scores.numel() // 3], by="value")
                ops.rerandomize_(
                    [weight], [scores], row, [init], seed=3, layers=[4], redraw=number, rate=rate, redraws=[redraws]
                )
            assert init.kind == "constant" or len(redraws.unique()) == 6
            assert_equal(ops.redrawn_weight(redraws, init, seed=3, layer=4), weight)


def test_strange_strides_give_equal_values(device):
    redraws = torch.randint(0, 5, (6, 4, 3, 2), device=device).short()
    init = ops.InitScale("uniform", 1.0)
    got = ops.redrawn_weight(redraws.transpose(0, 3), init, seed=1)
    assert_equal(got, ops.redrawn_weight(redraws.transpose(0, 3).contiguous(), init, seed=1))


def test_empty(device):
    empty = torch.zeros(0, 3, dtype=torch.int16, device=device)
    assert ops.redrawn_weight(empty, ops.InitScale("normal", 1.0), seed=1).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"redraws": torch.zeros(3)}, TypeError, "dtype int16"),
        ({"redraws": [0, 1]}, TypeError, "to be a Tensor"),
        ({"init": "uniform"}, TypeError, "expected an InitScale"),
        ({"init": ops.InitScale("stored", 1.0)}, ValueError, "the kind of an init"),
        ({"seed": -1}, ValueError, "expected seed"),
        ({"layer": 2**32}, ValueError, "expected layer"),
    ],
)
def test_bad_input(arguments, error, message):
    call = {"redraws": torch.zeros(3, dtype=torch.int16), "init": KINDS[0], "seed": 0, "layer": 0, **arguments}
    with pytest.raises(error, match=message):
        ops.redrawn_weight(call["redraws"], call["init"], seed=call["seed"], layer=call["layer"])


def test_opcheck(device):
    redraws = torch.randint(0, 5, (6, 4, 3, 2), device=device).short()
    for layout in (torch.contiguous_format, torch.channels_last):
        r = redraws.contiguous(memory_format=layout)
        torch.library.opcheck(torch.ops.hiddennet.redrawn_weight.default, (r, 4, 0.5, 1, 2))


def test_compiles_in_one_graph():
    redraws = torch.randint(0, 5, (6, 4), dtype=torch.int16)
    init = ops.InitScale("normal", 1.0)

    def weight(r):
        return ops.redrawn_weight(r, init, seed=1) * 2.0

    assert_equal(torch.compile(weight, fullgraph=True, backend="aot_eager")(redraws), weight(redraws))
