"""Mixup and the losses of mixed labels: by the formula, against the original's values, resumed and in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hiddennet import methods
from hiddennet.config import ConfigError
from hiddennet.optim import whole_gradients
from hiddennet.train.engine import Engine
from hiddennet.train.mixup import Mixed, Mixup
from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter
from tests.golden import Golden
from tests.train.test_engine import engine_and_batch

CPU = torch.device("cpu")


def loss_of(make, smoothing: float, logits: np.ndarray, targets: np.ndarray) -> float:
    """The mean loss of a run's engine with this smoothing."""
    config = make(f"train.label_smoothing={smoothing}", "method.name=dense")
    engine = Engine(nn.Linear(1, 1), config, CPU, Ranks(), methods.create(config.setting()))
    return float(engine._loss_sum(torch.from_numpy(logits), torch.from_numpy(targets))) / len(logits)


def test_losses_are_the_originals(make):
    values = Golden("dnw")
    logits, labels = values["J/ls_logits"], values["J/ls_target"]
    assert loss_of(make, 0.1, logits, labels) == pytest.approx(float(values["J/label_smoothing_0.1"]), rel=1e-6)
    assert loss_of(make, 0.0, logits, labels) == pytest.approx(float(values["J/ce"]), rel=1e-6)
    soft = values["J/soft_target"].astype(np.float32)
    assert loss_of(make, 0.1, logits, soft) == pytest.approx(float(values["J/nll_multilabel_0.1"]), rel=1e-6)


def test_images_and_labels_are_blended_in_one_proportion(device):
    images = torch.randn(9, 2, 4, 4, device=device)
    labels = torch.arange(9, device=device) % 5
    mixup = Mixup(0.4, seed=3)
    mixed, found = mixup(images, labels, step=7)
    others = mixed - found.share * images
    far = (others[:, None] - (1 - found.share) * images).abs().amax((2, 3, 4))
    order = far.argmin(1).tolist()
    assert sorted(order) == list(range(9)) and order != list(range(9))
    torch.testing.assert_close(mixed, found.share * images + (1 - found.share) * images[order])
    assert torch.equal(found.labels, labels) and torch.equal(found.partners, labels[order])
    targets = found.targets(6)
    assert targets.shape == (9, 6)
    own = F.one_hot(labels, 6) * found.share
    torch.testing.assert_close(targets, own + F.one_hot(labels[order], 6) * (1 - found.share))
    assert torch.equal(found.larger, labels if found.share >= 0.5 else labels[order])


def test_draws_are_those_of_seed_and_step():
    images, labels = torch.randn(8, 3), torch.arange(8)
    first = Mixup(0.2, seed=1)(images, labels, 5)
    torch.manual_seed(99)
    again = Mixup(0.2, seed=1)(images, labels, 5)
    assert torch.equal(first[0], again[0]) and first[1].share == again[1].share
    others = [Mixup(0.2, seed=2)(images, labels, 5), Mixup(0.2, seed=1)(images, labels, 6)]
    assert all(first[1].share != other[1].share for other in others)
    neighbour = Mixup(0.2, seed=1, rank=1)(images, labels, 5)
    assert neighbour[1].share == first[1].share
    assert not torch.equal(neighbour[1].partners, first[1].partners)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_proportions_are_of_the_beta_distribution(alpha):
    """Its mean is 1/2, its variance 1 / (4 (2 alpha + 1))."""
    shares = torch.tensor([Mixup(alpha, seed=0).share(step) for step in range(4000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    assert float(shares.min()) >= 0 and float(shares.max()) <= 1


def test_a_step_is_that_of_the_blended_batch(make):
    """The gradient is c of the loss of one label and 1 - c of the other's, on blended images."""
    engine, images, labels = engine_and_batch(make("train.mixup=1.0", "train.label_smoothing=0.1"))
    twin, _, _ = engine_and_batch(make())
    mixed, found = Mixup(1.0, seed=0)(images, labels, 4)
    meter = Meter(CPU)
    with whole_gradients():
        engine.step(images, labels, meter, len(images), 4)
    logits = twin.model(mixed)
    own, other = (F.cross_entropy(logits, y, label_smoothing=0.1) for y in (found.labels, found.partners))
    loss = found.share * own + (1 - found.share) * other
    loss.backward()
    loss = loss.detach()
    for got, want in zip(engine.learning_parameters(), twin.learning_parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad)
    scores = meter.read()[0]
    assert scores.loss == pytest.approx(float(loss), rel=1e-5)
    assert scores.top1 == float((logits.argmax(1) == found.larger).float().mean())


def test_accumulated_parts_are_mixed_as_the_whole_batch(make):
    whole, images, labels = engine_and_batch(make("train.mixup=1.0"))
    split, _, _ = engine_and_batch(make("train.mixup=1.0", "train.accumulate=3"))
    for step in range(3):
        whole.step(images, labels, Meter(CPU), len(images), step)
        split.step(images, labels, Meter(CPU), len(images), step)
    for a, b in zip(whole.learning_parameters(), split.learning_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_chunks_keep_pairs_together():
    whole = Mixed(torch.arange(5), torch.arange(5).flip(0), 0.25, torch.arange(5).flip(0))
    parts = whole.chunk(2)
    assert [part.labels.tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert [part.partners.tolist() for part in parts] == [[4, 3, 2], [1, 0]]
    assert all(torch.equal(part.larger, part.partners) for part in parts)


def test_evaluation_does_not_mix(make):
    plain, images, labels = engine_and_batch(make())
    mixing, _, _ = engine_and_batch(make("train.mixup=1.0"))
    assert plain.evaluate([(images, labels)]) == mixing.evaluate([(images, labels)])


def test_what_mixup_cannot_do_is_refused(make):
    with pytest.raises(ConfigError, match="train.mixup: expected"):
        make("train.mixup=-1")
    with pytest.raises(
        ConfigError, match="train.mixup: expected 0 with a text, whose words cannot be blended, got 0.2"
    ):
        make("train.mixup=0.2", "data.name=text_folder", "model.name=lstm_lm")
