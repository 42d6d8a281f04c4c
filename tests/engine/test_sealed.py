"""The test part: a trap for everybody but the one who measures, who is counted."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from tlnb.engine.core.structure import Unfit, plain, structure
from tlnb.engine.data.fingerprint import data_fingerprint
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.raw import Rows
from tlnb.engine.data.samples import SubsetSamples
from tlnb.engine.data.sealed import Look, Sealed, warning
from tlnb.engine.data.split import leaks
from tlnb.errors import NotReady

LOOK = Look("accuracy", 0.875, "3fa1")


def sealed(**options):
    return Sealed(Rows(torch.randn(8, 3), torch.arange(8) % 2), **options)


@pytest.mark.parametrize(
    "read",
    [
        lambda part: part.targets,
        lambda part: part.inputs,
        lambda part: part.prepare(Preprocess((1, 1), (0.0,), (1.0,))),
        lambda part: part.subset(torch.arange(2)),
        lambda part: part.digests(),
        lambda part: part.digest_of(0),
        lambda part: part.name(0),
        lambda part: part.path(0),
        lambda part: part.batch(torch.arange(2)),
        lambda part: part[0],
        lambda part: list(part),
        lambda part: 1 in part,
        lambda part: data_fingerprint(part),
        lambda part: leaks(part, part),
        lambda part: SubsetSamples(part, torch.arange(2)),
        lambda part: copy.deepcopy(part).targets,
        lambda part: pickle.dumps(part),
    ],
)
def test_everything_that_reads_a_test_row_is_refused(read):
    with pytest.raises(NotReady, match="%tl_test is the one command"):
        read(sealed())


def test_its_number_is_known():
    part = sealed()
    assert len(part) == 8
    assert repr(part) == "8 test samples under seal, never looked at"
    assert copy.copy(part) is part


def test_it_opens_for_one_measurement_and_closes_whatever_happens():
    part = sealed()
    with part.opened() as opened:
        assert len(opened.samples.targets) == 8
        with pytest.raises(NotReady, match="already"), part.opened():
            pass
        assert opened.note(LOOK) == 1
        kept = opened
    with pytest.raises(NotReady, match="under seal"):
        _ = kept.samples
    with pytest.raises(NotReady, match="under seal"):
        kept.note(LOOK)
    with pytest.raises(ZeroDivisionError), part.opened() as opened:
        raise ZeroDivisionError
    with part.opened() as opened:
        assert opened.note(LOOK) == 2
        with pytest.raises(NotReady, match="under seal"):
            _ = part.targets
    assert repr(part) == "8 test samples under seal, looked at twice"


def test_a_look_cannot_be_taken_back():
    part = sealed(looks=(LOOK,))
    with pytest.raises(AttributeError):
        part.looks = ()
    part.continued(())
    assert part.looks == (LOOK,)
    other = Look("accuracy", 0.9, "77")
    part.continued((LOOK, other))
    assert part.looks == (LOOK, other)
    part.continued((other,))
    assert part.looks == (other, LOOK, other)


def test_the_second_look_says_so_and_of_which_number():
    assert warning((LOOK,)) is None
    words = warning((LOOK, Look("accuracy", 0.9, "77")))
    assert words is not None
    assert "second look" in words
    assert "accuracy 0.875" in words
    assert "may have been chosen" in words
    assert "of the same weights" in (warning((LOOK, LOOK)) or "")


def test_looks_go_through_a_checkpoint():
    assert structure(tuple[Look, ...], plain((LOOK, LOOK))) == (LOOK, LOOK)
    for damaged in (
        {},
        [1],
        [{"score": 1, "value": 2.0, "network": ""}],
        [{"score": "a", "value": True, "network": ""}],
    ):
        with pytest.raises(Unfit, match="is "):
            structure(tuple[Look, ...], damaged)
