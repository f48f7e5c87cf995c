"""Seeds, epochs, batches and the ranks' shares."""

from __future__ import annotations

import pytest
import torch

from hiddennet.data.order import Order, derived_seed, generator


def make(num_images, batch_size, *, shuffle=True, seed=0, rank=0, world_size=1):
    return Order(num_images, batch_size, shuffle, seed, rank, world_size)


def test_seeds_are_the_same_everywhere_and_differ_by_every_part():
    assert derived_seed(0, "order", 0) == 3858034280
    seeds = [derived_seed(s, p, e) for s in range(20) for p in ("order", "x") for e in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert derived_seed(1, 12) != derived_seed(11, 2)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "a"))
    make(10, 3).epoch(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_epoch_is_a_permutation_by_seed_and_epoch():
    order = make(1000, 32)
    assert torch.equal(order.epoch(3).sort().values, torch.arange(1000))
    assert torch.equal(order.epoch(3), make(1000, 7).epoch(3))
    assert not torch.equal(order.epoch(3), order.epoch(4))
    assert not torch.equal(order.epoch(3), make(1000, 32, seed=1).epoch(3))
    assert torch.equal(make(5, 2, shuffle=False).epoch(9), torch.arange(5))


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 128, [3]), (1, 1, [1]), (391, 128, [128] * 3 + [7])],
)
def test_one_process_keeps_the_last_smaller_batch(num_images, batch_size, sizes):
    order = make(num_images, batch_size)
    found = [len(order.epoch(0)[part]) for part in order.batches()]
    assert found == sizes
    assert order.num_batches == len(sizes)


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("num_images", [8, 9, 63, 64, 65, 130])
@pytest.mark.parametrize("batch_size", [1, 4, 32, 200])
def test_ranks_share_every_image_once_in_equally_many_batches(world_size, num_images, batch_size):
    seen, counts = [], set()
    for rank in range(world_size):
        order = make(num_images, batch_size, rank=rank, world_size=world_size)
        batches = [order.epoch(2)[part] for part in order.batches()]
        counts.add(len(batches))
        assert len(batches) == order.num_batches
        assert all(len(b) == batch_size for b in batches[:-1])
        assert 1 <= len(batches[-1]) <= batch_size + 1
        seen += batches
    assert len(counts) == 1
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(num_images))


def test_the_ranks_batches_make_up_the_batch_of_one_process():
    whole = make(103, 12).epoch(5)
    ranks = [make(103, 4, rank=r, world_size=3) for r in range(3)]
    for i in range(8):
        parts = [order.epoch(5)[list(order.batches())[i]] for order in ranks]
        together = torch.cat(parts).sort().values
        assert torch.equal(together, whole[i * 12 : (i + 1) * 12].sort().values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, "rank: expected 0 to 1, got 2"),
        ({"num_images": 1, "world_size": 2}, "world_size: expected at most one rank an image"),
    ],
)
def test_impossible_orders_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**{"num_images": 10, "batch_size": 2, **arguments})


def test_the_whole_of_a_share_is_the_order_of_one_process():
    share, alone = Order(23, 4, True, 7, rank=2, world_size=3), Order(23, 4, True, 7)
    assert share.whole() == alone
    assert torch.equal(share.whole().epoch(5), alone.epoch(5))
