"""masked_weight: every rule x source x layout x dtype against the reference; the surrogate gradients exactly."""

from __future__ import annotations

import itertools

import pytest
import torch

from hiddennet import ops
from tests import reference
from tests.checks import assert_equal, assert_no_worse_than
from tests.golden import Golden

SHAPES = ((1, 1), (5, 7), (43, 3), (8, 3, 3, 3), (16, 8, 1, 1), (33, 17, 3, 3), (130, 300))
RULES = ("all", "magnitude", "value", "bits", "sampled", "expectation")
FLAGGED = ("rounded", "rounded_at", "rounded_at_random", "scored")  # rules with flags, beside the scores
SOURCES = ("stored", *ops.INITS)
FLAGS = torch.zeros(3, dtype=torch.uint8)  # of 4 x 5 weights


def _rule(kind: str, scores: torch.Tensor, device) -> tuple[ops.Mask, torch.Tensor]:
    """A rule and the mask it stands for, by the reference."""
    k = scores.numel() // 2
    step = torch.tensor([5], device=device)
    if kind in ("magnitude", "value"):
        row = ops.topk_select([scores.to(device)], [k], by=kind)[0]
        return ops.Mask.selected(row, kind), reference.topk_mask(scores, k, by=kind)
    mask = torch.rand(scores.shape) < 0.4
    rule = {
        "all": lambda: ops.Mask.all(device),
        "bits": lambda: ops.Mask.packed(ops.pack_mask(mask).to(device)),
        "sampled": lambda: ops.Mask.sampled(step, seed=11),
        "expectation": lambda: ops.Mask.expectation(device),
    }[kind]()
    if kind != "bits":
        mask = reference.rule_mask(scores, scores.shape, kind, step=5, seed=11, layer=2)
    return rule, mask


def _source(kind: str, shape, device) -> tuple[ops.WeightSource, torch.Tensor]:
    """A source and its weight, by the reference."""
    if kind == "stored":
        weight = torch.randn(shape)
        return ops.WeightSource.store(weight.to(device), layer=2), weight
    scaled = ops.init_scale(shape, kind)
    n = torch.Size(shape).numel()
    weight = reference.generate(scaled.kind, scaled.scale, n, seed=7, layer=2, redraw=1).view(shape)
    return ops.WeightSource.generate(shape, kind, seed=7, layer=2, redraw=1, device=device), weight


@pytest.mark.parametrize(("rule", "source"), list(itertools.product(RULES, SOURCES)))
def test_equals_the_reference(device, rule, source):
    for shape in SHAPES:
        scores = (torch.randn(shape) * 8).round() / 8  # with ties
        state, mask = _rule(rule, scores, device)
        weights, weight = _source(source, shape, device)
        want = reference.masked_weight(weight, mask, scores, rule)
        layouts = [scores] + ([scores.to(memory_format=torch.channels_last)] if len(shape) == 4 else [])
        for laid in layouts:
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                got = ops.masked_weight(laid.to(device), state, source=weights, dtype=dtype)
                assert got.dtype == dtype
                if rule == "expectation":
                    exact = weight.double() * torch.sigmoid(scores.double())
                    assert_no_worse_than(got, want.to(dtype), exact)
                else:
                    assert_equal(got, want.to(dtype), f"{shape} {dtype}")
                    assert not bool((torch.signbit(got.cpu()) & ~mask).any()), "a pruned weight is +0"
                if state.reads_scores:
                    assert got.is_contiguous() == laid.is_contiguous()


def _flagged(kind: str, scores: torch.Tensor, device) -> tuple[ops.Mask, torch.Tensor, torch.Tensor]:
    """A rule with flags, its flags, and the mask it stands for, by the reference."""
    flags = torch.rand(scores.shape) < 0.6
    bits = ops.pack_mask(flags).to(device)
    row = ops.topk_select([scores.to(device)], [scores.numel() // 2], by="value")[0]
    step = torch.tensor([5], device=device)
    rule = {
        "rounded": lambda: ops.Mask.rounded(0.25, bits),
        "rounded_at": lambda: ops.Mask.rounded_at(row, bits),
        "rounded_at_random": lambda: ops.Mask.rounded_at_random(step, 11, bits),
        "scored": lambda: ops.Mask.scored(bits),
    }[kind]()
    if kind == "rounded":
        return rule, flags, flags & ((scores > 0.25) | scores.isnan())
    mask = reference.rule_mask(
        scores,
        scores.shape,
        rule.kind,
        selection=row.cpu() if kind == "rounded_at" else None,
        bits=bits.cpu(),
        step=5,
        seed=11,
        layer=2,
    )
    return rule, flags, mask


def _layouts(t: torch.Tensor) -> list[torch.Tensor]:
    return [t] + ([t.to(memory_format=torch.channels_last)] if t.dim() == 4 else [])


@pytest.mark.parametrize(("kind", "source"), list(itertools.product(FLAGGED, SOURCES)))
def test_flagged_rules_equal_the_reference(device, kind, source):
    for shape in (*SHAPES, (3, 50, 3, 3), (2, 1030)):
        scores = (torch.randn(shape) * 8).round() / 8  # with ties at 0.25
        if kind != "scored":
            scores.view(-1)[::7] = float("nan")
        state, flags, mask = _flagged(kind, scores, device)
        weights, weight = _source(source, shape, device)
        if source == "stored":
            weights = ops.WeightSource.store(weight.to(device).requires_grad_(), layer=2)
        want = reference.masked_weight(weight, mask, scores, state.kind)
        for laid in _layouts(scores):
            assert_equal(ops.rule_mask(laid.to(device), state, scores.shape, layer=2), mask, f"mask of {shape}")
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                s = laid.to(device).clone().requires_grad_()
                got = ops.masked_weight(s, state, source=weights, dtype=dtype)
                assert_equal(got, want.to(dtype), f"{shape} {dtype}")
                assert not bool((torch.signbit(got.detach().cpu()) & ~mask).any()), "a pruned weight is +0"
                grad = torch.randn(shape).to(dtype)
                if source == "stored":
                    weights.stored.grad = None
                got.backward(grad.to(device))
                back = reference.masked_weight_backward(grad.float(), weight, mask, scores, state.kind, flags)
                assert_equal(s.grad, back[0], f"gradient of the scores, {shape} {dtype}")
                assert not bool((torch.signbit(s.grad.cpu()) & ~flags).any()), "no gradient is +0"
                if source == "stored":
                    assert_equal(weights.stored.grad, back[1], f"gradient of the weight, {shape} {dtype}")


@pytest.mark.parametrize("kind", ["magnitude", "value", "rounded", "bits"])
@pytest.mark.parametrize("shape", [(6, 16, 3, 3), (3, 8, 3, 3), (2, 40, 3, 3), (5, 12, 3, 3), (4, 16, 5, 5), (7, 33)])
def test_without_ties_in_both_layouts(device, kind, shape):
    """Sizes whose sign bits are read a byte at a time in either layout, and others beside them."""
    scores = torch.randn(shape)
    weights, weight = _source("signed_constant", shape, device)
    flags = torch.ones(shape, dtype=torch.bool)
    if kind == "rounded":
        state, flags, mask = _flagged(kind, scores, device)
    else:
        state, mask = _rule(kind, scores, device)
    for laid, dtype in itertools.product(_layouts(scores), (torch.float32, torch.bfloat16, torch.float16)):
        s, grad = laid.to(device).clone().requires_grad_(), torch.randn(shape).to(dtype)
        got = ops.masked_weight(s, state, source=weights, dtype=dtype)
        assert_equal(got, reference.masked_weight(weight, mask, scores, state.kind).to(dtype), f"{dtype}")
        if got.requires_grad:
            got.backward(grad.to(device))
            want = reference.masked_weight_backward(grad.float(), weight, mask, scores, state.kind, flags)[0]
            assert_equal(s.grad, want, f"gradient of the scores, {dtype}")


@pytest.mark.parametrize(
    ("threshold", "score", "kept"),
    [
        (0.5, 0.5, False),
        (0.5, 0.50000006, True),
        (0.0, 0.0, False),
        (0.0, -0.0, False),
        (-0.0, 0.0, False),
        (-0.0, 1e-45, True),
        (0.0, -1e-45, False),
        (-0.5, -0.5, False),
        (-0.5, -0.49999997, True),
        (0.1, 0.1, False),  # both are rounded to float32
        (float("inf"), float("inf"), False),
        (float("-inf"), float("-inf"), False),
        (float("-inf"), -3.4e38, True),
        (1e300, 3.4e38, False),
        (float("inf"), float("nan"), True),
    ],
)
def test_rounding_is_strict(device, threshold, score, kept):
    scores = torch.full((1, 11), score, device=device)
    flags = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1], device=device).bool()
    mask = ops.rule_mask(scores, ops.Mask.rounded(threshold, ops.pack_mask(flags)), scores.shape)
    assert_equal(mask, flags.view(1, 11) & kept)


def test_random_rounding_follows_its_probability(device):
    p = torch.tensor([-0.5, 0.0, 0.3, 0.9, 1.0, 1.5], device=device)
    scores = p.repeat_interleave(40_000).view(6, -1)
    everything = ops.pack_mask(torch.ones_like(scores, dtype=torch.bool))
    masks = [
        ops.rule_mask(
            scores, ops.Mask.rounded_at_random(torch.tensor([step], device=device), 1, everything), scores.shape
        )
        for step in (0, 1, 0)
    ]
    assert_equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    for rate, expected in zip(masks[0].float().mean(1).tolist(), p.clamp(0, 1).tolist(), strict=True):
        assert abs(rate - expected) <= 5 * (expected * (1 - expected) / 40_000) ** 0.5


def test_a_change_of_flags_in_place_is_seen(device):
    scores, flags = torch.ones(3, 7, device=device), torch.zeros(3, dtype=torch.uint8, device=device)
    rule = ops.Mask.rounded(0.5, flags)
    assert not bool(ops.rule_mask(scores, rule, scores.shape).any())
    flags[0] = 0b101
    assert ops.rule_mask(scores, rule, scores.shape).flatten().nonzero().flatten().tolist() == [0, 2]


@pytest.mark.parametrize(("rule", "source"), list(itertools.product(RULES, SOURCES)))
def test_backward_is_the_written_surrogate(device, rule, source):
    for shape in ((5, 7), (33, 17, 3, 3)):
        scores = torch.randn(shape)
        scores.view(-1)[::5] = 0.0  # sign(0) = 0: no gradient there by magnitude
        state, mask = _rule(rule, scores, device)
        weights, weight = _source(source, shape, device)
        if source == "stored":
            weights = ops.WeightSource.store(weight.to(device).requires_grad_(), layer=2)
        s = scores.to(device).requires_grad_()
        for dtype in (torch.float32, torch.bfloat16):
            grad = torch.randn(shape).to(dtype)
            out = ops.masked_weight(s, state, source=weights, dtype=dtype)
            if not out.requires_grad:
                assert not state.reads_scores and source != "stored"
                continue
            s.grad = None
            if source == "stored":
                weights.stored.grad = None
            out.backward(grad.to(device))
            want = reference.masked_weight_backward(grad.float(), weight, mask, scores, rule)
            exact = reference.masked_weight_backward(grad.double(), weight.double(), mask, scores.double(), rule)
            if state.reads_scores:
                assert s.grad.dtype == torch.float32
                assert_no_worse_than(s.grad, want[0], exact[0])
                if rule in ("magnitude", "value"):
                    assert_equal(s.grad, want[0])
            if source == "stored":
                assert_no_worse_than(weights.stored.grad, want[1], exact[1])


def test_stored_weights_may_get_the_gradient_of_every_weight(device):
    weight = torch.randn(6, 5, device=device, requires_grad=True)
    source = ops.WeightSource.store(weight, through=True)
    out = ops.masked_weight(weight.detach(), 10, source=source)
    grad = torch.randn(6, 5, device=device)
    out.backward(grad)
    assert_equal(weight.grad, grad)
    assert int((out != 0).sum()) == 10


def test_gradient_of_the_stored_weight_is_a_true_derivative():
    """The only one that is: float64 has no path here, so a finite difference of a linear map."""
    weight, scores = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    direction = torch.randn(4, 5)
    f = lambda w: ops.masked_weight(scores, 11, source=ops.WeightSource.store(w))  # noqa: E731
    out = f(weight)
    grad = torch.randn(4, 5)
    (analytic,) = torch.autograd.grad(out, weight, grad)
    numeric = ((f(weight.detach() + direction) - f(weight.detach() - direction)) / 2 * grad).sum()
    torch.testing.assert_close((analytic * direction).sum(), numeric)


def test_nothing_but_scores_and_bytes_is_saved(device):
    """No mask, no product, no dense weight: what autograd keeps is the scores, 16 bytes of selection, sign bits."""
    scores = torch.randn(64, 64, 3, 3, device=device, requires_grad=True)
    source = ops.WeightSource.generate(scores.shape, seed=0, device=device)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ops.masked_weight(scores, 1000, source=source)
    others = [t for t in saved if t is not None and t.data_ptr() != scores.data_ptr()]
    assert sum(t.numel() * t.element_size() for t in others) <= scores.numel() / 8 + 16


@pytest.mark.parametrize("by", ["magnitude", "value"])
@pytest.mark.parametrize("source", SOURCES)
def test_selection_and_weight_in_one_call(device, source, by):
    for shape in ((5, 7), (33, 17, 3, 3), (300, 301)):
        scores = (torch.randn(shape) * 8).round() / 8
        weights, weight = _source(source, shape, device)
        k, hint = scores.numel() // 3, None
        for layout in (torch.contiguous_format, torch.channels_last)[: max(1, len(shape) - 2)]:
            for _ in range(2):  # cold, then warm
                moved = scores.to(device).contiguous(memory_format=layout)
                got, hint = ops.topk_weight(moved, k, source=weights, by=by, hint=hint)
                assert_equal(got, weight * reference.topk_mask(scores, k, by=by) + 0.0)
                assert got.is_contiguous(memory_format=layout)
                assert_equal(hint[:, :2], ops.topk_select([moved], [k], by=by)[:, :2])
    with pytest.raises(ValueError, match="weight's shape"):
        ops.topk_weight(torch.randn(2, 3, device=device), 1, source=weights)


def test_sampled_draws_follow_their_probability(device):
    scores = torch.full((200, 500), 0.4, device=device)
    rates = []
    for step in range(3):
        rule = ops.Mask.sampled(torch.tensor([step], device=device), seed=1)
        mask = ops.rule_mask(scores, rule, scores.shape)
        rates.append(float(mask.float().mean()))
        again = ops.rule_mask(scores, ops.Mask.sampled(torch.tensor([step], device=device), seed=1), scores.shape)
        assert_equal(mask, again)
    p = float(torch.sigmoid(torch.tensor(0.4)))
    assert len(set(rates)) == 3
    for rate in rates:
        assert abs(rate - p) < 5 * (p * (1 - p) / scores.numel()) ** 0.5


def test_original_values():
    values = Golden("hidden_networks")
    tensor = lambda name: torch.from_numpy(values[name])  # noqa: E731
    for case in ("conv3x3", "conv1x1"):
        _, _, _, stride, padding, density = values[f"{case}_hyper"]
        scores, x = tensor(f"{case}_scores").requires_grad_(), tensor(f"{case}_x").requires_grad_()
        k = scores.numel() - int((1 - float(density)) * scores.numel())
        source = ops.WeightSource.store(tensor(f"{case}_weight"))
        assert_equal(ops.topk_mask(scores, k, by="magnitude"), tensor(f"{case}_mask").bool())
        y = ops.masked_conv2d(x, scores, k, source=source, stride=int(stride), padding=int(padding))
        y.backward(tensor(f"{case}_gy"))
        for got, name in ((y, "y"), (scores.grad, "gscores"), (x.grad, "gx")):
            torch.testing.assert_close(got, tensor(f"{case}_{name}"), atol=1e-5, rtol=0)
    zero = torch.tensor([[0.0, -0.5], [0.25, -0.0]], requires_grad=True)
    ops.masked_weight(zero, 4, source=ops.WeightSource.store(torch.full((2, 2), 2.0))).sum().backward()
    assert_equal(zero.grad, tensor("zero_score_grad").view(2, 2))
    scores, u = tensor("sample_scores"), tensor("sample_u")
    mask = tensor("sample_mask").bool()
    assert_equal(scores > torch.logit(u.double()).float(), mask)  # our form of u < sigmoid(s)
    rule = ops.Mask.packed(ops.pack_mask(mask))
    weight = ops.masked_weight(None, rule, source=ops.WeightSource.store(tensor("sample_w")))
    y = torch.nn.functional.conv2d(tensor("sample_x"), weight, padding=1)
    torch.testing.assert_close(y, tensor("sample_y"), atol=1e-5, rtol=0)


def test_opcheck(device):
    scores = torch.randn(6, 5, 3, 3, device=device)
    source = ops.WeightSource.generate(scores.shape, seed=0, device=device)
    rule = ops.Mask.selected(ops.topk_select([scores], [50])[0], "magnitude")
    common = (*rule.arguments(), *source.arguments())
    torch.library.opcheck(
        torch.ops.hiddennet.masked_weight.default, (scores, rule.selection, [6, 5, 3, 3], False, *common, 1)
    )
    torch.library.opcheck(
        torch.ops.hiddennet.masked_weight_backward.default,
        (scores, scores, rule.selection, False, *common, True, True),
    )


def test_opcheck_of_the_one_call(device):
    scores = torch.randn(6, 5, 3, 3, device=device)
    source = ops.WeightSource.generate(scores.shape, seed=0, device=device)
    torch.library.opcheck(torch.ops.hiddennet.topk_weight.default, (scores, 50, False, None, *source.arguments(), 0))


def test_compiles_in_one_graph(device):
    scores = torch.randn(8, 9, device=device, requires_grad=True)
    source = ops.WeightSource.generate((8, 9), "kaiming_normal", seed=0, device=device)
    f = lambda s: ops.masked_weight(s, 30, source=source)  # noqa: E731
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    grad = torch.randn(8, 9, device=device)
    want_out, want_grad = f(scores), torch.autograd.grad(f(scores), scores, grad)[0]
    out = compiled(scores)
    assert_equal(out, want_out)
    assert_equal(torch.autograd.grad(out, scores, grad)[0], want_grad)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s, w: ops.masked_weight(s, 1, source=w.stored), TypeError, "expected source to be a WeightSource"),
        (lambda s, w: ops.masked_weight(s[:2], 1, source=w), ValueError, r"weight's shape \(4, 5\), got \(2, 5\)"),
        (lambda s, w: ops.masked_weight(s, 21, source=w), ValueError, r"k in \[0, 20\]"),
        (lambda s, w: ops.masked_weight(s, 1, source=w, dtype=torch.float64), TypeError, "float32, bfloat16"),
        (lambda s, w: ops.masked_weight(None, 1, source=w), TypeError, "expected scores to be a Tensor, got NoneType"),
        (lambda s, w: ops.masked_weight(s.to("meta"), 1, source=w), ValueError, "expected scores on cpu"),
        (lambda s, w: ops.masked_weight(s.double(), 1, source=w), TypeError, "got float64"),
        (lambda s, w: ops.Mask.rounded(float("nan"), FLAGS), ValueError, "a threshold that is a number, got nan"),
        (lambda s, w: ops.Mask.rounded(0.5, FLAGS.bool()), TypeError, "expected flags of dtype uint8, got bool"),
        (lambda s, w: ops.Mask.rounded_at(torch.zeros(2, 4, dtype=torch.int32), FLAGS), ValueError, r"got \(2, 4\)"),
        (lambda s, w: ops.Mask.rounded_at_random(torch.zeros(1), 0, FLAGS), TypeError, "expected step of dtype int64"),
        (lambda s, w: ops.Mask.scored(s), TypeError, "expected flags of dtype uint8, got float32"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.randn(4, 5), ops.WeightSource.store(torch.randn(4, 5)))


def test_raw_op_refuses_instead_of_crashing():
    s = torch.randn(4, 5)
    row, raw = torch.zeros(4, dtype=torch.int32), torch.ops.hiddennet.masked_weight.default
    stored = (0, s, None, 1.0, 0, 0, 0)
    rule = (1, None, None, 0)
    bad = [
        (s, row, [4, 6], False, *rule, *stored, 0),
        (s, row[:2], [4, 5], False, *rule, *stored, 0),
        (s, row.long(), [4, 5], False, *rule, *stored, 0),
        (None, row, [4, 5], False, *rule, *stored, 0),
        (s.t(), row, [5, 4], False, *rule, *stored, 0),
        (s, row, [4, 5], True, *rule, *stored, 0),
        (s, row, [4, 5], False, 9, None, None, 0, *stored, 0),
        (s, row, [4, 5], False, 3, None, None, 0, *stored, 0),
        (s, row, [4, 5], False, 3, torch.zeros(2, dtype=torch.uint8), None, 0, *stored, 0),
        (s, row, [4, 5], False, 4, None, None, 0, *stored, 0),
        (s, row, [4, 5], False, 6, None, None, 0, *stored, 0),
        (s, row, [4, 5], False, 6, FLAGS[:2], None, 0, *stored, 0),
        (s, row, [4, 5], False, 6, FLAGS, torch.zeros(1), 0, *stored, 0),
        (None, row, [4, 5], False, 7, FLAGS, None, 0, *stored, 0),
        (s, row, [4, 5], False, 7, FLAGS.bool(), None, 0, *stored, 0),
        (s, row, [4, 5], False, *rule, 2, None, None, 1.0, 0, 0, 0, 0),
        (s, row, [4, 5], False, *rule, 7, None, None, 1.0, 0, 0, 0, 0),
        (s, row, [4, 5], False, *rule, *stored, 5),
        (s, row, [1 << 20, 1 << 20], False, *rule, *stored, 0),
    ]
    for arguments in bad:
        with pytest.raises(RuntimeError, match="expected"):
            raw(*arguments)
