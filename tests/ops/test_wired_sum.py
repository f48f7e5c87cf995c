"""wired_sum: no worse than torch's convolution, in every shape, buffer and plan; its gradients; the lists of edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hiddennet.ops import WIRED_PLANS, default_wired_plan, pack_edges, wired_sum, wired_sum_
from hiddennet.ops.wired_sum import SPARSE_UP_TO
from tests import reference
from tests.checks import assert_equal, assert_no_worse_than

SHAPES = {  # images, sources, destinations, height, width, density
    "one of each": (1, 1, 1, 1, 1, 1.0),
    "14x14": (1, 70, 37, 14, 14, 0.1),
    "14x14, images": (3, 70, 37, 14, 14, 0.1),
    "7x7": (1, 40, 65, 7, 7, 0.2),
    "7x7, images": (9, 40, 65, 7, 7, 0.2),
    "1x1 maps": (300, 33, 10, 1, 1, 0.3),
    "3x5 maps": (19, 20, 33, 3, 5, 0.25),
    "odd, several tiles": (2, 9, 5, 19, 31, 0.5),
    "one vector and a pixel": (1, 12, 7, 1, 17, 0.5),
    "just below packing": (2, 12, 7, 8, 16, 0.5),
    "just above packing": (2, 12, 7, 1, 127, 0.5),
    "large map": (1, 3, 4, 67, 66, 0.7),
    "all edges": (2, 20, 12, 6, 6, 1.0),
    "few edges": (2, 50, 40, 9, 9, 0.01),
    "no edges": (2, 5, 6, 9, 9, 0.0),
    "no images": (0, 5, 6, 9, 9, 0.5),
    "no pixels": (2, 5, 6, 0, 9, 0.5),
    "no sources": (2, 0, 6, 4, 4, 0.5),
    "no destinations": (2, 5, 0, 4, 4, 0.5),
}


def make(name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """An input, and a weight with empty rows (an eighth of them) and columns."""
    n, sources, destinations, height, width, density = SHAPES[name]
    weight = torch.randn(destinations, sources) * (torch.rand(destinations, sources) < density)
    if sources > 4:
        weight[::8], weight[:, 3] = 0, 0
    return torch.randn(n, sources, height, width).to(device), weight.to(device)


def want(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("vu,nuhw->nvhw", weight.cpu().double(), x.cpu().double())


def near(got: Tensor, x: Tensor, weight: Tensor) -> None:
    """At least as exact as torch's convolution, twice over."""
    exact = want(x, weight)
    torchs = torch.einsum("vu,nuhw->nvhw", weight.cpu(), x.cpu())
    assert got.shape == exact.shape
    if exact.numel():
        assert_no_worse_than(got, torchs, exact, floor=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_sum_of_every_shape(device, name):
    x, weight = make(name, device)
    edges = pack_edges(weight)
    got = wired_sum(x, edges)
    near(got, x, weight)
    assert got.is_contiguous()
    near(reference.wired_sum(x, edges.starts, edges.sources, edges.values), x, weight)
    near(wired_sum(x, edges, weight[:, :, None, None], plan="sparse"), x, weight)
    if min(x.shape) and len(weight):  # torch's convolution takes no empty map or filter
        near(wired_sum(x, edges, weight, plan="dense"), x, weight)


@pytest.mark.parametrize("name", SHAPES)
def test_lists_hold_the_weight(device, name):
    _, weight = make(name, device)
    edges = pack_edges(weight)
    assert (edges.n_destinations, edges.n_sources) == tuple(weight.shape)
    assert edges.n_edges == int((weight != 0).sum())
    destinations, sources = weight.cpu().nonzero(as_tuple=True)
    assert_equal(edges.sources, sources.int())
    assert_equal(edges.values, weight.cpu()[destinations, sources])
    assert_equal(reference.dense_weight(edges.starts, edges.sources, edges.values, edges.n_sources), weight)
    back = edges.transposed
    assert_equal(reference.dense_weight(back.starts, back.sources, back.values, back.n_sources), weight.T)
    assert edges.transposed is back
    again = pack_edges(weight.T)  # of other strides
    for part in ("starts", "sources", "values"):
        assert_equal(getattr(back, part), getattr(again, part), part)


def test_weights_that_are_no_numbers_are_edges(device):
    weight = torch.zeros(2, 40, device=device)
    weight[0, 5], weight[1, 39], weight[1, 38] = float("nan"), float("inf"), -0.0
    edges = pack_edges(weight)
    assert edges.sources.tolist() == [5, 39]
    y = wired_sum(torch.ones(1, 40, 2, 2, device=device), edges)
    assert bool(y[0, 0].isnan().all()) and bool(y[0, 1].isinf().all())


def test_order_of_the_sum_is_the_lists(device):
    """Each step is one fused multiply-add: its bits in float64, where products of float32 are exact."""
    x, weight = make("14x14, images", device)
    edges = pack_edges(weight)
    got, planes, old = wired_sum(x, edges).cpu(), x.cpu(), torch.randn(3, 37, 14, 14)
    added = wired_sum_(old.to(device, copy=True), x, edges, accumulate=True).cpu()
    for y, start in ((got, torch.zeros_like(old)), (added, old)):
        for v in (1, 9, 36):
            total = start[:, v].clone()
            for e in range(int(edges.starts[v]), int(edges.starts[v + 1])):
                product = planes[:, int(edges.sources[e])].double() * edges.values[e].item()
                total = (product + total.double()).float()
            wrong = (y[:, v] != total).float().mean()
            assert wrong < 1e-3  # double rounding: where 53 bits do not hold the step, once in 2^29


@pytest.mark.parametrize("name", ["14x14, images", "7x7, images", "odd, several tiles", "1x1 maps"])
def test_channels_of_a_wider_buffer(device, name):
    """Read and written where they lie, also both in one buffer; what is beside them stays."""
    x, weight = make(name, device)
    n, c, h, w = x.shape
    d = len(weight)
    edges = pack_edges(weight)
    y = wired_sum(x, edges)
    buffer = torch.full((n, c + d + 5, h, w), 7.0, device=device)
    for at_x, at_y in ((2, c + 3), (d + 4, 1)):
        buffer.fill_(7.0)
        buffer[:, at_x : at_x + c] = x
        source, out = buffer[:, at_x : at_x + c], buffer[:, at_y : at_y + d]
        assert_equal(wired_sum(source, edges), y)
        assert wired_sum_(out, source, edges) is out
        assert_equal(out, y)
        assert_equal(source, x)
        wired_sum_(out, source, edges, accumulate=True)
        near(out - y, x, weight)
        rest = [i for i in range(c + d + 5) if not (at_x <= i < at_x + c or at_y <= i < at_y + d)]
        assert bool((buffer[:, rest] == 7.0).all())


def test_overlap_is_refused(device):
    buffer, edges = torch.zeros(2, 9, 14, 14, device=device), pack_edges(torch.ones(3, 5, device=device))
    wired_sum_(buffer[:, 5:8], buffer[:, :5], edges)
    for at in (4, 2, 0):
        with pytest.raises(RuntimeError, match="overlap"):
            wired_sum_(buffer[:, at : at + 3], buffer[:, :5], edges)
    with pytest.raises(RuntimeError, match="overlap"):
        wired_sum_(buffer[:1, :3], buffer[:1, 2:7], edges)


def test_input_of_any_layout(device):
    x, weight = make("14x14, images", device)
    edges = pack_edges(weight)
    y = wired_sum(x, edges)
    assert_equal(wired_sum(x.contiguous(memory_format=torch.channels_last), edges), y)
    assert_equal(wired_sum(x.transpose(2, 3).contiguous().transpose(2, 3), edges), y)
    assert_equal(wired_sum(x[:1].expand(3, -1, -1, -1), edges), y[:1].expand(3, -1, -1, -1))
    assert_equal(
        wired_sum(x[:, ::2], pack_edges(weight[:, ::2])), wired_sum(x[:, ::2].clone(), pack_edges(weight[:, ::2]))
    )


def test_a_block_of_destinations(device):
    x, weight = make("7x7, images", device)
    edges = pack_edges(weight)
    y = wired_sum(x, edges)
    for begin, end in ((0, 65), (3, 40), (64, 65), (8, 9), (7, 7)):
        block = edges.destinations(begin, end)
        assert_equal(wired_sum(x, block), y[:, begin:end])
        back = block.transposed
        assert_equal(reference.dense_weight(back.starts, back.sources, back.values, end - begin), weight[begin:end].T)
    with pytest.raises(ValueError, match="0 <= begin <= end <= 65, got 3 and 66"):
        edges.destinations(3, 66)


@pytest.mark.parametrize("name", ["14x14, images", "7x7, images", "large map", "1x1 maps", "no edges", "no images"])
@pytest.mark.parametrize("plan", WIRED_PLANS)
def test_gradients_are_the_convolutions(device, name, plan):
    x, weight = make(name, device)
    y = torch.randn(x.shape[0], len(weight), *x.shape[2:], device=device)

    def gradients(run, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        a, b = x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
        return torch.autograd.grad(run(a, b), (a, b), y.to(dtype))

    got = gradients(lambda a, b: wired_sum(a, pack_edges(b), b, plan=plan), torch.float32)
    torchs = gradients(lambda a, b: F.conv2d(a, b[:, :, None, None]), torch.float32)
    exact = gradients(lambda a, b: F.conv2d(a, b[:, :, None, None]), torch.float64)
    for g, t, e in zip(got, torchs, exact, strict=True):
        assert g.shape == e.shape
        if e.numel():
            assert_no_worse_than(g, t, e.cpu(), floor=2e-6)


def test_only_the_gradients_asked_for(device):
    x, weight = make("7x7, images", device)
    edges = pack_edges(weight)
    (dx,) = torch.autograd.grad(wired_sum(x.requires_grad_(), edges).sum(), x)
    near(dx, torch.ones(9, 65, 7, 7), weight.T)
    four = weight[:, :, None, None].requires_grad_()
    (dw,) = torch.autograd.grad(wired_sum(x.detach(), edges, four, plan="sparse").sum(), four)
    assert dw.shape == four.shape
    assert not wired_sum(x.detach(), edges, weight.detach()).requires_grad


def test_plans_by_density(device):
    x, _ = make("7x7, images", device)
    weight = torch.ones(65, 40, device=device)
    assert default_wired_plan(x, pack_edges(weight), weight) == "dense"
    assert default_wired_plan(x, pack_edges(weight)) == "sparse"
    weight[:, 1:] = 0
    weight[int(65 * 40 * SPARSE_UP_TO[device.type]) :] = 0
    assert default_wired_plan(x, pack_edges(weight), weight) == "sparse"


def test_room_for_edges(device):
    x, weight = make("14x14", device)
    edges = pack_edges(weight)
    roomy = pack_edges(weight, edges.n_edges + 9)
    assert_equal(wired_sum(x, roomy), wired_sum(x, edges))
    back = roomy.transposed
    assert_equal(reference.dense_weight(back.starts, back.sources, back.values, 37), weight.T)
    if device.type == "cuda":
        assert bool(pack_edges(weight, edges.n_edges - 1).values.isnan().all())
    else:
        with pytest.raises(ValueError, match=f"at least {edges.n_edges}, got {edges.n_edges - 1}"):
            pack_edges(weight, edges.n_edges - 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w, e: pack_edges(w.double()), TypeError, "weight of dtype float32, got float64"),
        (lambda x, w, e: pack_edges(w[0]), ValueError, r"\[n_destinations, n_sources\] or with 1x1 behind"),
        (lambda x, w, e: pack_edges(w.view(37, 7, 10, 1)), ValueError, r"got \(37, 7, 10, 1\)"),
        (lambda x, w, e: pack_edges(w, 1.5), TypeError, "n_edges to be an int or None, got float"),
        (lambda x, w, e: pack_edges(w, -1), ValueError, r"n_edges in \[0, 2590\], got -1"),
        (lambda x, w, e: wired_sum(x, w), TypeError, "make them by pack_edges"),
        (lambda x, w, e: wired_sum(x.half(), e), TypeError, "x of dtype float32, got float16"),
        (lambda x, w, e: wired_sum(x[0], e), ValueError, "x of 4 dimensions"),
        (lambda x, w, e: wired_sum(x[:, 1:], e), ValueError, "x of 70 channels, the edges' sources, got 69"),
        (lambda x, w, e: wired_sum(x.to("meta"), e), ValueError, "edges on meta like x, got cpu"),
        (lambda x, w, e: wired_sum(x, e, w.T), ValueError, r"shape \(37, 70\) like the edges, got \(70, 37\)"),
        (lambda x, w, e: wired_sum(x, e, plan="fast"), ValueError, "'sparse' or 'dense', got 'fast'"),
        (lambda x, w, e: wired_sum(x, e, plan="dense"), ValueError, "a weight for plan 'dense', got None"),
        (lambda x, w, e: wired_sum_(x, x, e), ValueError, r"out of shape \(1, 37, 14, 14\), got \(1, 70, 14, 14\)"),
        (lambda x, w, e: wired_sum_(x[:, :37].mT, x, e), ValueError, "out with contiguous maps"),
        (lambda x, w, e: wired_sum_(x[:, :37].clone(), x.requires_grad_(), e), ValueError, "without gradients"),
    ],
)
def test_bad_input(call, error, message):
    x, weight = make("14x14", torch.device("cpu"))
    with pytest.raises(error, match=message):
        call(x, weight, pack_edges(weight))


def test_the_raw_ops_refuse_too():
    x, weight = make("14x14", torch.device("cpu"))
    e = pack_edges(weight)
    op = torch.ops.hiddennet
    lists = (e.starts, e.sources, e.values)
    far, back = e.sources.clone(), e.starts.clone()
    far[3] = 70
    back[5] = back[6] + 1
    out = torch.zeros(1, 37, 14, 14)
    for call, message in (
        (lambda: op.wired_sum(x.double(), *lists), "x of scalar type"),
        (lambda: op.wired_sum(x[0], *lists), "x of 4 dimensions"),
        (lambda: op.wired_sum(x.mT, *lists), "contiguous maps"),
        (lambda: op.wired_sum(x.expand(2, -1, -1, -1), *lists), "whose images do not overlap"),
        (lambda: op.wired_sum(x, e.starts.long(), *lists[1:]), "starts of scalar type"),
        (lambda: op.wired_sum(x, e.starts[:0], *lists[1:]), "one element more"),
        (lambda: op.wired_sum(x, e.starts, e.sources[1:], e.values), "as many sources as values"),
        (lambda: op.wired_sum(x, e.starts, e.sources[1:], e.values[1:]), "starts that do not descend"),
        (lambda: op.wired_sum(x, e.starts - 1, *lists[1:]), "starts that do not descend"),
        (lambda: op.wired_sum(x, back, *lists[1:]), "starts that do not descend"),
        (lambda: op.wired_sum(x, e.starts, far, e.values), r"sources in \[0, 70\), got 70"),
        (lambda: op.wired_sum(x, e.starts, -far, e.values), r"sources in \[0, 70\), got -"),
        (lambda: op.wired_sum(x[:, :0], *lists), r"sources in \[0, 0\)"),
        (lambda: op.wired_sum_(out[:, :9], x, *lists, False), "37 channels"),
        (lambda: op.edge_starts(weight[0]), "weight of 2 dimensions"),
        (lambda: op.edge_starts(weight.T), "contiguous rows"),
        (lambda: op.pack_edges(weight, e.starts[1:], 3), "starts of 38 elements"),
        (lambda: op.pack_edges(weight, e.starts, 2591), r"n_edges in \[0, 2590\]"),
        (lambda: op.pack_edges(weight, e.starts - 1, 9), "starts that do not descend"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()


def test_opcheck(device):
    x, weight = make("7x7, images", device)
    e, op = pack_edges(weight), torch.ops.hiddennet
    lists = (e.starts, e.sources, e.values)
    torch.library.opcheck(op.edge_starts.default, (weight,))
    torch.library.opcheck(op.pack_edges.default, (weight, e.starts, e.n_edges))
    torch.library.opcheck(op.wired_sum.default, (x, *lists))
    torch.library.opcheck(op.wired_sum_.default, (torch.zeros(9, 65, 7, 7, device=device), x, *lists, True))
