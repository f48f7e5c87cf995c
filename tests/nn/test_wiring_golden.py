"""The Wiring layer against what the original computed: top edges, straight-through gradients, every kind of graph."""

from __future__ import annotations

import pytest
import torch

import hiddennet as hn
from hiddennet.nn.edge_rules import original_random_edges
from tests.golden import Golden

pytestmark = pytest.mark.isa

DTYPES = [torch.float64, torch.float32]


@pytest.fixture(scope="module")
def golden():
    return Golden("dnw")


def array(golden, key, dtype=None):
    return torch.as_tensor(golden[key], dtype=dtype)


def wiring(weight, density=None, kind="dnw", **options):
    made = hn.nn.Wiring(weight.shape[1], weight.shape[0], density, kind, **{"compat": True, **options})
    made = made.to(weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", ["0", "0.1", "0.25", "0.3", "0.5", "0.75", "0.9", "1"])
def test_top_edges_with_ties(golden, rate, dtype):
    weight, want = array(golden, "A/weight", dtype), array(golden, f"A/out_{rate}", dtype)
    made = wiring(weight, edges=12 - int(array(golden, f"A/p_{rate}")))
    assert torch.equal(made.effective_weight().detach(), want)


def test_a_density_prunes_int_of_its_complement(golden):
    for rate, n, pruned in array(golden, "A/int_cases").tolist():
        assert int(rate * n) == pruned
        if rate * n == round(rate * n) and 1 - (1 - rate) == rate and n < 1e6:
            assert hn.nn.Wiring(int(n), 1, 1 - rate).edges == n - pruned
    assert hn.nn.Wiring(100, 1, 0.9).edges == 100 - 9  # (1 - 0.9) x 100 is a little less than 10


def test_the_gradient_goes_straight_through(golden):
    made = wiring(array(golden, "A/weight"), 0.5)
    (made.effective_weight() * torch.arange(1.0, 13.0, dtype=torch.float64).view(3, 4)).sum().backward()
    assert torch.equal(made.weight.grad, array(golden, "A/ste_grad"))


def test_products_and_their_gradients(golden):
    made, x = wiring(array(golden, "A/weight"), 0.5), array(golden, "A/conv_x").requires_grad_()
    found = made(x)
    found.backward(array(golden, "A/conv_cot"))
    for got, key in ((found, "y"), (x.grad, "dx"), (made.weight.grad, "dw")):
        torch.testing.assert_close(got, array(golden, f"A/conv_{key}"), rtol=0, atol=1e-12)


def test_memory_formats_do_not_change_what_is_kept(golden):
    weight = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    kept = hn.ops.topk_mask(weight.to(memory_format=torch.channels_last), 72, by="magnitude")
    assert int(kept.sum()) == int(array(golden, "A/contiguous_nnz_of_144_at_0.5"))
    assert torch.equal(kept, hn.ops.topk_mask(weight, 72, by="magnitude"))


def check(golden, made, key, *, mask=True, dropped=None):
    dtype = made.weight.dtype
    found = made.effective_weight(dropped=dropped)
    assert torch.equal(found.detach(), array(golden, f"F/{key}_out", dtype))
    (found * array(golden, "F/cot", dtype)).sum().backward()
    assert torch.equal(made.weight.grad, array(golden, f"F/{key}_grad", dtype))
    if mask and f"F/{key}_mask" in golden:
        assert torch.equal(made.mask(), array(golden, f"F/{key}_mask") != 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["dnw", "fine_tune", "complete"])
def test_kinds(golden, kind, dtype):
    check(golden, wiring(array(golden, "F/weight", dtype), 0.5, kind), kind)


def test_no_update(golden):
    check(golden, wiring(array(golden, "F/weight"), 0.5, "dnw_no_update"), "dnw_no_update", mask=False)
    assert bool((array(golden, "F/dnw_no_update_mask") == 1).all())  # the original's mask forbids nothing


@pytest.mark.parametrize("key", ["random_static_in2_out2", "random_nochannels", "random_dynamic"])
def test_random(golden, key):
    weight, channels = array(golden, "F/weight"), (2, 2) if "in2" in key else (None, None)
    uniform = array(golden, "F/rand")
    chosen = original_random_edges((4, 6), 12, in_channels=channels[0], out_channels=channels[1], uniform=uniform)
    check(golden, wiring(weight, kind="random", chosen=chosen), key)


def test_targeted_dropout(golden):
    weight = array(golden, "F/weight")
    check(golden, wiring(weight, 0.5, "targeted_dropout").eval(), "td_eval")
    dropped = array(golden, "F/td_keepdrop").view(4, 6) != 0
    check(golden, wiring(weight, 0.5, "targeted_dropout").train(), "td_train", dropped=dropped)


def test_regular_targeted_dropout(golden):
    weight = array(golden, "F/weight")
    found = wiring(weight, 0.5, "regular_targeted_dropout").eval().effective_weight()
    assert torch.equal(found.detach(), array(golden, "F/reg_td_eval_out"))


def test_targeted_dropout_keeps_signs_by_default(golden):
    weight = array(golden, "F/weight")
    for kind, key in (("targeted_dropout", "F/td_eval_out"), ("regular_targeted_dropout", "F/reg_td_eval_out")):
        found = wiring(weight, 0.5, kind, compat=False).eval().effective_weight().detach()
        assert torch.equal(found, array(golden, key) * weight.sign())
