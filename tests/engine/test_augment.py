"""Augmentation is a function of seed, view and picture; nothing else moves it, and it moves nothing else."""

from __future__ import annotations

import pytest
import torch
from pictures import class_folders
from torchvision.transforms import v2

from tlnb.engine.core.seeds import own_stream
from tlnb.engine.data.augment import NAMES, PRESETS
from tlnb.engine.data.augmented import augmented
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.raw import Pictures, ReadPictures
from tlnb.engine.data.readers import TensorReader
from tlnb.engine.data.samples import ImageSamples, TensorSamples
from tlnb.engine.training.stage import AUGMENTS
from tlnb.errors import DataError

PRESET = Preprocess(3, (32, 32), 36)
GREY = Preprocess(1, (32, 32), None, (0.5,), (0.5,))
SOME = torch.tensor([4, 0, 7])


def pictures(preprocess=PRESET, count=10):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, preprocess.channels, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(48, 40), mode="bicubic").clamp(0, 1)
    images = images.mul(255).to(torch.uint8)
    return ImageSamples(preprocess.fit(images), torch.arange(count) % 2, preprocess, images)


def test_the_names_are_those_of_the_stage_key():
    assert NAMES == AUGMENTS == tuple(PRESETS)


@pytest.mark.parametrize("name", ["light", "standard", "strong"])
@pytest.mark.parametrize("preprocess", [PRESET, GREY], ids=["colour", "grey"])
def test_a_preset_follows_seed_view_and_index_alone(name, preprocess):
    samples = augmented(pictures(preprocess), name, seed=3)
    assert samples.random
    first = samples.view(1, 0).batch(SOME)
    assert first.shape == (3, preprocess.channels, 32, 32)
    assert first.dtype == torch.float32
    torch.manual_seed(123)
    assert torch.equal(first, samples.view(1, 0).batch(SOME))
    assert torch.equal(first[1:2], samples.view(1, 0).batch(SOME[1:2]))
    assert not torch.equal(first, samples.view(1, 1).batch(SOME))
    assert not torch.equal(first, samples.view(2, 0).batch(SOME))
    other_seed = augmented(pictures(preprocess), name, seed=4)
    assert not torch.equal(first, other_seed.view(1, 0).batch(SOME))


def test_the_random_state_of_the_user_does_not_move():
    state = torch.get_rng_state()
    list(augmented(pictures(), "strong", 0).stream([SOME, SOME]))
    assert torch.equal(state, torch.get_rng_state())


def test_the_stream_gives_what_the_batches_give():
    samples = augmented(pictures(), "standard", 0).view(1, 2)
    order = torch.arange(10).split(4)
    for ahead, alone in zip(samples.stream(order), map(samples.batch, order), strict=True):
        assert torch.equal(ahead, alone)


def test_none_is_the_plain_pictures():
    plain = pictures()
    assert augmented(plain, "none", 0) is plain
    assert augmented(augmented(plain, "strong", 0), "none", 0) is plain


def test_the_fingerprint_follows_transform_seed_and_view():
    plain = pictures()
    found = {
        plain.fingerprint(),
        augmented(plain, "light", 0).fingerprint(),
        augmented(plain, "strong", 0).fingerprint(),
        augmented(plain, "light", 1).fingerprint(),
        augmented(plain, "light", 0).view(1).fingerprint(),
    }
    assert len(found) == 5
    assert augmented(plain, "light", 0).fingerprint() in found


def test_light_keeps_letters_readable_and_strong_does_not_stay_near():
    plain = pictures()
    still = plain.batch(torch.arange(10))
    moved = [augmented(plain, name, 0).batch(torch.arange(10)) for name in ("light", "strong")]
    near, far = ((m - still).abs().mean() for m in moved)
    assert 0 < near < far


def test_a_transform_of_ones_own_of_any_size_and_type():
    for own in (v2.RandomCrop(20), v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.GaussianNoise()])):
        samples = augmented(pictures(), own, 0).view(1, 0)
        batch = samples.batch(SOME)
        assert batch.shape == (3, 3, 32, 32)
        assert torch.equal(batch, samples.batch(SOME))


ERRORS = [
    ("standart", "no augmentation 'standart'; did you mean 'standard'?"),
    (3, "--augment takes none, light, standard, strong or a transform, not a int"),
    (v2.Compose([v2.RandomCrop(8), v2.Normalize([0.5], [0.5])]), "holds a Normalize, and tlnb normalises"),
]


@pytest.mark.parametrize(("augment", "message"), ERRORS)
def test_what_cannot_be_used_is_one_line(augment, message):
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        load_data("digits", augment=augment)


def test_a_transform_that_gives_no_picture_is_one_line():
    for own in (lambda x: "text", lambda x: x.flatten(), lambda x: x.long()):
        with pytest.raises(DataError, match="the augmentation"):
            augmented(pictures(), own, 0).batch(SOME)


def test_rows_of_numbers_cannot_be_augmented():
    with pytest.raises(DataError, match="augmentation needs pictures"):
        augmented(TensorSamples(torch.zeros(4, 2), torch.zeros(4)), "light", 0)


def test_every_way_to_draw_follows_the_stream():
    def draw():
        empty = torch.empty(3)
        return torch.cat(
            [
                torch.rand(3), torch.randn(3), torch.randint(9, (3,)), torch.randperm(9),
                torch.rand_like(empty), torch.randn_like(empty), empty.clone().uniform_(),
                empty.clone().normal_(), torch.normal(0.0, 1.0, (3,)), torch.bernoulli(torch.full((9,), 0.5)),
                torch.multinomial(torch.ones(9), 3).float(),
            ]
        )  # fmt: skip

    with own_stream(5):
        first = draw()
    state = torch.get_rng_state()
    with own_stream(5):
        assert torch.equal(first, draw())
    with own_stream(6):
        assert not torch.equal(first, draw())
    assert torch.equal(state, torch.get_rng_state())


def test_files_are_augmented_from_before_the_crop(tmp_path):
    data = load_data(class_folders(tmp_path / "data"), augment="standard")
    train, valid = data.samples(PRESET)
    assert (train.random, valid.random) == (True, False)
    whole = train.whole(torch.tensor([0]))[0]
    assert whole.shape == (3, 36, 45)
    assert train.view(1, 0).batch(torch.arange(4)).shape == (4, 3, 32, 32)
    assert "augmentation standard" in repr(data)


SMALL, LARGE = (8, 8), (90, 120)


@pytest.mark.parametrize("preprocess", [PRESET, GREY], ids=["cropped", "not cropped"])
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
def test_changes_start_from_the_pictures_as_they_would_be_without_changes(preprocess, shape, kept):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (6, 1, *shape), dtype=torch.uint8, generator=generator)
    found = Pictures(images, torch.arange(6))
    plain = (found if kept else ReadPictures(TensorReader(images), found.targets)).prepare(preprocess)
    every = torch.arange(6)
    whole = torch.stack(plain.whole(every))
    assert min(whole.shape[-2:]) == (preprocess.resize or 32)
    assert torch.equal(v2.functional.center_crop(whole, [32, 32]), plain.pixels(every))
    still = augmented(plain, v2.CenterCrop(32), 0).view(1, 0)
    assert torch.equal(still.pixels(every), plain.pixels(every))
