"""Sets of image files read by workers: values against torchvision, determinism, splits."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from hiddennet import data
from hiddennet.data import folders
from hiddennet.data.order import derived_seed
from hiddennet.data.streaming import random_crop

CLASSES = ("ant", "bee", "cat")


def shapes(source):
    return int(source.randint(20, 60)), int(source.randint(20, 60))


@pytest.fixture
def folder(tmp_path, write):
    """An image folder of 3 x 8 training and 3 x 2 ``val`` images of unequal sizes."""
    train = [f"{c}/{i:02}.png" for c in CLASSES for i in range(8)]
    test = [f"{c}/{i:02}.png" for c in CLASSES for i in range(2)]
    pictures = {
        "train": write.images(tmp_path / "train", train, side=shapes),
        "val": write.images(tmp_path / "val", test, side=shapes, seed=1),
    }
    return tmp_path, pictures


def build(root, name="image_folder", **arguments):
    defaults = {"batch_size": 5, "device": "cpu", "seed": 0, "workers": 0, "image_size": 32}
    return data.build(name, root=root, **{**defaults, **arguments})


def everything(loader):
    batches = list(loader)
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(everything(one), everything(other), strict=True))


@pytest.mark.parametrize("size", [32, 224])
def test_test_images_are_resized_and_cropped_as_torchvision_does(folder, size):
    transforms = pytest.importorskip("torchvision.transforms")
    datasets = pytest.importorskip("torchvision.datasets")
    root, _ = folder
    pipeline = transforms.Compose(
        [
            transforms.Resize(round(size * 256 / 224)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    theirs = datasets.ImageFolder(str(root / "val"), pipeline)
    images, labels = everything(build(root, image_size=size).test)
    assert labels.tolist() == theirs.targets
    expected = torch.stack([image for image, _ in theirs])
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-5)


def test_training_images_are_crops_of_the_drawn_box(folder):
    image_module = pytest.importorskip("PIL.Image")
    root, pictures = folder
    found = build(root, validation=0)
    found.train.set_epoch(2)
    images, labels = everything(found.train)
    order = found.train.order.epoch(2).tolist()
    names = sorted(pictures["train"])
    flips = 0
    for image, label, index in zip(images, labels.tolist(), order, strict=True):
        pixels = pictures["train"][names[index]]
        assert CLASSES[label] == names[index].split("/")[0]
        source = random.Random(derived_seed(0, "augmentation", 2, index))
        left, top, right, bottom = random_crop(*pixels.shape[:2], source)
        flip = source.random() < 0.5
        picture = image_module.fromarray(pixels[top:bottom, left:right])
        cut = np.array(picture.resize((32, 32), image_module.Resampling.BILINEAR))
        cut = cut[:, ::-1] if flip else cut
        flips += flip
        expected = torch.from_numpy(cut.copy()).permute(2, 0, 1)
        expected = (expected / 255 - found.train.mean[0]) / found.train.std[0]
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)
    assert 4 < flips < 20


def test_random_crops_have_the_published_areas_and_ratios():
    source = random.Random(0)
    boxes = np.array([random_crop(200, 300, source) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    assert left.min() == 0 and top.min() == 0
    assert right.max() == 300 and bottom.max() == 200
    assert (width * height / 60000).min() > 0.078 and (width * height).max() <= 60000
    assert (width / height).min() > 0.73 and (width / height).max() < 1.36
    small = (width < 100) & (height < 100)
    assert abs((top[small] / (200 - height[small])).mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 1000, (493, 0, 506, 10)), (1000, 10, (0, 493, 10, 506)), (1, 1, (0, 0, 1, 1))],
)
def test_very_long_images_fall_back_to_the_central_crop(height, width, box):
    assert box in {random_crop(height, width, random.Random(seed)) for seed in range(40)}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_batches_do_not_depend_on_the_number_of_workers(folder, part):
    alone, helped = (getattr(build(folder[0], workers=n, validation=0.25), part) for n in (0, 2))
    for epoch in (0, 1):
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        assert equal(alone, helped)


def test_an_epoch_is_a_pure_function_of_seed_and_epoch(folder):
    one, other = build(folder[0]).train, build(folder[0]).train
    first = everything(one)
    assert equal(one, other)
    state = torch.get_rng_state()
    one.set_epoch(1)
    second = everything(one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], everything(build(folder[0], seed=1).train)[0])
    one.set_epoch(0)
    assert equal(one, other)


def test_the_split_is_stratified_and_its_validation_images_plain(folder):
    found = build(folder[0], validation=0.25)
    assert (found.num_classes, found.in_channels, found.image_size) == (3, 3, 32)
    assert torch.bincount(everything(found.validation)[1]).tolist() == [2, 2, 2]
    assert torch.bincount(everything(found.train)[1]).tolist() == [6, 6, 6]
    plain = build(folder[0], validation=0.25, augment=False)
    assert equal(found.validation, plain.validation)
    whole = everything(build(folder[0], validation=0, augment=False).train)[0]
    parts = torch.cat([everything(plain.train)[0], everything(plain.validation)[0]])
    assert {i.numpy().tobytes() for i in whole} == {i.numpy().tobytes() for i in parts}
    assert build(folder[0], validation=0).validation is None


def test_val_and_test_folders(tmp_path, write, folder):
    root, _ = folder
    write.images(root / "test", [f"{c}/0.png" for c in CLASSES], seed=2, side=shapes)
    both = build(root)
    assert (both.train.num_images, both.validation.num_images, both.test.num_images) == (24, 6, 3)
    none = build(root, validation=0)
    assert none.validation is None and none.test.num_images == 3
    half = build(root, limit=12)
    assert (half.train.num_images, half.validation.num_images, half.test.num_images) == (12, 3, 2)


def test_imagenet_layout_never_reads_its_unlabelled_test_folder(tmp_path, write):
    root = tmp_path / "imagenet"
    write.images(root / "train", [f"n{c}/{i}.JPEG" for c in (1, 2) for i in range(5)])
    write.images(root / "val", [f"n{c}/{i}.JPEG" for c in (1, 2) for i in range(2)], seed=1)
    write.images(root / "test", ["1.JPEG"], seed=2)
    found = data.build("imagenet", root=tmp_path, batch_size=4, device="cpu", seed=0, workers=0, validation=0.2)
    assert found.image_size == 224
    counts = found.train.num_images, found.validation.num_images, found.test.num_images
    assert counts == (8, 2, 4)
    assert next(iter(found.train))[0].shape == (4, 3, 224, 224)


def test_ranks_share_the_images(folder):
    whole = build(folder[0], batch_size=6)
    ranks = [build(folder[0], batch_size=3, rank=r, world_size=2) for r in range(2)]
    together = torch.cat([everything(rank.train)[0] for rank in ranks])
    assert len({len(rank.train) for rank in ranks}) == 1
    expected = everything(whole.train)[0]
    assert {i.numpy().tobytes() for i in together} == {i.numpy().tobytes() for i in expected}


def test_channels_last(folder):
    plain, other = build(folder[0]).train, build(folder[0], channels_last=True).train
    assert equal(plain, other)
    assert next(iter(other))[0].is_contiguous(memory_format=torch.channels_last)


def test_grey_and_paletted_files_become_rgb(folder):
    image_module = pytest.importorskip("PIL.Image")
    root, _ = folder
    grey = image_module.fromarray(np.full((40, 40), 77, np.uint8))
    grey.save(root / "val" / "ant" / "00.png")
    grey.convert("P").save(root / "val" / "ant" / "01.png")
    test = build(root).test
    images, _ = everything(test)
    levels = (images[:2] * test.std + test.mean) * 255
    torch.testing.assert_close(levels, torch.full_like(levels, 77), rtol=0, atol=1e-3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(folder, workers):
    root, _ = folder
    path = root / "val" / "bee" / "01.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        ValueError, match=r"bee/01\.png: expected an image, got .*; replace or delete the file$"
    ) as caught:
        list(build(root, workers=workers).test)
    assert "\n" not in str(caught.value)


def test_folders_without_images_or_of_unknown_classes_are_refused(folder, tmp_path):
    root, _ = folder
    (root / "val" / "dog").mkdir()
    with pytest.raises(ValueError, match="val: expected the classes of the training images, got "):
        build(root)
    empty = tmp_path / "empty"
    (empty / "train" / "ant").mkdir(parents=True)
    (empty / "val").mkdir()
    with pytest.raises(ValueError, match="train: expected images in folders named by class"):
        build(empty)
    with pytest.raises(FileNotFoundError, match=r"expected the folder .*test or .*val, got none"):
        (empty / "val").rmdir()
        build(empty)


def test_the_whole_of_a_share_is_what_one_process_reads(folder):
    share = build(folder[0], rank=1, world_size=2, batch_size=4, workers=2).train
    alone = build(folder[0], batch_size=4).train
    whole = share.whole()
    for loader in (whole, alone):
        loader.set_epoch(3)
    assert len(share) < len(whole) == len(alone)
    for (images, labels), (others, targets) in zip(whole, alone, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, targets)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_images_of_more_bits_are_scaled_or_refused(tmp_path, mode):
    """16 bits lose their lower half, as PIL does it with colours; 32 bits have no known white."""
    numbers = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    kinds = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}
    Image.frombytes(mode, (8, 8), numbers.astype(kinds[mode]).tobytes()).save(tmp_path / "a.tif")
    images = folders.image_list(tmp_path, [("a.tif", 0)])
    if not mode.startswith("I;16"):
        with pytest.raises(
            ValueError, match=rf"a.tif: expected an image, got numbers of 32 bits \(PIL's mode {mode}\)"
        ):
            images.open(0)
        return
    assert np.array_equal(np.asarray(images.open(0))[..., 1], numbers // 256)
    (tmp_path / "a.tif").write_bytes(b"P5 8 8 65535\n" + numbers.astype(">u2").tobytes())  # which PIL calls I, too
    assert np.array_equal(np.asarray(images.open(0))[..., 0], numbers // 256)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_sentence(folder, workers):
    """Also where a worker has come upon it, whose trace torch puts into the message."""
    root, _ = folder
    (root / "train" / "bee" / "03.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"^\S+train/bee/03.png: expected an image, got .*; replace or delete the file$"
    ):
        everything(build(root, workers=workers).train)
