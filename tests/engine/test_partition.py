"""Parts and folds: groups whole, equal samples together, classes everywhere they can be, the same everywhere."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tlnb.engine.data.chronology import times_by
from tlnb.engine.data.deal import deal
from tlnb.engine.data.folds import make_folds
from tlnb.engine.data.groups import Groups, groups_by, in_order, joined, same_content
from tlnb.engine.data.partition import LEFT_OUT, TEST, TRAIN, VALID, partition, strata_of
from tlnb.errors import DataError

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def groups(numbers, by="column 'patient'"):
    numbers = in_order(np.asarray(numbers))
    return Groups(numbers, tuple(f"p{i}" for i in range(int(numbers.max()) + 1)), by)


@st.composite
def tables(draw):
    """Classes, groups and digests of a few samples."""
    # Bytes are drawn in one go; lists of numbers take most of the time of these tests.
    count, classes, most, different = draw(st.tuples(*(st.integers(*span) for span in SPANS)))
    rows = np.frombuffer(draw(st.binary(min_size=3 * count, max_size=3 * count)), np.uint8).reshape(3, count)
    digests = [bytes([d]) if d % 5 else None for d in rows[2] % different]
    return torch.from_numpy(rows[0] % classes).long(), rows[1] % most, digests


SPANS = (4, 40), (1, 4), (2, 9), (4, 60)


def made(table, **options):
    targets, numbers, digests = table
    told = groups(numbers)
    assume(len(told) > 1)
    assume(units_reach(targets, joined(len(targets), told.numbers, same_content(digests))) >= 2)
    return partition(targets, groups=told, digests=digests, **options), told


def units_reach(targets, units):
    """Units of the class that has the fewest; 1 where there are too few in all."""
    fewest = min(len(np.unique(units[targets.numpy() == c])) for c in targets.unique().tolist())
    return fewest if len(np.unique(units)) > 2 else 1


def lacks(part_of_unit, units, targets, parts):
    part = np.asarray(part_of_unit)[units]
    # An empty part lacks more than all classes.
    absent = [
        len(set(targets) - set(targets[part == p])) + 99 * (not (part == p).any()) for p in range(parts)
    ]
    return sum(n << (parts - 1 - p) for p, n in enumerate(absent))


@QUICK
@given(tables(), st.booleans(), st.integers(0, 3))
def test_no_group_and_no_equal_sample_is_on_two_sides(table, with_test, seed):
    found, told = made(table, test=0.2 if with_test else None, seed=seed)
    parts = [found.train, found.valid, found.test]
    assert torch.cat(parts).sort().values.tolist() == list(range(len(table[0])))
    assert all(len(p) for p in parts[: 3 if with_test else 2])
    for kept in (told.numbers, [d or i for i, d in enumerate(table[2])]):
        sides = [{kept[i] for i in part.tolist()} for part in parts]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
    again, _ = made(table, test=0.2 if with_test else None, seed=seed)
    assert all(map(torch.equal, parts, [again.train, again.valid, again.test]))


@QUICK
@given(tables(), st.integers(2, 3), st.integers(0, 3))
def test_every_class_that_can_be_on_all_sides_is(table, parts, seed):
    targets, units = table[0].numpy(), joined(len(table[0]), groups(table[1]).numbers)
    number = int(units.max()) + 1
    assume(parts <= number and parts**number <= 800)
    rows = np.arange(len(units))
    dealt = deal(units, rows, targets, [6, 2, 2][:parts], seed)
    best = min(lacks(ways, units, targets, parts) for ways in product(range(parts), repeat=number))
    assert lacks(dealt, units, targets, parts) == best


@QUICK
@given(st.integers(2, 60), st.integers(1, 6), st.integers(0, 5))
def test_pure_groups_bring_each_class_to_each_side(count, classes, seed):
    # However many there are: two groups of a class, each of one class, can always be parted.
    units = np.repeat(np.arange(count * 2), 1 + np.arange(count * 2) % 4)
    targets = torch.from_numpy(units // 2 % min(classes, count))
    found = partition(targets, groups=groups(units), valid=0.1, seed=seed)
    assert set(targets[found.train].tolist()) == set(targets[found.valid].tolist()) == set(targets.tolist())


def test_a_move_in_two_steps_is_found():
    # Each class can be on both sides only if {0, 2} and {1, 3} are parted.
    contents = [[0, 1], [0, 1], [2, 3], [2, 3], [0, 3], [1, 2]] * 3
    units = np.repeat(np.arange(len(contents)), 2)
    part = deal(units, np.arange(len(units)), np.concatenate(contents), [9, 1], 0)
    for side in (0, 1):
        assert set(np.concatenate(contents)[part[units] == side]) == {0, 1, 2, 3}


def test_the_split_is_the_same_on_every_machine():
    targets = torch.arange(24) % 3
    found = partition(targets, valid=0.25, test=0.25, seed=7)
    assert found.valid.tolist() == PINNED[0]
    assert found.test.tolist() == PINNED[1]
    by_group = partition(targets, groups=groups(np.arange(24) // 2), valid=0.25, seed=7)
    assert by_group.valid.tolist() == PINNED[2]


PINNED = ([0, 2, 4, 5, 12, 16], [9, 13, 17, 18, 20, 22], [8, 9, 10, 11, 18, 19])


def test_shares_and_classes_keep_their_proportion():
    targets = torch.cat([torch.zeros(800), torch.ones(200)]).long()
    found = partition(targets, valid=0.2, test=0.1, seed=1)
    assert [len(found.train), len(found.valid), len(found.test)] == [700, 200, 100]
    assert int(targets[found.valid].sum()) == 40
    assert int(targets[found.test].sum()) == 20
    other = partition(targets, valid=0.2, test=0.1, seed=2)
    assert not torch.equal(found.valid, other.valid)


def test_many_small_classes_are_not_all_rounded_to_one_side():
    found = partition(torch.arange(1200) // 12, valid=0.2, test=0.2)
    assert [len(found.train), len(found.valid), len(found.test)] == [720, 240, 240]


def test_groups_of_all_sizes_come_near_the_shares():
    rng = np.random.default_rng(0)
    numbers = rng.geometric(0.02, 3000) % 200
    targets = torch.from_numpy((numbers % 3 + (rng.random(3000) < 0.3)) % 3)
    found = partition(targets, groups=groups(numbers), valid=0.2, test=0.2)
    for part in (found.valid, found.test):
        assert 0.17 < len(part) / 3000 < 0.23
        shares = torch.bincount(targets[part]) / len(part)
        assert (shares - torch.bincount(targets) / 3000).abs().max() < 0.05


def test_labels_and_values_are_dealt_in_proportion():
    labels = torch.zeros(100, 3)
    labels[:50, 0] = labels[::2, 1] = 1
    labels[:4, 2] = 1
    found = partition(labels, valid=0.25)
    assert labels[found.valid].sum(0).tolist() == [12, 12, 1] or (labels[found.valid].sum(0) >= 1).all()
    values = torch.arange(200.0)[:, None]
    found = partition(values, valid=0.2)
    assert torch.histc(values[found.valid], 10, 0, 199).tolist() == [4] * 10
    assert len(strata_of(torch.randn(7, 2))[1]) == 7


def test_the_newest_validate_and_the_newest_of_all_test():
    targets = torch.arange(100) % 2
    days = np.arange(100)[::-1].copy()
    found = partition(targets, valid=0.2, test=0.1, times=times_by(days, 100))
    assert found.test.tolist() == list(range(10))
    assert found.valid.tolist() == list(range(10, 30))
    assert "in time by the array: training 0 to 69, validation 70 to 89, test 90 to 99" in found.notes


def test_what_is_made_at_one_time_stays_together_and_groups_count_as_their_newest():
    years = [2020] * 50 + [2021] * 30 + [2022] * 20
    found = partition(torch.arange(100) % 2, valid=0.15, times=times_by(years, 100))
    assert found.valid.tolist() == list(range(80, 100))
    told = groups([0, 1, 2, 3, 0, 4])
    found = partition(torch.zeros(6).long(), valid=0.4, groups=told, times=times_by([1, 2, 3, 4, 5, 6], 6))
    assert found.valid.tolist() == [0, 4, 5]
    assert any(note.startswith("1 held-out sample is older than the newest") for note in found.notes)


def test_dates_are_read_and_others_refused():
    found = times_by("day", 3, {"day": ["2026-11-30", "2026-11-30T12:00", "2027-01-01T00:00+01:00"]})
    assert np.diff(found.values).tolist() == [43200, 31 * 86400 + 23 * 3600 - 43200]
    for entries, words in [
        (["a", "1"], "entry 0 of the array is 'a'"),
        ([1, 1], "the same for every sample"),
        ([1, float("nan")], "entry 1"),
        ("dya", "no column 'dya'; did you mean 'day'"),
    ]:
        with pytest.raises(DataError, match=words):
            times_by(entries, 2, {"day": ["1", "2"]})


def test_the_sources_own_parts_stay_and_their_groups_are_not_learned():
    own = np.array([TRAIN] * 6 + [TEST] * 2)
    targets = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    told = groups([0, 0, 1, 1, 2, 2, 2, 3])
    found = partition(targets, own=own, groups=told, valid=0.5)
    assert found.test.tolist() == [6, 7]
    assert found.left_out.tolist() == [4, 5]
    assert sorted([*found.train.tolist(), *found.valid.tolist()]) == [0, 1, 2, 3]
    assert any(note.startswith("2 training samples are left out") for note in found.notes)
    assert LEFT_OUT < TRAIN < VALID < TEST


def test_what_is_lacking_where_is_said():
    targets = torch.tensor([0] * 12 + [1] * 12 + [2] * 4)
    told = groups([i // 2 for i in range(24)] + [20, 20, 21, 21])
    found = partition(targets, groups=told, valid=0.2, test=0.2, classes=("a", "b", "rare"))
    assert "class rare is lacking in test; it is in 2 groups" in found.notes
    assert (
        "14 groups by column 'patient', none on two sides: 9 in training, 3 in validation, 2 in test"
        in found.notes
    )


# ------------------------------------------------------------------ groups


def test_groups_are_told_in_four_ways():
    paths = ["cats/p1/a.png", "cats/p2/b.png", "dogs/p1/c.png"]
    columns = {"camera": ["x", "", "x"]}
    assert groups_by("camera", 3, columns=columns).numbers.tolist() == [0, 1, 0]
    assert groups_by("parent", 3, paths=paths).names == ("p1", "p2")
    assert groups_by(r"(p\d)", 3, paths=paths).numbers.tolist() == [0, 1, 0]
    assert groups_by(np.array([4, 4, 2]), 3).names == ("4", "2")
    # What has no entry belongs to nobody.
    assert len(groups_by([None, float("nan"), None], 3)) == 3


def test_some_of_the_samples_keep_their_groups_and_times():
    told = groups_by(["b", "a", "b", "c"], 4).among(np.array([3, 1, 3]))
    assert told.names == ("c", "a")
    assert told.numbers.tolist() == [0, 1, 0]
    assert times_by([3, 1, 2], 3).among(np.array([2, 0])).words == ("2", "3")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("camra", "no column 'camra'; did you mean 'camera'"),
        ("siite", "there are camera, one"),
        ("(", "no regular expression"),
        ("(p)(1)", "has 2 groups"),
        (r"p1/(c)", r"not found in 2 of 3 paths, such as 'cats/p1/a.png'"),
        ("one", "is 'z' for every sample"),
        ([1, 2], "has 2 entries for 3 samples"),
        (np.zeros((3, 2)), "one entry a sample"),
        (r"(\.)png", "is '.' for every sample"),
    ],
)
def test_groups_that_make_no_sense_are_one_line(told, words):
    columns = {"camera": ["x", "y", "x"], "one": ["z"] * 3}
    with pytest.raises(DataError, match=words) as caught:
        groups_by(told, 3, columns=columns, paths=["cats/p1/a.png", "cats/p2/b.png", "dogs/p1/c.png"])
    assert "\n" not in str(caught.value)


def test_joined_groups_are_tied_through_shared_samples():
    assert joined(5, np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 3])).tolist() == [0, 0, 0, 1, 2]
    assert joined(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"valid": 0.6, "test": 0.5}, "leave nothing to learn from"),
        ({"test": 0.0}, "--test takes a number between 0 and 1"),
        (
            {"test": 0.2, "groups": groups([0, 1] * 4)},
            "3 parts need 3 groups or more; there are 2 groups by column",
        ),
        (
            {"groups": groups([0, 0, 1, 2, 0, 0, 1, 2])},
            "class number 0 is in one group only by column 'patient'",
        ),
        ({"test": 0.2, "own": np.array([0] * 6 + [2] * 2)}, "a test part of its own"),
        ({"own": np.array([0, 1] + [0] * 6), "groups": groups([0] * 8)}, "no sample is left for"),
        ({"digests": [b"x"] * 4 + [b"y"] * 4}, "class number 0 has 4 samples that are all equal"),
        (
            {"times": times_by([0, 1] * 4, 8), "test": 0.2},
            "3 parts need as many different times; there are 2",
        ),
    ],
)
def test_wrong_use_is_one_line(options, words):
    targets = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    if "digests" in options:
        targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(DataError, match=words) as caught:
        partition(targets, **options)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ folds


@QUICK
@given(tables(), st.integers(2, 4), st.integers(1, 2))
def test_folds_keep_groups_whole_and_every_sample_validates_once(table, number, repeats):
    targets, told = table[0], groups(table[1])
    assume(len(told) > 1)
    units = joined(len(targets), told.numbers, same_content(table[2]))
    assume(units_reach(targets, units) >= 2 and len(np.unique(units)) >= number)
    found = make_folds(targets, number, groups=told, digests=table[2], repeats=repeats)
    assert len(list(found)) == len(found) == number * repeats
    for fold in found:
        assert not set(told.numbers[fold.train.numpy()]) & set(told.numbers[fold.valid.numpy()])
        assert not set(found.units[fold.train.numpy()]) & set(found.units[fold.valid.numpy()])
        assert len(fold.valid)
    seen = torch.cat([fold.valid for fold in found]).bincount(minlength=len(targets))
    assert (seen == repeats).all()


def test_answers_come_back_in_the_order_of_the_samples():
    found = make_folds(torch.arange(30) % 3, 5, repeats=2)
    answers = [np.stack([fold.valid.numpy(), fold.valid.numpy() * 2], 1) for fold in found]
    assert found.out_of_fold(answers).tolist() == [[i, 2 * i] for i in range(30)]
    assert not np.array_equal(*found.repeats)


def test_folds_in_time_learn_from_what_is_older():
    found = make_folds(torch.arange(60) % 2, 3, times=times_by(np.arange(60), 60))
    assert [(len(f.train), len(f.valid)) for f in found] == [(15, 15), (30, 15), (45, 15)]
    assert all(f.train.max() < f.valid.min() for f in found)
    assert np.isnan(found.out_of_fold([np.ones((15, 1))] * 3)[:15]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"folds": 4, "groups": groups([0, 1, 2] * 4)},
            "4 folds need 4 groups or more; there are 3 groups by",
        ),
        ({"folds": 1}, "takes a whole number from 2 up"),
        ({"folds": 13}, "13 folds need 13 groups or more; there are 12 different samples"),
        ({"folds": 2, "groups": groups([0] * 6 + [1] * 3 + [2] * 3)}, "class number 0 is in one group only"),
        ({"folds": 2, "repeats": 2, "times": times_by(np.arange(12), 12)}, "one order only"),
    ],
)
def test_folds_that_make_no_sense_are_one_line(options, words):
    with pytest.raises(DataError, match=words):
        make_folds(torch.tensor([0] * 6 + [1] * 6), options.pop("folds"), **options)


def test_a_class_with_fewer_groups_than_folds_is_said():
    found = make_folds(torch.tensor([0] * 9 + [1] * 3), 4, classes=("a", "b"))
    assert found.notes == ("too few groups to be in each of 4 folds: b",)
