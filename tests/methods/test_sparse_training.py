"""Masks that move while weights train: SET, RigL, gradual magnitude pruning; densities by layer."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import hiddennet as hn
from hiddennet import config
from hiddennet.methods.layers import layer_counts, layer_densities
from hiddennet.train import experiment

RESNET50 = {  # of torchvision's, [out, in, kernel, kernel]
    name: tuple(module.weight.shape)
    for name, module in __import__("torchvision").models.resnet50().named_modules()
    if isinstance(module, (nn.Conv2d, nn.Linear))
}


@pytest.mark.parametrize("density", [0.1, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("how", ["uniform", "erk"])
def test_layers_keep_the_whole_density(how, density):
    found = layer_densities(how, RESNET50, density)
    sizes = {name: math.prod(shape) for name, shape in RESNET50.items()}
    assert list(found) == list(RESNET50) and all(0.0 < d <= 1.0 for d in found.values())
    kept = sum(found[name] * size for name, size in sizes.items())
    assert kept == pytest.approx(density * sum(sizes.values()), rel=1e-9)
    counts = layer_counts(how, RESNET50, density)
    assert sum(counts.values()) == pytest.approx(kept, abs=len(counts))


def test_erk_as_the_papers_authors_have_it():
    """ResNet-50 at 10 %: layers whose share exceeds 1 are dense, the others in proportion to (sum / product)."""
    found = layer_densities("erk", RESNET50, 0.1)
    assert (
        found["layer1.0.conv1"] == 1.0 and found["layer4.0.conv2"] < found["layer3.0.conv2"] < found["layer2.0.conv2"]
    )
    ratios = {n: found[n] / (sum(s) / math.prod(s)) for n, s in RESNET50.items() if found[n] < 1.0}
    assert max(ratios.values()) == pytest.approx(min(ratios.values()), rel=1e-9)
    by_hand = layer_densities("erk", {"a": (10, 4), "b": (20, 10), "c": (2, 20)}, 0.5)
    # sums 14, 30, 22 of 40, 200, 40 weights: e = 140 / 66; c would keep 1.17 of itself: whole; then e = 100 / 44
    assert by_hand == pytest.approx({"a": 14 / 40 * 100 / 44, "b": 30 / 200 * 100 / 44, "c": 1.0})


@pytest.fixture
def settings(tmp_path):
    def make(name: str, epochs: int = 3, **method):
        return config.parse(
            {
                "name": name,
                "runs": str(tmp_path / "runs"),
                "model": {"name": "digits_conv"},
                "data": {"name": "digits", "batch_size": 64, "limit": 640},
                "method": {"name": name, **method},
                "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
                "train": {"epochs": epochs, "device": "cpu"},
            }
        )

    return make


class Watched:
    """A run whose steps are looked at: the masks, weights and gradients around each change."""

    def __init__(self, monkeypatch, kind: str) -> None:
        from hiddennet.methods import METHODS

        self.changes, original = [], METHODS[kind].before_update

        def before_update(method, model, step):
            due = method.fraction(step)
            layers = hn.hidden_layers(model)
            old = {n: (m.mask(), m.stored.detach().clone(), m.stored.grad.clone()) for n, m in layers.items()}
            original(method, model, step)
            if due:
                new = {n: (m.mask(), m.stored.detach().clone()) for n, m in layers.items()}
                assert all(p.grad is None for p in model.parameters())
                self.changes.append((step, due, old, new))
            else:
                assert all(bool((old[n][2][~old[n][0]] == 0).all()) for n in old)  # what is pruned does not learn

        monkeypatch.setattr(METHODS[kind], "before_update", before_update)


@pytest.mark.parametrize("kind", ["set", "rigl"])
@pytest.mark.parametrize("densities", ["uniform", "erk"])
def test_small_weights_go_and_others_grow_from_zero(settings, monkeypatch, kind, densities):
    watched = Watched(monkeypatch, kind)
    record = experiment.run(settings(kind, density=0.2, period=4, densities=densities))
    # 576 images after validation, 9 steps an epoch, 27 in all: changes at 4, 8, 12, 16, 20, before 0.75 * 27 = 20.25
    assert [step for step, *_ in watched.changes] == [4, 8, 12, 16, 20]
    for step, due, old, new in watched.changes:
        assert due == pytest.approx(0.15 * (1 + math.cos(math.pi * step / 20.25)))
        for name, (before, weight, gradient) in old.items():
            after, grown_weight = new[name]
            count = int(before.sum())
            moved = int(due * count)
            assert int(after.sum()) == count
            stays = hn.ops.topk_mask(torch.where(before, weight.abs(), -1.0), count - moved)
            grown = after & ~stays
            assert bool((after | ~stays).all()) and int(grown.sum()) == moved
            assert bool((grown_weight[grown & ~before] == 0).all())
            if kind == "rigl" and moved and not bool(after.all()):
                left = ~after
                assert float(gradient.abs()[grown].min()) >= float(gradient.abs()[left].max())
    assert record["density"] == pytest.approx(0.2, abs=2e-3)


def test_rigl_and_set_differ_and_both_learn(settings):
    records = {
        kind: experiment.run(settings(kind, 6, density=0.2, **({} if kind == "random" else {"period": 5})))
        for kind in ("random", "set", "rigl")
    }
    assert all(record["test_top1"] > 0.7 for record in records.values())
    masks = [hn.masks(hn.load(f"{r['run']}/artifact.safetensors")) for r in records.values()]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert any(not torch.equal(masks[one][name], masks[other][name]) for name in masks[0])


def test_gradual_magnitude_follows_the_cubic_and_never_takes_back(settings, monkeypatch):
    from hiddennet.methods import METHODS

    kind, seen = METHODS["gradual_magnitude"], []
    original = kind.after_update

    def after_update(method, model, step):
        original(method, model, step)
        seen.append((step, {name: layer.mask() for name, layer in hn.hidden_layers(model).items()}))

    monkeypatch.setattr(kind, "after_update", after_update)
    record = experiment.run(settings("gradual_magnitude", density=0.1, period=3))
    end = int(0.75 * 27)
    for (_, before), (step, after) in itertools.pairwise(seen):
        for name, mask in after.items():
            assert not bool((mask & ~before[name]).any())
            if step % 3 == 0 and step < end:
                sparsity = 0.9 * (1 - (1 - step / end) ** 3)
                assert int((~mask).sum()) == pytest.approx(sparsity * mask.numel(), abs=1)
    assert all(float(mask.float().mean()) == pytest.approx(0.1, abs=0.01) for mask in seen[-1][1].values())
    assert record["density"] == pytest.approx(0.1, abs=2e-3) and record["best_epoch"] == 3


@pytest.mark.parametrize("kind", ["set", "rigl", "gradual_magnitude"])
def test_a_stopped_run_goes_on_to_the_bit(settings, kind, monkeypatch):
    whole = experiment.run(settings(kind, density=0.2, period=4))
    from hiddennet.train import session

    original, limit = session.Session._epoch, []

    def epoch(self, *arguments):
        if self.progress.epoch == 1 and not limit:
            limit.append(1)
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(session.Session, "_epoch", epoch)
    again = settings(kind, density=0.2, period=4)
    again = config.parse({**again.model_dump(mode="json"), "runs": again.runs + "2"})
    with pytest.raises(KeyboardInterrupt):
        experiment.run(again)
    resumed = experiment.run(again)
    for key in ("test_top1", "test_loss", "density"):
        assert resumed[key] == whole[key], key
    one, two = (hn.load(f"{r['run']}/artifact.safetensors") for r in (whole, resumed))
    for (name, a), (_, b) in zip(hn.masks(one).items(), hn.masks(two).items(), strict=True):
        assert torch.equal(a, b), name


def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"method\.begin: expected less than method\.end \(0\.5\), got 0\.6"):
        settings("gradual_magnitude", begin=0.6, end=0.5)
    with pytest.raises(
        ValueError, match=r"method\.densities: expected one of uniform, erk, got 'erg'; did you mean 'erk'"
    ):
        settings("rigl", densities="erg")
    with pytest.raises(ValueError, match=r"method\.train_weights"):
        settings("rigl", train_weights=False)
