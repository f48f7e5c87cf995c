"""Stratified parts by seed."""

from __future__ import annotations

import numpy as np
import pytest

from hiddennet.data.order import stratified, validation_count


def pick(labels, count, seed=0, purpose="test"):
    return stratified(np.asarray(labels), count, seed=seed, purpose=purpose)


def test_by_hand():
    # quotas 4 * (3, 2, 1) / 6 = 2, 1.33, 0.67: the last place goes to the largest remainder
    picked = pick([0, 0, 0, 1, 1, 2], 4)
    assert np.bincount(np.array([0, 0, 0, 1, 1, 2])[picked]).tolist() == [2, 1, 1]
    # equal remainders: the lower class
    assert np.array([7, 7, 3, 3])[pick([7, 7, 3, 3], 1)].tolist() == [3]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 333, 500])
def test_exact_count_and_proportions(count):
    labels = np.random.RandomState(1).choice(7, 500, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    picked = pick(labels, count)
    assert len(picked) == len(set(picked.tolist())) == count
    assert np.all(np.diff(picked) > 0)
    exact = np.bincount(labels, minlength=7) * count / 500
    assert np.all(np.abs(np.bincount(labels[picked], minlength=7) - exact) < 1)


def test_a_pure_function_of_seed_and_purpose():
    labels = np.arange(300) % 10
    assert np.array_equal(pick(labels, 30), pick(labels, 30))
    assert not np.array_equal(pick(labels, 30), pick(labels, 30, seed=1))
    assert not np.array_equal(pick(labels, 30), pick(labels, 30, purpose="other"))
    # the same on every machine and with every version
    assert pick(labels, 10).tolist() == [18, 26, 51, 69, 90, 114, 147, 192, 223, 285]


def test_smaller_picks_are_among_larger_ones_of_equal_classes():
    labels = np.arange(200) % 10
    assert set(pick(labels, 50)) <= set(pick(labels, 120)) <= set(pick(labels, 200))


@pytest.mark.parametrize(
    ("validation", "num_images", "count"),
    [
        (0.1, 50_000, 5000),
        (5000, 50_000, 5000),
        (0, 10, 0),
        (0.0, 10, 0),
        (0.25, 10, 2),
        (9, 10, 9),
    ],
)
def test_validation_count(validation, num_images, count):
    assert validation_count(validation, num_images) == count


@pytest.mark.parametrize(
    ("validation", "error", "message"),
    [
        (1.0, ValueError, r"fraction in \[0, 1\) or a whole count below 10 .*got 1.0"),
        (10, ValueError, "got 10"),
        (-0.1, ValueError, "got -0.1"),
        (float("nan"), ValueError, "got nan"),
        (0.01, ValueError, "leaves images on both sides, got 0.01 of 10 images; use 0"),
        (0.99, ValueError, "leaves images on both sides"),
        (True, TypeError, "validation: expected a fraction or a count, got True"),
        ("0.1", TypeError, "got '0.1'"),
    ],
)
def test_impossible_validation_is_refused(validation, error, message):
    with pytest.raises(error, match=message):
        validation_count(validation, 10)
