"""Batched augmentation against an image-by-image one, and the random numbers behind it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hiddennet.data import augment
from hiddennet.data.augment import Augmentation
from hiddennet.data.order import generator


def pictures(count, channels=3, side=32, seed=0):
    source = torch.Generator().manual_seed(seed)
    shape = (count, channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=source)


def draws(augmentation, count, side=32, seed=0):
    return augment.draw(augmentation, count, side, generator(seed))


def crop_flip_slowly(image, top, left, flip, pad):
    height, width = image.shape[1:]
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y + top - pad, (width - 1 - x if flip else x) + left - pad
            if 0 <= from_y < height and 0 <= from_x < width:
                out[:, y, x] = image[:, from_y, from_x]
    return out


@pytest.mark.parametrize(("channels", "side", "pad"), [(3, 32, 4), (1, 28, 4), (2, 5, 1), (1, 3, 0)])
def test_crop_and_flip_image_by_image(channels, side, pad):
    images = pictures(12, channels, side)
    drawn = draws(Augmentation(pad=pad, flip=True), 12, side)
    found = augment.crop_flip(images, drawn, pad)
    assert found.dtype == torch.uint8
    for image, row, out in zip(images, drawn.tolist(), found, strict=True):
        assert torch.equal(out, crop_flip_slowly(image, row[0], row[1], row[4], pad))


def test_crop_and_flip_by_hand():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    rows = torch.tensor([[1, 1, 3, 3, 0], [1, 1, 3, 3, 1], [0, 0, 3, 3, 0], [2, 1, 3, 3, 1]])
    found = augment.crop_flip(image.expand(4, 1, 3, 3), rows, 1)[:, 0].tolist()
    assert found[0] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert found[1] == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert found[2] == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]
    assert found[3] == [[6, 5, 4], [9, 8, 7], [0, 0, 0]]


def test_drawn_shifts_and_flips_are_uniform():
    drawn = draws(Augmentation(pad=4, flip=True), 90_000)
    for column, values in ((0, 9), (1, 9), (4, 2)):
        counts = torch.bincount(drawn[:, column], minlength=values)
        expected = 90_000 / values
        assert len(counts) == values
        assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    assert torch.corrcoef(drawn[:, [0, 1, 4]].T.double()).fill_diagonal_(0).abs().max() < 0.02
    assert torch.equal(drawn[:, 2:4], torch.full((90_000, 2), 32))


def test_parts_can_be_left_out():
    assert not Augmentation()
    only_flip = draws(Augmentation(flip=True), 50)
    assert only_flip[:, :2].sum() == 0
    assert 0 < only_flip[:, 4].sum() < 50
    assert draws(Augmentation(pad=2), 50)[:, 4].sum() == 0


def test_resized_crops_have_the_published_areas_and_ratios():
    top, left, height, width, _ = draws(Augmentation(resized_crop=True), 40_000, 256).double().T
    area, ratio = height * width / 256**2, width / height
    assert area.min() > 0.078 and area.max() <= 1
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    assert (top >= 0).all() and (top + height <= 256).all()
    assert (left >= 0).all() and (left + width <= 256).all()
    # the ratio is log-uniform on both sides of 1; where a crop lies is uniform over where it fits
    assert ratio.log().mean().abs() < 0.01
    small = (height < 128) & (width < 128)
    where = (top / (256 - height))[small]
    assert abs(where.mean() - 0.5) < 0.01
    assert abs(where.std() - math.sqrt(1 / 12)) < 0.01


def test_resized_crops_as_cut_out_and_resized_one_by_one():
    image_module = pytest.importorskip("PIL.Image")
    images = pictures(16)
    drawn = draws(Augmentation(resized_crop=True, flip=True), 16)
    found = augment.resized_crop_flip(images, drawn, 48)
    assert found.shape == (16, 3, 48, 48)
    for image, row, out in zip(images, drawn.tolist(), found, strict=True):
        top, left, height, width, flip = row
        picture = image_module.fromarray(image.permute(1, 2, 0).numpy())
        picture = picture.crop((left, top, left + width, top + height))
        picture = picture.resize((48, 48), image_module.Resampling.BILINEAR)
        if flip:
            picture = picture.transpose(image_module.Transpose.FLIP_LEFT_RIGHT)
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
        # Pillow rounds to whole levels after either direction
        assert (out - expected).abs().max() <= 1.01


def test_a_whole_crop_at_the_same_size_changes_nothing():
    images = pictures(3, side=17)
    whole = torch.tensor([[0, 0, 17, 17, 0]]).expand(3, 5)
    found = augment.resized_crop_flip(images, whole, 17)
    torch.testing.assert_close(found, images.float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [16, 48])
def test_resize_is_that_of_pillow(size):
    image_module = pytest.importorskip("PIL.Image")
    images = pictures(4)
    found = augment.resize(images, size)
    for image, out in zip(images, found, strict=True):
        picture = image_module.fromarray(image.permute(1, 2, 0).numpy())
        picture = picture.resize((size, size), image_module.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
        assert (out - expected).abs().max() <= 1.01


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalise(channels_last):
    images = pictures(2, 3, 7)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    shape = (1, 3, 1, 1)
    found = augment.normalise(images, mean.view(shape), std.view(shape), channels_last=channels_last)
    expected = (images.double() / 255 - mean.view(shape)) / std.view(shape)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=layout)


def test_normalise_leaves_its_input_alone():
    images = torch.ones(1, 1, 2, 2)
    one = torch.ones(1, 1, 1, 1)
    assert augment.normalise(images, one, one).data_ptr() != images.data_ptr()
    assert torch.equal(images, torch.ones(1, 1, 2, 2))
