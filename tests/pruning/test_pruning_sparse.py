"""Training from masks, selection of float64 scores, and SynFlow as one CUDA graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import ops, pruning
from hiddennet.pruning.selection import strike
from tests.pruning.net import Net

pytestmark = pytest.mark.usefixtures("one_thread")


def test_two_lines_from_pruning_to_training():
    """Only kept weights move; the others do not reach the output."""
    model = Net()
    first = model.c1.weight.detach().clone()
    masks = pruning.prune(model, "synflow", 0.3, iterations=20, input_shape=(3, 6, 6))
    optimizer = torch.optim.SGD(pruning.hide(model, masks).parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 3, 6, 6), torch.arange(8) % 5
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    kept = masks["c1.weight"]
    assert torch.equal(hn.masks(model)["c1"], kept)
    weight = model.c1.stored
    assert torch.equal(weight[~kept], first[~kept]) and not torch.equal(weight[kept], first[kept])
    frozen = pruning.hide(Net(), masks, trainable=False)
    assert not frozen.c1.stored.requires_grad and frozen.b1.weight.requires_grad


def test_hide_refuses_what_it_cannot_hide():
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Linear(4, 4))
    hidden = pruning.hide(net, pruning.prune(net, "magnitude", 0.5, exclude="1"))
    with pytest.raises(ValueError, match="expected 0.weight to be .* got weight of HiddenConv1d; exclude the layer"):
        pruning.hide(hidden, {"0.weight": torch.ones(3, 2, 3, dtype=torch.bool)})
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Linear(4, 4))
    with pytest.raises(ValueError, match="expected 1.bias to be .* got bias of Linear"):
        pruning.hide(net, pruning.prune(net, "magnitude", 0.5, biases=True, exclude="0"))


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("kind", ["spread", "ties", "close", "signed"])
def test_float64_scores_are_ranked_exactly(kind, scope, captured):
    """Also those that float32 cannot tell apart; all ties go."""
    scores = [torch.rand(40, 31).double(), torch.rand(7, 3, 3, 3).double(), torch.rand(257).double()]
    if kind == "ties":
        scores = [(s * 4).round() for s in scores]
    if kind == "close":
        scores = [1 + s * 2.0**-24 for s in scores]
    if kind == "signed":
        scores = [s - 0.5 for s in scores]
    full = [ops.pack_mask(torch.ones_like(s, dtype=torch.bool)) for s in scores]
    planes = [plane.clone() for plane in full]
    counts = [900] if scope == "global" else [700, 0, 200]
    strike(scores, planes, full, counts, scope=scope, captured=captured)
    if scope == "global":
        threshold = torch.cat([s.flatten() for s in scores]).kthvalue(900).values
        want = [s > threshold for s in scores]
    else:
        want = [
            s > s.flatten().kthvalue(k).values if k else s > -torch.inf for s, k in zip(scores, counts, strict=True)
        ]
    assert all(torch.equal(ops.unpack_mask(p, s.shape), w) for p, s, w in zip(planes, scores, want, strict=True))


@pytest.mark.cuda
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_one_cuda_graph_is_the_schedule(scope, dtype, monkeypatch):
    """The captured schedule's masks are those of the CPU, up to 1e-5 of the weights in float64."""
    from hiddennet.models import build
    from hiddennet.pruning import run, synflow_graph

    taken = []

    def whole(loop):
        taken.append(synflow_graph.whole_schedule(loop))
        return taken[-1]

    monkeypatch.setattr(run, "whole_schedule", whole)
    model = build("resnet20", num_classes=10)
    how = {"iterations": 10, "scope": scope, "input_shape": (3, 32, 32), "dtype": dtype}
    want = pruning.prune(model, "synflow", 0.3, **how)
    found = pruning.prune(model.cuda(), "synflow", 0.3, **how)
    assert taken == [True]
    different = sum(int((found[name].cpu() != want[name]).sum()) for name in want)
    allowed = 1e-5 if dtype is None else 1e-3
    assert different <= allowed * sum(mask.numel() for mask in want.values())
