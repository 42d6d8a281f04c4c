import torch

from tlnb.engine.core.seeds import batches, count_batches, seed_for


def test_each_sample_once_and_the_same_order_again():
    first, again = batches(100, 16, 3, 1, 0), batches(100, 16, 3, 1, 0)
    assert torch.cat(first).sort().values.tolist() == list(range(100))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_another_epoch_stage_or_seed_gives_another_order():
    orders = {
        tuple(torch.cat(batches(50, 8, *place)).tolist())
        for place in [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)]
    }
    assert len(orders) == 4


def test_no_batch_of_one_that_batch_norm_could_not_train_on():
    assert [len(b) for b in batches(33, 16, 0)] == [16, 17]
    assert [len(b) for b in batches(1, 16, 0)] == [1]


def test_batches_are_counted_without_an_order():
    for samples in range(1, 40):
        for size in (1, 2, 3, 16, 50):
            assert count_batches(samples, size) == len(batches(samples, size, 0)), (samples, size)


def test_seeds_of_neighbours_differ():
    assert len({seed_for(a, b) for a in range(20) for b in range(20)}) == 400
