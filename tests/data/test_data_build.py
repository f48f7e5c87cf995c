"""What holds for every set once it is built: splits, determinism, ranks, limits, formats."""

from __future__ import annotations

import pytest
import torch

from hiddennet import data
from hiddennet.config.schema import DataSection
from hiddennet.data.request import Request


def build(name="synthetic", **arguments):
    defaults = {"batch_size": 50, "device": "cpu", "seed": 0}
    return data.build(name, **{**defaults, **arguments})


@pytest.fixture
def cifar10(tmp_path, write):
    """cifar10 from 200 random training images and 40 test images."""
    write.cifar(tmp_path, per_batch=40, num_test=40)

    def make(**arguments):
        return build("cifar10", root=tmp_path, **arguments)

    return make


def images_of(loader):
    """The set of a loader's images, as bytes."""
    return {image.numpy().tobytes() for images, _ in loader for image in images}


def labels_of(loader):
    return torch.cat([labels for _, labels in loader])


def equal(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def test_parts_are_disjoint_complete_and_stratified(cifar10):
    found = cifar10(augment=False)
    train, held, test = (images_of(x) for x in (found.train, found.validation, found.test))
    assert (len(train), len(held), len(test)) == (180, 20, 40)
    assert not (train & held or train & test or held & test)
    assert torch.bincount(labels_of(found.validation)).tolist() == [2] * 10
    assert torch.bincount(labels_of(found.train)).tolist() == [18] * 10
    everything = images_of(cifar10(augment=False, validation=0).train)
    assert train | held == everything


def test_the_split_follows_the_seed_and_nothing_else(cifar10):
    held = images_of(cifar10().validation)
    assert images_of(cifar10(augment=False, batch_size=7, workers=0).validation) == held
    assert images_of(cifar10(seed=1).validation) != held
    assert images_of(cifar10(seed=1).test) == images_of(cifar10().test)


def test_validation_by_count_and_none(cifar10):
    assert cifar10(validation=30).validation.num_images == 30
    assert cifar10(validation=30).train.num_images == 170
    for none in (0, 0.0):
        assert cifar10(validation=none).validation is None
        assert cifar10(validation=none).train.num_images == 200


def test_validation_and_test_images_are_never_augmented(cifar10):
    augmented, plain = cifar10(augment=True), cifar10(augment=False)
    for part in ("validation", "test"):
        assert equal(getattr(augmented, part), getattr(plain, part))
        getattr(augmented, part).set_epoch(3)
        assert equal(getattr(augmented, part), getattr(plain, part))
    # one in 162 is left as it is
    assert len(images_of(augmented.train) & images_of(plain.train)) < 10
    assert torch.equal(labels_of(augmented.train), labels_of(plain.train))


def test_an_epoch_is_a_pure_function_of_seed_and_epoch(cifar10):
    one, other = cifar10(), cifar10()
    first = list(one.train)
    assert equal(one.train, first)
    one.train.set_epoch(1)
    assert not equal(one.train, first)
    torch.manual_seed(99)
    other.train.set_epoch(1)
    assert equal(one.train, other.train)
    one.train.set_epoch(0)
    assert equal(one.train, first)
    assert not equal(cifar10(seed=1).train, first)


def test_loading_leaves_the_global_generator_alone(cifar10):
    state = torch.get_rng_state()
    list(cifar10().train)
    assert torch.equal(torch.get_rng_state(), state)


def test_augmented_images_are_shifted_by_up_to_four_pixels_and_flipped(cifar10):
    plain, augmented = (cifar10(augment=a, limit=100, validation=0) for a in (False, True))
    shifts, flips = set(), 0
    black = (-plain.train.mean / plain.train.std)[0]
    for (images, _), (changed, _) in zip(plain.train, augmented.train, strict=True):
        for image, found in zip(images, changed, strict=True):
            padded = black.expand(3, 40, 40).clone()
            padded[:, 4:36, 4:36] = image
            views = padded.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
            for flip in (False, True):
                candidate = found.flip(2) if flip else found
                hits = (views - candidate).abs().amax((2, 3, 4)) < 1e-6
                if hits.any():
                    shifts.add(tuple(hits.nonzero()[0].tolist()))
                    flips += flip
                    break
            else:
                raise AssertionError("no crop of the padded image, mirrored or not")
    assert len(shifts) > 40
    assert 30 < flips < 70


def test_ranks_together_see_what_one_process_sees(cifar10):
    whole = cifar10(batch_size=48)
    ranks = [cifar10(batch_size=16, rank=r, world_size=3) for r in range(3)]
    for part in ("train", "validation", "test"):
        whole_part, parts = getattr(whole, part), [getattr(rank, part) for rank in ranks]
        assert len({len(p) for p in parts}) == 1
        assert sum(len(labels_of(p)) for p in parts) == whole_part.num_images
        assert parts[0].num_images == whole_part.num_images
        seen = [images_of(p) for p in parts]
        assert set().union(*seen) == images_of(whole_part)
    # batch by batch, augmentation included
    for (images, _), *shares in zip(whole.train, *(rank.train for rank in ranks), strict=False):
        together = torch.cat([share for share, _ in shares])
        if len(together) == len(images) == 48:
            assert {i.numpy().tobytes() for i in images} == {i.numpy().tobytes() for i in together}


def test_limit_takes_a_stratified_part_of_training_and_test_images(cifar10):
    found = cifar10(limit=100, augment=False)
    assert found.train.num_images + found.validation.num_images == 100
    assert found.test.num_images == 20
    assert torch.bincount(labels_of(found.train)).tolist() == [9] * 10
    assert torch.bincount(labels_of(found.test)).tolist() == [2] * 10
    assert images_of(found.test) < images_of(cifar10().test)
    assert images_of(found.train) != images_of(cifar10(limit=100, augment=False, seed=1).train)
    more = cifar10(limit=1000)
    assert (more.train.num_images, more.test.num_images) == (180, 40)


def test_batches_and_lengths(cifar10):
    found = cifar10(batch_size=64)
    sizes = [len(labels) for _, labels in found.train]
    assert sizes == [64, 64, 52]
    assert len(found.train) == 3
    images, labels = next(iter(found.train))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.shape == (64, 3, 32, 32)


@pytest.mark.parametrize("augment", [False, True])
def test_channels_last_is_the_same_in_another_layout(cifar10, augment):
    plain = cifar10(augment=augment)
    other = cifar10(augment=augment, channels_last=True)
    for part in ("train", "validation", "test"):
        assert equal(getattr(plain, part), getattr(other, part))
        images, _ = next(iter(getattr(other, part)))
        assert images.is_contiguous(memory_format=torch.channels_last)
        images, _ = next(iter(getattr(plain, part)))
        assert images.is_contiguous()


@pytest.mark.parametrize("size", [16, 48])
def test_image_size_resizes_after_the_augmentation(cifar10, size):
    found = cifar10(image_size=size)
    assert found.image_size == size
    native = cifar10()
    for part in ("train", "test"):
        for (images, _), (small, _) in zip(getattr(found, part), getattr(native, part), strict=True):
            assert images.shape[2:] == (size, size)
            expected = torch.nn.functional.interpolate(small, size=(size, size), mode="bilinear", antialias=True)
            torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_sets_without_augmentation_say_so(name):
    found = build(name)
    assert not found.augmentation
    assert equal(found.train, build(name, augment=False).train)


def test_digits_are_normalised_by_their_own_statistics():
    images = torch.cat([images for images, _ in build("digits", validation=0).train])
    assert abs(images.mean()) < 0.01
    assert abs(images.std() - 1) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar11"}, r"data: expected one of .*got 'cifar11'; did you mean 'cifar10"),
        ({"name": "FashionMNIST"}, "did you mean 'fashion_mnist'"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"limit": 0}, "limit: expected a whole number of at least 1, got 0"),
        ({"image_size": 8.0}, "image_size: expected a whole number"),
        ({"workers": -1}, "workers: expected 0 or more"),
        ({"validation": 1.5}, "validation: expected a fraction"),
        ({"name": "digits", "num_classes": 3}, "num_classes: expected it with data.name=synthetic"),
        ({"rank": 1}, "rank: expected 0 to 0, got 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_names_are_complete():
    assert data.names() == sorted(
        ["big_cifar10", "cifar10", "cifar100", "digits", "fashion_mnist", "image_folder",
         "imagenet", "mnist", "synthetic", "text_folder", "tiny_imagenet"]
    )  # fmt: skip


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("augment", [False, True])
def test_a_gpu_gets_the_same_batches(cifar10, augment):
    here, there = (cifar10(augment=augment, device=device) for device in ("cpu", "cuda"))
    for part in ("train", "validation", "test"):
        for (images, labels), (found, numbers) in zip(getattr(here, part), getattr(there, part), strict=True):
            assert found.is_cuda and numbers.is_cuda
            assert torch.equal(found.cpu(), images)
            assert torch.equal(numbers.cpu(), labels)


def test_the_sections_keys_are_the_requests():
    """A key of the config reaches every set by its name."""
    told_by_the_run = {"device", "seed", "rank", "world_size", "channels_last", "in_channels", "num_classes", "classes"}
    assert set(DataSection.model_fields) == set(Request.__dataclass_fields__) - told_by_the_run
