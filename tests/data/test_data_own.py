"""Data sets of a user's own: arrays, tensors and torchvision's datasets, and what is no data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import datasets

from hiddennet import data
from hiddennet.registry import REGISTRIES


@pytest.fixture
def own(monkeypatch):
    """Register a reader as `mine` for one test, and build it."""

    def build(read, **more):
        things = {**REGISTRIES["data"]._things, "mine": read}
        monkeypatch.setattr(REGISTRIES["data"], "_things", things)
        return data.build("mine", **{"batch_size": 8, "device": "cpu", "seed": 3, **more})

    return build


def arrays(count: int, channels: int = 3, side: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(count)
    return random.randint(0, 256, (count, channels, side, side)).astype(np.uint8), np.arange(count) % 4


def pixels(loader) -> torch.Tensor:
    return torch.cat([images for images, _ in loader])


@pytest.mark.parametrize("as_tensors", [False, True])
def test_arrays(own, as_tensors):
    train, test = arrays(40), arrays(12)

    def read():
        return tuple(tuple(map(torch.from_numpy, part)) if as_tensors else part for part in (train, test))

    found = own(read, validation=0.25)
    assert (found.num_classes, found.in_channels, found.image_size) == (4, 3, 6)
    assert (found.train.num_images, found.validation.num_images, found.test.num_images) == (30, 10, 12)
    unit = train[0].astype(np.float64) / 255
    np.testing.assert_allclose(found.mean, unit.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, unit.std((0, 2, 3)), rtol=1e-12)
    mean, std = (torch.tensor(moments).view(1, -1, 1, 1) for moments in (found.mean, found.std))
    torch.testing.assert_close(((pixels(found.test) * std + mean) * 255).round(), torch.from_numpy(test[0]).float())
    assert not found.augmentation


def test_what_it_is_told_and_what_it_says(own):
    told = {}

    def read(root, seed, image_size):
        told.update(root=root, seed=seed, image_size=image_size)
        return arrays(20, channels=1), arrays(8, channels=1)

    read.mean, read.std, read.num_classes, read.augmentation = (0.5,), (0.25,), 9, data.Augmentation(pad=1, flip=True)
    found = own(read, root="somewhere", image_size=5)
    assert (str(told["root"]), told["seed"], told["image_size"]) == ("somewhere", 3, 5)
    assert (found.mean, found.std, found.num_classes, found.image_size) == ((0.5,), (0.25,), 9, 5)
    assert found.augmentation.pad == 1 and not own(read, augment=False).augmentation
    with pytest.raises(ValueError, match=r"normalization: expected own, or numbers of 1 channel\(s\), for mine"):
        own(read, normalization="imagenet")


def test_torchvisions_datasets(own):
    """FakeData gives PIL images and labels by index, as every dataset of torchvision does."""
    parts = [datasets.FakeData(size, (3, 8, 8), num_classes=3, random_offset=size) for size in (24, 9)]
    found = own(lambda: tuple(parts), normalization="imagenet", validation=0)
    assert (found.num_classes, found.in_channels, found.image_size) == (3, 3, 8)
    mean, std = (torch.tensor(moments).view(1, -1, 1, 1) for moments in (found.mean, found.std))
    wanted = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in parts[1]]).float()
    torch.testing.assert_close(((pixels(found.test) * std + mean) * 255).round(), wanted)
    assert torch.cat([labels for _, labels in found.test]).tolist() == [label for _, label in parts[1]]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (3, r"data 'mine': expected it to return \(training, test\), got int"),
        ((arrays(4), arrays(4), 10), r"expected it to return \(training, test\), got tuple"),
        (((arrays(4)[0], np.arange(3)), arrays(4)), "expected a label for each image, got 3 for 4"),
        ((arrays(0), arrays(4)), "expected a label for each image, got 0 for 0"),
        (((arrays(4)[0] / 255, np.arange(4)), arrays(4)), r"square images, uint8 .* got torch.float64 \(3, 6, 6\)"),
        (((arrays(4)[0][:, :, 1:], np.arange(4)), arrays(4)), r"square images, uint8 .* got torch.uint8 \(3, 5, 6\)"),
        (((arrays(4)[0], np.arange(4) - 1), arrays(4)), "expected labels from 0 to"),
        (([(arrays(1, side=6)[0][0], 0), (arrays(1, side=7)[0][0], 1)], arrays(4)), "expected images of one size"),
        (([], arrays(4)), "expected images in each part, got none"),
        (((arrays(4)[0], np.arange(4) / 2), arrays(4)), r"expected a whole number for each label, got float64 \(4,\)"),
        (
            ((arrays(4)[0], np.arange(4)[:, None]), arrays(4)),
            r"expected a whole number for each label, got int64 \(4, 1\)",
        ),
        (([(arrays(1)[0][0], 0.5)] * 4, arrays(4)), "expected a whole number for each label, got float64"),
        (([(arrays(1)[0][0], "cat")] * 4, arrays(4)), "expected a whole number for each label, got <U3"),
        (((arrays(4)[0], np.array([0, 1, -1, -100])), arrays(4)), "expected labels from 0 to"),
    ],
)
def test_what_is_no_data_set(own, parts, words):
    with pytest.raises(ValueError, match=words):
        own(lambda: parts, validation=0)


@pytest.mark.parametrize("worst", [10, -1, -100])
def test_labels_out_of_the_range_that_is_said(own, worst):
    def read():
        images, labels = arrays(20)
        labels[7] = worst
        return (images, labels), arrays(4)

    read.num_classes = 10
    with pytest.raises(ValueError, match="data 'mine': expected labels from 0 to 9, got others"):
        own(read)
