"""Splits by permutation, resized crops of padded images, and ImageNet's normalisation of other sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiddennet import data
from hiddennet.data import augment
from hiddennet.data.augment import Augmentation
from hiddennet.data.order import generator, permutation
from hiddennet.data.sets import CIFAR10, IMAGENET

PADDED = Augmentation(pad=4, resized_crop=True, flip=True)


def build(name="synthetic", **arguments):
    return data.build(name, **{"batch_size": 64, "device": "cpu", "seed": 0, "augment": False, **arguments})


@pytest.fixture
def cifar10(tmp_path, write):
    """cifar10 from 200 random training images and 40 test images, with what was written."""
    written = write.cifar(tmp_path, per_batch=40, num_test=40)

    def make(**arguments):
        return build("cifar10", root=tmp_path, **arguments)

    make.written = written
    return make


def pixels_of(loader, found):
    """Images of a pass as uint8, sorted."""
    mean, std = (torch.tensor(moments).view(1, -1, 1, 1) for moments in (found.mean, found.std))
    batches = [((images * std + mean) * 255).round().to(torch.uint8) for images, _ in loader]
    return sorted(image.numpy().tobytes() for image in torch.cat(batches))


def test_permutation_is_torchs_of_the_seed():
    train, held = permutation(50_000, 5_000, 777)
    order = torch.randperm(50_000, generator=torch.Generator().manual_seed(777))
    assert train.tolist() == order[:45_000].tolist()
    assert held.tolist() == order[45_000:].tolist()
    before = torch.random.get_rng_state()
    assert permutation(7, 0, 3)[1].size == 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_permuted_split_of_a_set(cifar10):
    found = cifar10(split="permutation", split_seed=777, validation=0.1)
    _, held = permutation(200, 20, 777)
    images = cifar10.written.train_images
    assert pixels_of(found.validation, found) == sorted(image.tobytes() for image in images[held])
    rest = np.setdiff1d(np.arange(200), held)
    assert pixels_of(found.train, found) == sorted(image.tobytes() for image in images[rest])
    classes = torch.cat([labels for _, labels in found.validation]).bincount(minlength=10)
    assert classes.tolist() == np.bincount(cifar10.written.train_labels[held], minlength=10).tolist()
    assert classes.min() < 2 < classes.max()  # not stratified


@pytest.mark.parametrize("split", ["stratified", "permutation"])
def test_the_split_follows_its_own_seed_alone(cifar10, split):
    def held(**arguments):
        found = cifar10(split=split, **arguments)
        return pixels_of(found.validation, found)

    assert held(split_seed=5) == held(split_seed=5, seed=1)
    assert held(split_seed=5) != held(split_seed=6)
    assert held(seed=5) == held(split_seed=5)
    assert held(limit=100, split_seed=5) == held(limit=100, split_seed=5)


def test_a_permuted_split_within_a_limit_is_disjoint(cifar10):
    found = cifar10(split="permutation", limit=100, validation=0.2)
    train, held = set(pixels_of(found.train, found)), set(pixels_of(found.validation, found))
    assert (len(train), len(held), len(train & held)) == (80, 20, 0)


def test_padded_resized_crops_as_cut_out_and_resized_one_by_one():
    image_module = pytest.importorskip("PIL.Image")
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=source)
    drawn = augment.draw(PADDED, 24, 32, generator(0))
    drawn[:2, :4] = torch.tensor([[0, 0, 40, 40], [3, 1, 37, 30]])  # larger than the image: a low-pass filter
    found = augment.resized_crop_flip(images, drawn, 32, pad=4)
    assert found.shape == images.shape and found.dtype == torch.float32
    for image, row, out in zip(images, drawn.tolist(), found, strict=True):
        top, left, height, width, flip = row
        canvas = image_module.new("RGB", (40, 40))
        canvas.paste(image_module.fromarray(image.permute(1, 2, 0).numpy()), (4, 4))
        picture = canvas.crop((left, top, left + width, top + height))
        picture = picture.resize((32, 32), image_module.Resampling.BILINEAR)
        if flip:
            picture = picture.transpose(image_module.Transpose.FLIP_LEFT_RIGHT)
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
        assert (out - expected).abs().max() <= 1.01  # Pillow rounds to whole levels after either direction


def test_padded_resized_crops_are_drawn_from_the_padded_image():
    top, left, height, width, flip = augment.draw(PADDED, 20_000, 32, generator(1)).T
    assert height.max() == 40 and width.max() == 40
    assert (top >= 0).all() and (top + height <= 40).all()
    assert (left >= 0).all() and (left + width <= 40).all()
    area = (height * width).double() / 1600
    assert area.min() > 0.07 and 0.45 < area.mean() < 0.54
    assert 0.48 < flip.double().mean() < 0.52
    assert torch.equal(
        augment.draw(Augmentation(resized_crop=True), 50, 40, generator(2)),
        augment.draw(Augmentation(pad=4, resized_crop=True), 50, 32, generator(2)),
    )


def test_smaller_resized_crops_have_a_low_pass_filter():
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(16).expand(1, 1, 32, 32)
    whole = torch.tensor([[0, 0, 32, 32, 0]])
    found = augment.resized_crop_flip(stripes, whole, 8)
    torch.testing.assert_close(found[..., 1:-1], torch.full((1, 1, 8, 6), 127.5), rtol=0, atol=0.5)


def test_a_set_with_padded_resized_crops(cifar10):
    found = cifar10(augment=True, augmentation="pad_resized_crop", validation=0.1)
    assert found.augmentation == PADDED == found.train.augmentation
    first, again = (torch.cat([images for images, _ in found.train]) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (180, 3, 32, 32)
    found.train.set_epoch(1)
    assert not torch.equal(first, torch.cat([images for images, _ in found.train]))
    assert pixels_of(found.test, found) == sorted(image.tobytes() for image in cifar10.written.test_images)
    assert not cifar10(augmentation="pad_resized_crop").augmentation
    assert cifar10(augment=True).augmentation == Augmentation(pad=4, flip=True)


def test_imagenets_normalisation(cifar10):
    own, theirs = cifar10(), cifar10(normalization="imagenet")
    assert (own.mean, own.std) == CIFAR10 and (theirs.mean, theirs.std) == IMAGENET
    image, _ = next(iter(theirs.test))
    pixels = torch.from_numpy(cifar10.written.test_images).double() / 255
    mean, std = (torch.tensor(moments, dtype=torch.float64).view(1, 3, 1, 1) for moments in IMAGENET)
    torch.testing.assert_close(image.double(), (pixels - mean) / std, rtol=1e-5, atol=1e-5)


def test_other_numbers_to_normalise_by(cifar10):
    moments = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    named, given = cifar10(normalization="peek_a_boo_cifar10"), cifar10(normalization=[*map(list, moments)])
    assert (named.mean, named.std) == (given.mean, given.std) == moments
    assert torch.equal(next(iter(named.test))[0], next(iter(given.test))[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "random"}, "split: expected one of stratified, permutation, got 'random'"),
        ({"augmentation": "autoaugment"}, "augmentation: expected one of standard, pad_resized_crop"),
        ({"normalization": "none"}, "normalization: expected one of own, imagenet"),
        (
            {"normalization": "imagenet", "in_channels": 1},
            r"expected own, or numbers of 1 channel\(s\), for synthetic, got 'imagenet'",
        ),
        ({"normalization": [[0.5], [0.0]], "in_channels": 1}, "standard deviation above 0"),
        ({"normalization": [[0.5, 0.5], [1.0]]}, "two lists of a number for each channel"),
        ({"normalization": [[0.5], [0.5]]}, r"numbers of 3 channel\(s\), for synthetic, got \[\[0.5\], \[0.5\]\]"),
        ({"split_seed": -1}, "split_seed: expected a whole number from 0 or None, got -1"),
        ({"name": "imagenet", "augmentation": "pad_resized_crop"}, "augmentation: expected standard for imagenet"),
    ],
)
def test_impossible_choices_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
