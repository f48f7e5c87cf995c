"""The Wiring layer: which edges each kind keeps and trains, and when the effective weight is made anew."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hiddennet as hn
from hiddennet.nn.edge_rules import DROPOUTS, KINDS, original_random_edges
from hiddennet.nn.wiring import Wiring

ROWS, COLUMNS, DENSITY = 12, 20, 0.25
BUDGET = 60  # of 240 positions


def usable_edges():
    usable = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    usable[:6, :10] = True
    usable[6:, :] = True
    return usable


def wiring(kind="dnw", *, seed=0, density=DENSITY, **options):
    torch.manual_seed(seed)
    return Wiring(COLUMNS, ROWS, density, kind, **options)


def by_hand(weight, k, usable=None):
    """The k largest magnitudes by a stable sort: of equal ones the lower flat index is pruned first."""
    magnitudes = weight.detach().abs()
    if usable is not None:
        magnitudes = torch.where(usable, magnitudes, -1.0)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[magnitudes.flatten().sort(stable=True).indices[weight.numel() - k :]] = True
    return mask.view_as(weight)


def gradient_of(made, **options):
    made.weight.grad = None
    factors = torch.arange(1.0, made.weight.numel() + 1, dtype=made.weight.dtype).view_as(made.weight)
    (made.effective_weight(**options) * factors).sum().backward()
    return made.weight.grad / factors


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_keeps_its_number_of_usable_edges(kind, limited):
    usable = usable_edges() if limited else torch.ones(ROWS, COLUMNS, dtype=torch.bool)
    made = wiring(kind, usable=usable if limited else None).eval()
    mask = made.mask()
    want = {"complete": int(usable.sum()), "regular_targeted_dropout": 5 * ROWS}.get(kind, BUDGET)
    assert made.edges == int(mask.sum()) == want and mask.dtype == torch.bool
    assert made.density == want / 240
    assert not (mask & ~usable).any()
    assert torch.equal(made.running(), mask)
    weight = made.effective_weight().detach()
    assert torch.equal(weight, torch.where(mask, made.weight.detach(), 0.0))
    assert not weight[~mask].signbit().any()
    if kind == "regular_targeted_dropout":
        for row, kept, may in zip(made.weight.detach(), mask, usable, strict=True):
            assert torch.equal(kept, by_hand(row, 5, may))
    elif kind not in ("random", "complete"):
        assert torch.equal(mask, by_hand(made.weight, BUDGET, usable))


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_trains_its_edges(kind, limited):
    usable = usable_edges() if limited else None
    made = wiring(kind, usable=usable).eval()
    every = torch.ones(ROWS, COLUMNS) if usable is None else usable.float()
    want = every if kind in ("dnw", "complete") else made.mask().float()
    assert torch.equal(gradient_of(made), want)


def test_weights_are_those_of_a_convolution_and_zero_where_no_edge_can_be():
    torch.manual_seed(3)
    convolution = nn.Conv2d(COLUMNS, ROWS, 1, bias=False)
    assert torch.equal(wiring(seed=3).weight, convolution.weight[:, :, 0, 0])
    limited = wiring(seed=3, usable=usable_edges()).weight
    assert torch.equal(limited, convolution.weight[:, :, 0, 0] * usable_edges())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("k", [0, 1, 7, 100, 239, 240])
def test_of_equal_magnitudes_the_lowest_index_is_pruned_first(dtype, k):
    made = Wiring(COLUMNS, ROWS, edges=k).to(dtype)
    with torch.no_grad():
        made.weight.copy_(torch.randint(-3, 4, (ROWS, COLUMNS), generator=torch.Generator().manual_seed(k)))
    mask = by_hand(made.weight, k)
    assert torch.equal(made.mask(), mask)
    assert torch.equal(made.effective_weight().detach(), torch.where(mask, made.weight.detach(), 0).to(dtype))


def test_ranks_of_float64_are_not_rounded():
    made = Wiring(3, 1, edges=1).double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1 + 1e-12, 1.0, 1.0]], dtype=torch.float64))
    assert made.mask().tolist() == [[True, False, False]]


def test_a_density_keeps_what_is_not_pruned():
    assert Wiring(100, 1, 0.9).edges == 91  # (1 - 0.9) x 100 is a little less than 10: 9 are pruned
    assert Wiring(100, 1, 0.0).edges == 0 and Wiring(100, 1, 1.0).edges == 100
    assert Wiring(COLUMNS, ROWS, edges=17).edges == 17


def test_random_edges_hang_on_the_seed_alone():
    first, second = (wiring("random", seed=s, usable=usable_edges()) for s in (0, 1))
    assert torch.equal(first.mask(), second.mask()) and not torch.equal(first.weight, second.weight)
    torch.manual_seed(0)
    other = Wiring(COLUMNS, ROWS, DENSITY, "random", usable=usable_edges(), seed=1)
    assert torch.equal(first.weight, other.weight) and not torch.equal(first.mask(), other.mask())


def test_all_usable_edges_are_as_likely_to_be_drawn():
    usable, drawn = usable_edges(), torch.zeros(ROWS, COLUMNS)
    for seed in range(200):
        drawn += Wiring(COLUMNS, ROWS, DENSITY, "random", usable=usable, seed=seed).mask()
    assert not drawn[~usable].any()
    rate = BUDGET / int(usable.sum())
    off = (drawn[usable] / 200 - rate) / (rate * (1 - rate) / 200) ** 0.5
    assert off.abs().max() < 4.5 and abs(off.mean()) < 1e-4


def test_the_originals_random_edges_come_from_torchs_generator():
    made = wiring("random", compat=True, seed=5)
    torch.manual_seed(5)
    nn.Conv2d(COLUMNS, ROWS, 1, bias=False)
    draws = torch.rand(ROWS, COLUMNS)
    assert torch.equal(made.mask(), by_hand(draws, BUDGET))
    forbidden = original_random_edges((12, 20), 200, in_channels=8, out_channels=4, uniform=draws)
    assert not forbidden[:4, 8:12].any() and not forbidden[:8, 12:16].any() and not forbidden[:12, 16:20].any()
    assert int(forbidden.sum()) == 40


def test_given_edges_are_kept():
    chosen = torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) < 0.3
    for kind in ("random", "fine_tune"):
        made = Wiring(COLUMNS, ROWS, DENSITY, kind, chosen=chosen)
        assert torch.equal(made.mask(), chosen) and made.edges == int(chosen.sum())
        assert torch.equal(gradient_of(made), chosen.float())


def test_fine_tune_freezes_its_edges_at_the_first_use():
    made = wiring("fine_tune")
    assert made.chosen is None and "chosen" not in made.state_dict()
    first = by_hand(made.weight, BUDGET)
    made(torch.zeros(1, COLUMNS))
    with torch.no_grad():
        made.weight.copy_(torch.randn(ROWS, COLUMNS))
    assert torch.equal(made.mask(), first) and torch.equal(made.effective_weight() != 0, first)
    assert torch.equal(made.state_dict()["chosen"], first)
    made.freeze()
    assert torch.equal(made.mask(), first)


@pytest.mark.parametrize("kind", DROPOUTS)
def test_targeted_dropout_drops_in_training_alone(kind):
    made = wiring(kind, drop=0.5).train()
    large, weight = made.mask(), made.weight.detach()
    dropped = torch.rand(ROWS, COLUMNS) < 0.5
    left = large | ~dropped
    assert torch.equal(made.effective_weight(dropped=dropped).detach(), torch.where(left, weight, 0.0))
    assert torch.equal(gradient_of(made, dropped=dropped), left.float())
    drawn = [(made.effective_weight() != 0) for _ in range(60)]
    assert all(mask[large].all() for mask in drawn) and not torch.equal(drawn[0], drawn[1])
    share = torch.stack(drawn)[:, ~large].float().mean()
    assert 0.45 < share < 0.55
    assert torch.equal(made.eval().effective_weight() != 0, large)
    assert wiring(kind).drop == 1 - DENSITY
    first = made.train().effective_weight()
    assert not torch.equal(first, made.effective_weight())
    made.draw.sub_(2)  # the step that both are of
    assert torch.equal(first, made.effective_weight())


def test_compat_targeted_dropout_loses_signs():
    made = wiring("targeted_dropout", compat=True).eval()
    assert torch.equal(made.effective_weight().detach(), torch.where(made.mask(), made.weight.detach().abs(), 0.0))
    assert torch.equal(gradient_of(made), made.mask() * made.weight.detach().sign())


def test_compat_spends_edges_where_none_can_run():
    usable = usable_edges()
    made = wiring(usable=usable, compat=True)
    assert torch.equal(made.mask(), by_hand(made.weight, BUDGET))
    assert torch.equal(made.running(), made.mask() & usable) and int(made.running().sum()) < BUDGET
    assert torch.equal(gradient_of(made), torch.ones(ROWS, COLUMNS))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_and_vectors(memory, dtype):
    made = wiring().to(dtype)
    weight = torch.where(by_hand(made.weight, BUDGET), made.weight.detach(), 0)
    maps = torch.randn(2, COLUMNS, 3, 3, dtype=dtype).contiguous(memory_format=memory).requires_grad_()
    out = made(maps)
    torch.testing.assert_close(out, torch.einsum("vu,buhw->bvhw", weight, maps))
    out.sum().backward()
    torch.testing.assert_close(maps.grad, weight.sum(0).view(1, -1, 1, 1).expand_as(maps).contiguous())
    torch.testing.assert_close(made.weight.grad, maps.detach().sum((0, 2, 3)).expand(ROWS, -1))
    vectors = torch.randn(1, COLUMNS, dtype=dtype)
    torch.testing.assert_close(made(vectors), F.linear(vectors, weight))


def test_wirings_of_a_model_by_name():
    model = nn.ModuleDict({"a": nn.Sequential(wiring(), nn.ReLU()), "b": wiring("complete"), "c": nn.Linear(2, 2)})
    found = hn.nn.wirings(model)
    assert list(found) == ["a.0", "b"] and found["b"] is model["b"]
    assert hn.nn.wirings(nn.Linear(2, 2)) == {}


def test_copies_and_pickles_are_of_their_own():
    made = wiring("fine_tune")
    made(torch.zeros(1, COLUMNS))
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin.mask(), made.mask()) and torch.equal(twin.effective_weight(), made.effective_weight())
        with torch.no_grad():
            twin.weight.zero_()
        assert not twin.effective_weight().any() and made.effective_weight().any()


@pytest.mark.parametrize(
    "message, options",
    [
        ("expected kind to be", {"kind": "sparse"}),
        ("density in \\[0, 1\\] \\(the kept fraction\\), got 1.5", {"density": 1.5}),
        ("density in \\[0, 1\\] \\(the kept fraction\\), got 'a'", {"density": "a"}),
        ("either a density or a number of edges, got None and None", {"density": None}),
        ("either a density or a number of edges, got 0.25 and 3", {"edges": 3}),
        ("in \\[0, 240\\], the usable ones, got 241", {"density": None, "edges": 241}),
        ("in \\[0, 240\\], the usable ones, got 2.5", {"density": None, "edges": 2.5}),
        ("in \\[0, 180\\], the usable ones, got 217 \\(density 0.9 of 240", {"density": 0.9, "usable": usable_edges()}),
        ("usable of shape \\(12, 20\\), got \\(20, 12\\)", {"usable": torch.ones(20, 12)}),
        ("chosen of shape \\(12, 20\\), got \\(3,\\)", {"kind": "random", "chosen": torch.ones(3)}),
        ("no chosen edges for kind 'dnw'", {"chosen": torch.ones(12, 20)}),
        ("no drop for kind 'dnw', got 0.5", {"drop": 0.5}),
        ("drop to be a probability in \\[0, 1\\], got 2", {"kind": "targeted_dropout", "drop": 2}),
        ("a density for so many edges of each", {"kind": "regular_targeted_dropout", "density": None, "edges": 9}),
        ("seed", {"kind": "random", "seed": -1}),
    ],
)
def test_errors(message, options):
    with pytest.raises(ValueError, match=message) as raised:
        Wiring(COLUMNS, ROWS, **{"density": DENSITY, **options})
    assert "\n" not in str(raised.value) and str(raised.value).startswith("Wiring: expected")


def test_errors_of_use():
    for counts in ((0, 3), (3, True), (2.0, 3)):
        with pytest.raises(ValueError, match="a whole number of at least 1"):
            Wiring(*counts, 0.5)
    made = wiring()
    with pytest.raises(ValueError, match=r"expected \[batch, 20\] or \[batch, 20, H, W\], got \(2, 3\)"):
        made(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="a targeted dropout in training alone"):
        made.effective_weight(dropped=torch.ones(ROWS, COLUMNS))
    with pytest.raises(ValueError, match="dropped of shape"):
        wiring("targeted_dropout").effective_weight(dropped=torch.ones(3))
    with pytest.raises(ValueError, match="expected kind 'fine_tune' to be frozen, got 'dnw'"):
        made.freeze()
