"""Loss and accuracy by eye: ties, NaN, few classes, sums over batches."""

from __future__ import annotations

import pytest
import torch

from hiddennet.train.ranks import Ranks
from hiddennet.train.scores import Meter, rank_of_label

NAN = float("nan")


@pytest.mark.parametrize(
    "logits, label, rank",
    [
        ([3.0, 1.0, 2.0], 0, 0),
        ([3.0, 1.0, 2.0], 1, 2),
        ([1.0, 1.0, 1.0], 0, 0),  # equal logits: the lower class comes first, as in argmax
        ([1.0, 1.0, 1.0], 2, 2),
        ([NAN, 1.0, 2.0], 2, 1),
        ([NAN, NAN, NAN], 0, 3),  # a NaN is never right
    ],
)
def test_rank(logits, label, rank):
    assert rank_of_label(torch.tensor([logits]), torch.tensor([label])).tolist() == [rank]


def test_rank_agrees_with_argmax():
    logits = torch.randint(0, 4, (500, 7)).float()
    labels = torch.randint(0, 7, (500,))
    right = logits.numpy().argmax(1) == labels.numpy()
    assert torch.equal(rank_of_label(logits, labels) == 0, torch.from_numpy(right))


def test_meter_weighs_batches_by_their_images():
    meter = Meter(torch.device("cpu"))
    logits = torch.eye(6)[[0, 1, 5]]
    meter.add(torch.tensor(6.0), logits, torch.tensor([0, 1, 5]))
    meter.add(torch.tensor(2.0), logits[:1], torch.tensor([5]))
    scores, finite = meter.read()
    assert (scores.images, scores.loss, scores.top1, scores.top5) == (4, 2.0, 0.75, 0.75)
    assert finite
    assert scores.columns("test") == {"test_loss": 2.0, "test_top1": 0.75, "test_top5": 0.75}


@pytest.mark.parametrize("loss", [NAN, float("inf")])
def test_meter_remembers_a_loss_that_is_not_finite(loss):
    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(loss), torch.eye(3), torch.arange(3))
    meter.add(torch.tensor(1.0), torch.eye(3), torch.arange(3))
    assert not meter.read()[1]


def test_meter_goes_on_from_its_state_to_the_bit():
    def fill(meter: Meter, batches: range) -> Meter:
        for i in batches:
            generator = torch.Generator().manual_seed(i)
            logits = torch.randn(7, 12, generator=generator)
            meter.add(logits.sum(), logits, torch.arange(7))
        return meter

    whole = fill(Meter(torch.device("cpu")), range(40))
    first = fill(Meter(torch.device("cpu")), range(19))
    second = Meter(torch.device("cpu"))
    second.restore([first.state()], Ranks())
    assert fill(second, range(19, 40)).read() == whole.read()
    assert whole.read()[0].images == 280
