import pytest
import torch

from tlnb.engine.data.split import first_per_class, split
from tlnb.errors import DataError

TARGETS = torch.arange(200) % 4


def test_every_sample_is_on_one_side_and_classes_keep_their_share():
    train, valid = split(TARGETS, 0.2, 0)
    assert torch.cat([train, valid]).sort().values.tolist() == list(range(200))
    assert torch.bincount(TARGETS[valid]).tolist() == [10, 10, 10, 10]


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    assert torch.equal(split(TARGETS, 0.2, 5)[1], split(TARGETS, 0.2, 5)[1])
    assert not torch.equal(split(TARGETS, 0.2, 5)[1], split(TARGETS, 0.2, 6)[1])


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(DataError, match="share between 0 and 1"):
        split(TARGETS, share, 0)


def test_a_class_of_one_is_refused_by_number():
    with pytest.raises(DataError, match="class number 4 has one sample"):
        split(torch.cat([TARGETS, torch.tensor([4])]), 0.2, 0)


def test_per_class_limit_keeps_that_many_of_each():
    train, _ = split(TARGETS, 0.2, 0)
    few = first_per_class(TARGETS, train, 3, 0)
    assert torch.bincount(TARGETS[few]).tolist() == [3, 3, 3, 3]
    assert set(few.tolist()) <= set(train.tolist())
