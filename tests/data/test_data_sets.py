"""Reading each set from its standard layout, value by value."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from hiddennet import data


def build(name, root="nowhere", **arguments):
    defaults = {"batch_size": 1000, "device": "cpu", "seed": 0, "validation": 0, "augment": False}
    return data.build(name, root=root, **{**defaults, **arguments})


def everything(loader):
    """All images, back in 0 ... 255, and labels, in the loader's order."""
    batches = list(loader)
    images = torch.cat([images for images, _ in batches])
    pixels = ((images * loader.std + loader.mean) * 255).round().to(torch.uint8)
    return pixels.numpy(), torch.cat([labels for _, labels in batches]).numpy()


def in_file_order(loader):
    """As ``everything``, with the training order undone."""
    pixels, labels = everything(loader)
    back = loader.order.epoch(0).argsort().numpy()
    return pixels[back], labels[back]


def assert_reads(found, images, labels):
    train, test = in_file_order(found.train), everything(found.test)
    for (pixels, numbers), (expected, expected_numbers) in zip(
        (train, test), zip(images, labels, strict=True), strict=True
    ):
        assert np.array_equal(pixels, expected)
        assert np.array_equal(numbers, expected_numbers)


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_cifar10(tmp_path, write, below):
    files = write.cifar(tmp_path / below)
    found = build("cifar10", tmp_path)
    assert (found.num_classes, found.in_channels, found.image_size) == (10, 3, 32)
    assert (found.mean, found.std) == ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
    assert_reads(found, (files.train_images, files.test_images), (files.train_labels, files.test_labels))


def test_cifar100_takes_the_fine_labels(tmp_path, write):
    files = write.cifar(tmp_path, classes=100, per_batch=200, num_test=100)
    found = build("cifar100", tmp_path)
    assert found.num_classes == 100
    assert_reads(found, (files.train_images, files.test_images), (files.train_labels, files.test_labels))


def test_cifar10_as_torchvision_reads_it(tmp_path, write, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    files = write.cifar(tmp_path)
    (files.folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))

    def listed(name):
        return [name, hashlib.md5((files.folder / name).read_bytes()).hexdigest()]

    meta = {"filename": "batches.meta", "key": "label_names", "md5": listed("batches.meta")[1]}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [listed(name) for name in files.train])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [listed(files.test)])
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    theirs = [datasets.CIFAR10(str(tmp_path), train=train) for train in (True, False)]
    images = [t.data.transpose(0, 3, 1, 2) for t in theirs]
    assert_reads(build("cifar10", tmp_path), images, [np.array(t.targets) for t in theirs])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("mnist", "MNIST/raw"),
        ("mnist", "mnist/MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("fashion_mnist", "fashion_mnist/FashionMNIST/raw"),
    ],
)
def test_mnist(tmp_path, write, name, layout, packed):
    images, labels, test_images, test_labels = write.mnist(tmp_path / layout, packed=packed)
    found = build(name, tmp_path)
    assert (found.num_classes, found.in_channels, found.image_size) == (10, 1, 28)
    assert_reads(found, (images, test_images), (labels, test_labels))


def test_mnist_as_torchvision_reads_it(tmp_path, write):
    datasets = pytest.importorskip("torchvision.datasets")
    write.mnist(tmp_path / "MNIST" / "raw")
    theirs = [datasets.MNIST(str(tmp_path), train=train) for train in (True, False)]
    images = [t.data[:, None].numpy() for t in theirs]
    assert_reads(build("mnist", tmp_path), images, [t.targets.numpy() for t in theirs])


def test_digits_are_scikit_learns_and_split_once_for_all():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    found, again = build("digits"), build("digits", seed=5)
    assert (found.num_classes, found.in_channels, found.image_size) == (10, 1, 8)
    assert (found.train.num_images, found.test.num_images) == (1437, 360)
    train, test = in_file_order(found.train), everything(found.test)
    assert np.array_equal(test[0], everything(again.test)[0])
    pixels, labels = (np.concatenate(parts) for parts in zip(train, test, strict=True))
    levels = np.rint(pixels[:, 0] * (16 / 255)).reshape(1797, 64).astype(int)
    ours = sorted((*row, label) for row, label in zip(levels.tolist(), labels, strict=True))
    theirs = zip(digits.data.astype(int).tolist(), digits.target, strict=True)
    assert ours == sorted((*row, label) for row, label in theirs)
    assert np.bincount(test[1]).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    # the same 360 on every machine and with every version
    assert hashlib.sha256(test[0].tobytes()).hexdigest()[:16] == "261a98eb8e7a4419"


def test_synthetic_images_have_the_wanted_shape_and_can_be_told_apart():
    found = build("synthetic", image_size=12, in_channels=2, num_classes=4, batch_size=64)
    assert (found.num_classes, found.in_channels, found.image_size) == (4, 2, 12)
    images, labels = everything(found.train)
    assert images.shape == (1024, 2, 12, 12)
    assert np.bincount(labels).tolist() == [256] * 4
    means = np.stack([images[labels == c].mean(0) for c in range(4)])
    test_images, test_labels = everything(found.test)
    distances = ((test_images[:, None] - means) ** 2).sum((2, 3, 4))
    assert np.array_equal(distances.argmin(1), test_labels)
    default = build("synthetic")
    assert (default.num_classes, default.in_channels, default.image_size) == (10, 3, 32)


def write_tiny_imagenet(root, write, *, annotated, nested):
    inside = "images/" if nested else ""
    train = [f"{c}/{inside}{c}_{i}.JPEG" for c in ("n01", "n02", "n03") for i in range(4)]
    pictures = write.images(root / "train", train)
    test = {f"val_{i}.JPEG": ("n03", "n01", "n02")[i % 3] for i in range(6)}
    if annotated:
        names = {f"images/{file}": wnid for file, wnid in test.items()}
        lines = [f"{file}\t{wnid}\t0\t0\t9\t9\n" for file, wnid in test.items()]
        (root / "val").mkdir()
        (root / "val" / "val_annotations.txt").write_text("".join(lines))
    else:
        names = {f"{wnid}/{inside}{file}": wnid for file, wnid in sorted(test.items())}
        names = dict(sorted(names.items()))
    test_pictures = write.images(root / "val", list(names), seed=1)

    def arrays(pictures, label_of):
        images = np.stack([p.transpose(2, 0, 1) for p in pictures.values()])
        return images, np.array([int(label_of(name)[1:]) - 1 for name in pictures])

    return arrays(pictures, lambda name: name[:3]), arrays(test_pictures, lambda name: names[name])


@pytest.mark.parametrize("folder", ["tiny-imagenet-200", "tiny_imagenet/tiny-imagenet-200",
                                    "tiny_imagenet"])  # fmt: skip
@pytest.mark.parametrize(("annotated", "nested"), [(True, True), (False, False), (False, True)])
def test_tiny_imagenet(tmp_path, write, folder, annotated, nested):
    train, test = write_tiny_imagenet(tmp_path / folder, write, annotated=annotated, nested=nested)
    found = build("tiny_imagenet", tmp_path, workers=2)
    assert (found.num_classes, found.in_channels, found.image_size) == (3, 3, 64)
    assert_reads(found, (train[0], test[0]), (train[1], test[1]))


def test_tiny_imagenet_refuses_other_sizes_and_classes(tmp_path, write):
    root = tmp_path / "tiny-imagenet-200"
    write_tiny_imagenet(root, write, annotated=True, nested=True)
    listing = root / "val" / "val_annotations.txt"
    listing.write_text(listing.read_text().replace("n02", "n99"))
    with pytest.raises(ValueError, match=r"val_annotations.txt: expected .* in line 3, got"):
        build("tiny_imagenet", tmp_path)
    listing.write_text("")
    write.images(root / "train", ["n01/images/n01_0.JPEG"], side=32)
    with pytest.raises(ValueError, match="expected 64x64 pixels, got 32x32"):
        build("tiny_imagenet", tmp_path, limit=12)
    (root / "train" / "n00").mkdir()
    with pytest.raises(ValueError, match="expected training images of every class, got none in the folder 'n00'"):
        build("tiny_imagenet", tmp_path)


def test_big_cifar10_enlarges_to_128_pixels(tmp_path, write):
    files = write.cifar(tmp_path / "cifar10")
    found = build("big_cifar10", tmp_path, augment=True)
    assert found.image_size == 128
    images, _ = next(iter(found.train))
    assert images.shape == (100, 3, 128, 128)
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(files.test_images).float() / 255, size=128, mode="bilinear"
    )
    expected = (enlarged - found.test.mean) / found.test.std
    torch.testing.assert_close(next(iter(found.test))[0], expected)
    smaller = build("big_cifar10", tmp_path, augment=True, image_size=16)
    assert next(iter(smaller.train))[0].shape == (100, 3, 16, 16)


def test_importing_and_reading_small_sets_needs_no_torchvision():
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from hiddennet import data\n"
        "d = data.build('digits', batch_size=64, device='cpu', seed=0)\n"
        "assert sum(len(labels) for _, labels in d.train) == 1293"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
