"""Sounds as data: the front end, the files that can be used and those that cannot, the pieces of clips."""

from __future__ import annotations

import re
import struct
import sys

import numpy as np
import pytest
import torch
from pictures import JPEG, class_folders
from sounds import tone, tone_folders, write

from tlnb.engine.core.objectives import Classification, MultiLabel, Regression
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.sound.files import check_sound
from tlnb.engine.data.sound.front_end import LogMel, piece_starts
from tlnb.engine.data.wholes import of_wholes, worst_pieces
from tlnb.errors import DataError

pytest.importorskip("soundfile")
SMALL = Preprocess(1, (24, 24), None)


def names(part):
    return [part.name(i) for i in range(len(part))]


# ---------------------------------------------------------------- the front end


def levels_by_hand(wave, rate, bands, frame, hop, size):
    """Log-mel levels by the definitions: sums over samples for each bin, triangles point by point."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    bins = np.exp(-2j * np.pi * np.outer(np.arange(frame), np.arange(size // 2 + 1)) / size)
    mel = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    corners = 700 * (10 ** (np.arange(bands + 2) * mel(rate / 2) / (bands + 1) / 2595) - 1)
    rows = []
    for centre in range(0, len(wave) + 1, hop):
        cut = [
            wave[t] if 0 <= t < len(wave) else 0
            for t in range(centre - frame // 2, centre - frame // 2 + frame)
        ]
        power = np.abs((np.array(cut, np.float64) * window) @ bins) ** 2 * 4 / window.sum() ** 2
        row = []
        for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                f = k * rate / size
                total += p * max(0.0, min((f - low) / (middle - low), (high - f) / (high - middle)))
            row.append(10 * np.log10(max(total, 1e-14)))
        rows.append(row)
    return np.array(rows).T


@pytest.mark.parametrize(("rate", "bands"), [(8000, 64), (4000, 20)])
def test_log_mel_levels_are_those_of_the_definition(rate, bands):
    from tlnb.engine.data.sound.front import log_mel

    front = LogMel(0.1, bands, rate)
    wave = tone(700, 0.1, rate) + tone(1300, 0.1, rate, seed=1) / 50
    found = log_mel(wave, rate, bands, front.frame, front.hop, front.transform)
    by_hand = levels_by_hand(wave, rate, bands, front.frame, front.hop, front.transform)
    assert found.shape == by_hand.shape == (bands, 11)
    assert np.abs(found - by_hand).max() < 0.02


def test_pictures_have_low_sounds_at_the_bottom_and_black_at_the_depth():
    front = LogMel(0.5, 40, 8000)
    low, high = (front.picture(tone(hertz, 0.5)) for hertz in (200, 3000))
    assert low.shape == (1, 40, 51)
    assert low.dtype == torch.uint8
    assert int(low[0].float().mean(1).argmax()) > 30 > 12 > int(high[0].float().mean(1).argmax())
    assert int(low.max()) == 255
    assert not front.picture(np.zeros(4000, np.float32)).any()
    quiet = front.picture(tone(200, 0.5) / 100)
    assert (quiet.int() - low.int()).abs().max() <= 1, "a quieter recording looks the same"


def test_constants_follow_from_the_rate():
    front = LogMel(1.0, 64, 16000)
    assert (front.frame, front.hop, front.transform) == (400, 160, 1024)
    assert {"window": 1.0, "bands": 64, "rate": 16000, "hop": 160}.items() <= front.to_dict().items()


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("subtype", "suffix"),
    [("PCM_U8", ".wav"), ("PCM_24", ".wav"), ("PCM_32", ".wav"), ("FLOAT", ".wav"), ("DOUBLE", ".wav"),
     ("ULAW", ".wav"), ("PCM_16", ".flac"), ("PCM_24", ".flac")],
)  # fmt: skip
def test_any_depth_gives_the_same_picture(tmp_path, subtype, suffix):
    for number in range(6):
        wave = tone(500 + 100 * number, seed=number)
        write(tmp_path / "plain" / "ab"[number % 2] / f"{number}.wav", wave)
        write(tmp_path / "other" / "ab"[number % 2] / f"{number}{suffix}", wave, subtype=subtype)
    pictures = []
    for folder in ("plain", "other"):
        data = load_data(tmp_path / folder, valid=0.34)
        assert not data.problems
        pictures.append(data.samples(SMALL)[0].pixels(torch.arange(len(data.train))).float())
    # The noise of eight bits shows in the dark.
    assert (pictures[0] - pictures[1]).abs().mean() < (25 if subtype in ("PCM_U8", "ULAW") else 1)


def test_other_rates_and_several_channels_become_the_rate_and_their_mean(tmp_path):
    for number in range(6):
        wave = tone(500, seed=number, rate=8000)
        write(tmp_path / "a" / "ab"[number % 2] / f"{number}.wav", wave)
        fine = tone(500, seed=number, rate=44100)
        write(
            tmp_path / "b" / "ab"[number % 2] / f"{number}.wav", np.stack([fine * 1.2, fine * 0.8], 1), 44100
        )
    one = load_data(tmp_path / "a", window=0.4, rate=8000)
    two = load_data(tmp_path / "b", window=0.4, rate=8000)
    assert "6 files with several channels: their mean is used" in repr(two)
    a, b = (d.samples(SMALL)[0].pixels(torch.arange(4)).float() for d in (one, two))
    assert (a[:, 0, 12:].amax(1) - b[:, 0, 12:].amax(1)).abs().mean() < 12


def wav(
    content: bytes = b"\0\1" * 800, *, rate: int = 8000, length: int | None = None, channels: int = 1
) -> bytes:
    """The bytes of a WAV with a header of its own."""
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * rate % 2**32, 2 * channels, 16)
    length = len(content) if length is None else length
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", length)
    return b"RIFF" + struct.pack("<I", len(head) + len(content)) + head + content


BAD = {
    "empty.wav": (b"", "empty: 0 bytes"),
    "none.wav": (wav(b""), "empty: no samples"),
    "cut.wav": (wav(length=16000), "cut off: 16,000 bytes of samples are announced, 1,600 are there"),
    "head.wav": (wav()[:30], "cut off in its header"),
    "text.wav": (b"this is a text, in lines", "text, not a sound"),
    "photo.wav": (JPEG, "a JPEG picture, not a sound"),
    "song.wav": (b"ID3\x04" + bytes(200), "an MP3; wav and flac are read"),
    "zero.wav": (bytes(500), "only zero bytes"),
    "slow.wav": (wav(rate=7), "a rate of 7 Hz"),
    "fast.wav": (wav(rate=2**31), "a rate of|damaged"),
    "many.wav": (wav(bytes(2 * 500 * 8), channels=500), "channels|damaged"),
    "cut.flac": (b"fLaC" + bytes(60), "damaged"),
    "wrong.flac": (wav(), "a WAV file named .flac; rename it to .wav"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_has_a_reason(tmp_path, name):
    content, reason = BAD[name]
    (tmp_path / name).write_bytes(content)
    assert re.search(reason, check_sound(tmp_path / name).reason)


def test_hostile_lengths_are_refused_before_any_memory_is_asked_for(tmp_path):
    path = write(tmp_path / "x.flac", tone(400))
    content = bytearray(path.read_bytes())
    # The number of samples is the 36 bits before the checksum of the first block of metadata.
    content[21] |= 0x0F
    content[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert re.search("hours long|cut off|damaged", check_sound(path).reason)


def test_a_flac_that_is_cut_off_has_a_reason(tmp_path):
    path = write(tmp_path / "x.flac", np.random.default_rng(0).standard_normal(40000).astype(np.float32) / 8)
    path.write_bytes(path.read_bytes()[:20000])
    assert re.search("cut off|damaged", check_sound(path).reason)


def test_bad_files_are_listed_and_left_out(tmp_path):
    root = tone_folders(tmp_path / "data")
    for name, (content, _) in BAD.items():
        (root / "low" / name).write_bytes(content)
    (root / "low" / "notes.txt").write_text("x")
    data = load_data(root)
    assert len(data.train) + len(data.valid) == 16
    assert {problem.path for problem in data.problems} == {f"low/{name}" for name in (*BAD, "notes.txt")}
    with pytest.raises(DataError, match="--strict"):
        load_data(root, strict=True)


def test_one_line_where_soundfile_is_missing(tmp_path, monkeypatch):
    root = tone_folders(tmp_path / "data", each=4)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=re.escape('pip install "tlnb[sound]"')):
        load_data(root)


# ---------------------------------------------------------------- clips, pieces, options


def test_guesses_are_said_with_the_option_that_changes_them(tmp_path):
    root = tone_folders(tmp_path / "data")
    text = repr(load_data(root))
    assert "log-mel pictures: 0.4 s (as clips are long; --window), 64 bands (--bands), 8,000 Hz" in text
    assert "13 training and 3 validation clips" in text or "12 training and 4 validation clips" in text
    told = repr(load_data(root, window=0.3, bands="40", rate=4000))
    assert "0.3 s, 40 bands, 4,000 Hz\n" in told


def test_long_clips_are_cut_and_stay_together_and_counts_say_clips(tmp_path):
    data = load_data(tone_folders(tmp_path / "data", long=(0, 5)), window=0.4)
    assert len(data.train) + len(data.valid) == 16
    assert "4 clips are longer and are cut into 12 pieces" in repr(data)
    train, valid = data.samples(SMALL)
    assert len(train) + len(valid) == 16 + 8
    for part, samples in ((data.train, train), (data.valid, valid)):
        if samples.wholes is not None:
            assert torch.equal(samples.targets, part.targets[samples.wholes])


@pytest.mark.parametrize(
    ("seconds", "window", "starts"),
    [(0.3, 0.5, [0]), (0.5, 0.5, [0]), (0.505, 0.5, [0]), (1.0, 0.5, [0, 0.5]), (1.1, 0.5, [0, 0.3, 0.6])],
)
def test_pieces_are_spread_evenly_and_the_last_ends_with_the_clip(seconds, window, starts):
    assert piece_starts(seconds, window) == pytest.approx(starts)


def test_a_piece_is_that_part_of_the_clip(tmp_path):
    wave = np.concatenate([tone(400, 0.4), tone(1500, 0.4)])
    for name in "ab":
        for number in range(4):
            write(tmp_path / "long" / name / f"{number}.wav", wave + number / 10000)
    samples = load_data(tmp_path / "long", window=0.4).samples(SMALL)[0]
    first, second = samples.pixels(torch.tensor([0, 1])).float()[:, 0].mean(2)
    assert first[8:].sum() > second[8:].sum()
    assert int(first.argmax()) > int(second.argmax())


def test_equal_clips_stay_on_one_side(tmp_path):
    root = tone_folders(tmp_path / "data")
    for name in ("low", "high"):
        for index in range(4):
            copy = (root / name / f"{index}_{['ann', 'bob', 'cid', 'dee'][index]}_.wav").read_bytes()
            (root / name / f"copy{index}.wav").write_bytes(copy)
    data = load_data(root, valid=0.4)
    assert "8 samples are byte-equal to others" in repr(data)
    sides = [set(part.digests()) for part in (data.train, data.valid)]
    assert not sides[0] & sides[1]


def test_groups_by_a_column_and_by_an_expression_are_the_same_speakers(tmp_path):
    root = tone_folders(tmp_path / "data", each=12)
    rows = ["file,pitch,speaker"]
    rows += [
        f"{p.parent.name}/{p.name},{p.parent.name},{p.name.split('_')[1]}"
        for p in sorted(root.rglob("*.wav"))
    ]
    (root / "clips.csv").write_text("\n".join(rows))
    by_column = load_data(root / "clips.csv", label="pitch", groups="speaker", valid=0.25)
    by_name = load_data(root / "clips.csv", label="pitch", groups=r"_(\w+)_", valid=0.25)
    assert names(by_column.valid) == names(by_name.valid)
    speakers = [{name.split("_")[1] for name in names(part)} for part in (by_column.train, by_column.valid)]
    assert len(speakers[1]) == 1
    assert not speakers[0] & speakers[1]
    folder = load_data(root, groups=r"_(\w+)_", valid=0.25)
    assert len({name.split("_")[1] for name in names(folder.valid)}) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "--window takes"),
        ({"window": 0.001}, "--window takes seconds"),
        ({"window": 1e9}, "--window"),
        ({"window": "x"}, "--window"),
        ({"rate": 3}, "--rate takes samples a second"),
        ({"rate": 1.5}, "--rate"),
        ({"bands": "4,3,2"}, "how many mel bands"),
        ({"bands": "2"}, "8 to 512"),
        ({"range": "0,4095"}, "sounds have no black and white"),
    ],
)
def test_options_that_no_sound_can_have_are_one_line(tmp_path, options, words):
    root = tone_folders(tmp_path / "data", each=4)
    with pytest.raises(DataError, match=words) as caught:
        load_data(root, **options)
    assert "\n" not in str(caught.value)


def test_pictures_have_no_window(tmp_path):
    with pytest.raises(DataError, match="no sounds; --window means nothing here"):
        load_data(class_folders(tmp_path / "data"), window=1.0)


def test_a_folder_with_both_reads_what_there_is_more_of(tmp_path):
    root = tone_folders(tmp_path / "data")
    (root / "low" / "cover.jpg").write_bytes(JPEG)
    data = load_data(root)
    assert data.sound is not None
    assert ("low/cover.jpg", "not a sound by its name (.jpg)") in data.problems


# ---------------------------------------------------------------- the answers of pieces


def test_answers_of_pieces_are_averaged_for_every_kind_of_target():
    torch.manual_seed(0)
    scores, wholes = torch.randn(5, 3), torch.tensor([0, 0, 1, 2, 2])
    groups = [[0, 1], [2], [3, 4]]
    classes = torch.tensor([2, 2, 0, 1, 1])
    found, targets = of_wholes(Classification(), scores, classes, wholes)
    expected = torch.stack([scores[g].softmax(1).mean(0) for g in groups])
    assert torch.allclose(Classification().answers(found), expected, atol=1e-6)
    assert targets.tolist() == [2, 0, 1]
    labels, _ = of_wholes(MultiLabel(), scores, (scores > 0).float(), wholes)
    expected = torch.stack([scores[g].sigmoid().mean(0) for g in groups])
    assert torch.allclose(labels.sigmoid(), expected, atol=1e-6)
    values, _ = of_wholes(Regression((0.0,) * 3, (1.0,) * 3), scores, scores, wholes)
    assert torch.allclose(values, torch.stack([scores[g].mean(0) for g in groups]), atol=1e-6)
    assert worst_pieces(torch.tensor([1.0, 3.0, 0.0, 2.0, 1.0]), wholes).tolist() == [1, 2, 3]
