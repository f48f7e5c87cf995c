"""Missing, damaged and hostile files, and downloads: what the user is told."""

from __future__ import annotations

import gzip
import os
import pickle

import numpy as np
import pytest

from hiddennet import data


def build(name, root, **arguments):
    defaults = {"batch_size": 1000, "device": "cpu", "seed": 0, "validation": 0}
    return data.build(name, root=root, **{**defaults, **arguments})


MISSING = {
    "mnist": ["MNIST/raw", "mnist/MNIST/raw"],
    "fashion_mnist": ["FashionMNIST/raw"],
    "cifar10": ["cifar-10-batches-py", "cifar10/cifar-10-batches-py"],
    "cifar100": ["cifar-100-python", "cifar100/cifar-100-python"],
    "big_cifar10": ["cifar-10-batches-py", "cifar10/cifar-10-batches-py"],
    "tiny_imagenet": ["tiny-imagenet-200/train", "tiny_imagenet/train"],
    "imagenet": ["imagenet/train"],
    "image_folder": ["image_folder/train", "train"],
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_set_says_what_to_put_where(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        build(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name}: expected the folder ")
    assert "\n" not in message
    for path in MISSING[name]:
        assert str(tmp_path / path) in message
    can_be_fetched = name not in ("tiny_imagenet", "imagenet", "image_folder")
    assert ("data.download=true" in message) == can_be_fetched
    assert "put " in message or "unpack " in message
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path, write):
    folder = write.cifar(tmp_path).folder
    (folder / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3: expected a batch of CIFAR, got no"):
        build("cifar10", tmp_path)
    write.mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte: expected an idx file"):
        build("mnist", tmp_path)


def damaged_batches():
    images, labels = np.zeros((4, 3072), np.uint8), [0, 1, 2, 3]
    return {
        "truncated": pickle.dumps({"data": images, "labels": labels}, protocol=2)[:5000],
        "empty": b"",
        "no pickle": b"hello\n",
        "wrong size": pickle.dumps({"data": images[:, :9], "labels": labels}, protocol=2),
        "wrong dtype": pickle.dumps({"data": images.astype(float), "labels": labels}),
        "too few labels": pickle.dumps({"data": images, "labels": [1]}, protocol=2),
        "unknown label": pickle.dumps({"data": images, "labels": [0, 1, 2, 10]}, protocol=2),
        "no labels": pickle.dumps({"data": images}, protocol=2),
        "no dictionary": pickle.dumps([1, 2]),
    }


@pytest.mark.parametrize("damage", damaged_batches())
def test_a_damaged_cifar_batch_is_refused(tmp_path, write, damage):
    folder = write.cifar(tmp_path).folder
    (folder / "data_batch_2").write_bytes(damaged_batches()[damage])
    with pytest.raises(ValueError, match=r"data_batch_2: expected a batch of CIFAR .*delete it"):
        build("cifar10", tmp_path)


class Reduced:
    """An object that a pickle makes by a call and fills with a state."""

    def __init__(self, *how):
        self.how = how

    def __reduce__(self):
        return self.how


def _hiding(code: str) -> Reduced:
    """A dtype that says of its own bytes that they are pointers to objects."""
    fields = {"a": (np.dtype("O"), 0)}
    return Reduced(np.dtype, (code, 0, 1), (3, "|", None, ("a",), fields, 8, 1, 0))


HOSTILE = {
    "a field of objects": _hiding("V8"),
    "the same in uint8": _hiding("u1"),
    "objects": Reduced(np.dtype, ("O8", 0, 1), (3, "|", None, None, None, -1, -1, 63)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cifar_batch_reaches_no_code_of_numpys(tmp_path, write, name):
    folder = write.cifar(tmp_path).folder
    rebuild = np.empty(0, np.uint8).__reduce__()[0]
    array = Reduced(rebuild, (np.ndarray, (0,), b"b"), (1, (1,), HOSTILE[name], False, b"\xef\xbe\xad\xde\0\0\0\0"))
    (folder / "test_batch").write_bytes(pickle.dumps({"data": array, "labels": [0]}, protocol=2))
    with pytest.raises(ValueError, match=r"test_batch: expected a batch of CIFAR with uint8 images .* got \w+Error"):
        build("cifar10", tmp_path)


@pytest.mark.parametrize("labels", [[0.0] * 4, [[0]] * 4, np.zeros(4, np.int64), "0123", None, [True] * 4])
def test_labels_of_a_cifar_batch_are_whole_numbers(tmp_path, write, labels):
    folder = write.cifar(tmp_path).folder
    batch = {"data": np.zeros((4, 3072), np.uint8), "labels": labels}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(ValueError, match="test_batch: expected a batch of CIFAR"):
        build("cifar10", tmp_path)


def test_a_cifar_batch_asks_for_no_more_memory_than_it_holds(tmp_path, write):
    folder = write.cifar(tmp_path).folder
    nested = "ref"
    for _ in range(40):
        nested = [nested, nested]  # a few bytes each, 2^40 when unfolded
    for content in (b"\x80\x02Nr\xff\xff\xff\x7f.", pickle.dumps({"data": nested, "labels": nested}, protocol=2)):
        (folder / "test_batch").write_bytes(content)
        with pytest.raises(ValueError, match="test_batch: expected a batch of CIFAR"):
            build("cifar10", tmp_path)


def test_a_cifar_batch_cannot_run_code(tmp_path, write):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "broken-in"),)

    folder = write.cifar(tmp_path).folder
    (folder / "test_batch").write_bytes(pickle.dumps({"data": Hostile(), "labels": []}))
    with pytest.raises(ValueError, match=r"a reference to posix\.mkdir"):
        build("cifar10", tmp_path)
    assert not (tmp_path / "broken-in").exists()


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda b: b[:-1], r"bytes for the shape \[40, 28, 28\]"),
        ("train-labels-idx1-ubyte", lambda b: b + b"x", r"more than 40 bytes for the shape \[40\]"),
        ("t10k-images-idx3-ubyte", lambda b: b"", "begins with nothing"),
        ("t10k-images-idx3-ubyte", lambda b: b"\0\0\x0d" + b[3:], "begins with 00000d03"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0a", "t10k labels from 0 to 9, got 10"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, write, part, change, message):
    folder = tmp_path / "MNIST" / "raw"
    write.mnist(folder)
    (folder / part).write_bytes(change((folder / part).read_bytes()))
    with pytest.raises(ValueError, match=message):
        build("mnist", tmp_path)


@pytest.mark.parametrize("change", [lambda b: b[:-9], lambda b: b"no gzip", lambda b: b[:99] + b[:9]])
def test_a_damaged_gzip_file_is_refused(tmp_path, write, change):
    folder = tmp_path / "MNIST" / "raw"
    write.mnist(folder, packed=True)
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: expected an idx file"):
        build("mnist", tmp_path)


def test_images_without_their_labels_are_refused(tmp_path, write):
    folder, other = tmp_path / "MNIST" / "raw", tmp_path / "other"
    write.mnist(folder)
    write.mnist(other, num_train=30)
    (other / "train-labels-idx1-ubyte").replace(folder / "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="square train images and as many labels"):
        build("mnist", tmp_path)


class TestDownload:
    def replace(self, monkeypatch, name, fetch):
        datasets = pytest.importorskip("torchvision.datasets")
        calls = []

        def dataset(root, download):
            calls.append((root, download))
            fetch(root)

        monkeypatch.setattr(datasets, name, dataset)
        return calls

    def test_on_request_and_only_once(self, tmp_path, write, monkeypatch):
        root = tmp_path / "new" / "data"
        calls = self.replace(monkeypatch, "CIFAR10", lambda _: write.cifar(root))
        with pytest.raises(FileNotFoundError):
            build("cifar10", root)
        assert calls == []
        for _ in range(2):
            assert build("cifar10", root, download=True).train.num_images == 100
        assert calls == [(str(root), True)]

    def test_a_failure_is_one_sentence(self, tmp_path, monkeypatch):
        def fail(root):
            raise OSError("<urlopen error\n  no route>")

        self.replace(monkeypatch, "FashionMNIST", fail)
        message = r"fashion_mnist: expected to download .*, got <urlopen error no route>; put its"
        with pytest.raises(FileNotFoundError, match=message):
            build("fashion_mnist", tmp_path, download=True)

    def test_a_download_that_leaves_nothing_is_noticed(self, tmp_path, monkeypatch):
        self.replace(monkeypatch, "MNIST", lambda root: None)
        with pytest.raises(FileNotFoundError, match="mnist: expected the folder"):
            build("mnist", tmp_path, download=True)

    def test_what_cannot_be_downloaded_says_so(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="it cannot be downloaded for you"):
            build("imagenet", tmp_path, download=True)


@pytest.mark.parametrize("shape", [(1, 28, 28), (2**32 - 1, 2**32 - 1, 28)])
def test_a_packed_file_that_unfolds_to_gigabytes_is_read_no_further(tmp_path, write, shape):
    folder = tmp_path / "MNIST" / "raw"
    write.mnist(folder, packed=True)
    head = bytes([0, 0, 8, 3]) + np.array(shape, ">u4").tobytes()
    bomb = gzip.compress(head + bytes(2**20)) + gzip.compress(bytes(2**24), 9) * 600  # 10 GB in 10 MB
    (folder / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"idx3-ubyte\.gz: expected an idx file .* got .* bytes"):
        build("mnist", tmp_path)
