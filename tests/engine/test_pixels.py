"""Pixels: one black and white for a data set, whatever kind of file they stand in, and which bands are used."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from pictures import png
from PIL import Image
from torch.utils.data import Dataset

from tlnb.engine.data.images.check import check_file
from tlnb.engine.data.images.scale import PixelScale
from tlnb.engine.data.images.tiff import tiff_header, tiff_values
from tlnb.engine.data.load import load_data
from tlnb.engine.data.preprocess import Preprocess
from tlnb.errors import DataError

GREY, COLOUR = (
    Preprocess(1, (8, 8), None, (0.0,), (1.0,)),
    Preprocess(3, (8, 8), None, (0.0,) * 3, (1.0,) * 3),
)


def tiff(values, *, photometric=1, extra=None, packed=1, predictor=1, planar=False, order="<"):
    """A TIFF of one strip: (H, W, bands), of any type."""
    height, width, bands = values.shape
    body = values.astype(values.dtype.newbyteorder(order))
    parts = [body[..., band] for band in range(bands)] if planar else [body]
    if predictor == 2:
        parts = [np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1])) for part in parts]
    blobs = [part.astype(part.dtype.newbyteorder(order)).tobytes() for part in parts]
    blobs = [zlib.compress(blob) if packed == 8 else blob for blob in blobs]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8 * values.dtype.itemsize] * bands), (259, 3, [packed]),
        (262, 3, [photometric]), (273, 4, None), (277, 3, [bands]), (278, 4, [height]),
        (279, 4, [len(blob) for blob in blobs]), (284, 3, [2 if planar else 1]), (317, 3, [predictor]),
        *([(338, 3, list(extra))] if extra is not None else []), (339, 3, [kind] * bands),
    ]  # fmt: skip
    at, places = 8, []
    for blob in blobs:
        places.append(at)
        at += len(blob)
    tail, rows = b"", b""
    for tag, type_, numbers in entries:
        numbers = places if numbers is None else numbers
        content = struct.pack(f"{order}{len(numbers)}{'H' if type_ == 3 else 'I'}", *numbers)
        if len(content) > 4:
            place = struct.pack(order + "I", at + len(tail))
            tail += content
        else:
            place = content.ljust(4, b"\0")
        rows += struct.pack(order + "HHI", tag, type_, len(numbers)) + place
    directory = at + len(tail)
    sign = b"II*\0" if order == "<" else b"MM\0*"
    return (
        sign + struct.pack(order + "I", directory) + b"".join(blobs) + tail
        + struct.pack(order + "H", len(entries)) + rows + b"\0\0\0\0"
    )  # fmt: skip


def deep_png(values):
    """A PNG of 16 bits: (H, W, bands)."""
    height, width, bands = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def folder(root, make, count=6, suffix=".png"):
    """Two class folders of pictures; ``make(number)`` gives the bytes."""
    for number in range(2 * count):
        place = root / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}{suffix}").write_bytes(make(number))
    return root


def pixels(data, preprocess=GREY):
    """Training pictures by their names, each (C, H, W)."""
    samples = data.samples(preprocess)[0]
    every = samples.pixels(torch.arange(len(samples)))
    return {data.train.name(i): picture for i, picture in enumerate(every)}


def ramp(most, bands=1, number=0):
    flat = np.linspace(0, most, 64).astype(np.uint16).reshape(8, 8, 1)
    return np.roll(np.repeat(flat, bands, 2), number, 1)


KINDS = {
    "grey PNG": (lambda v: deep_png(v), ".png", 1),
    "colour PNG": (lambda v: deep_png(v), ".png", 3),
    "PNG with opacity": (
        lambda v: deep_png(np.concatenate([v, np.full_like(v[..., :1], 65535)], 2)),
        ".png",
        3,
    ),
    "grey PNG with opacity": (lambda v: deep_png(np.concatenate([v, np.full_like(v, 65535)], 2)), ".png", 1),
    "grey TIFF": (lambda v: tiff(v), ".tif", 1),
    "colour TIFF": (lambda v: tiff(v, photometric=2), ".tif", 3),
    "colour TIFF, deflated": (lambda v: tiff(v, photometric=2, packed=8, predictor=2), ".tif", 3),
    "colour TIFF, high byte first": (lambda v: tiff(v, photometric=2, order=">"), ".tif", 3),
    "colour TIFF, bands one by one": (lambda v: tiff(v, photometric=2, planar=True), ".tif", 3),
    "floating-point TIFF": (lambda v: tiff(v.astype(np.float32)), ".tif", 1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("most", "white"), [(1000, 1023), (4000, 4095), (16000, 16383), (65000, 65535)])
def test_deep_files_have_one_white_for_all(tmp_path, kind, most, white):
    make, suffix, bands = KINDS[kind]
    data = load_data(folder(tmp_path / "x", lambda n: make(ramp(most, bands, n)), suffix=suffix), valid=0.5)
    for name, picture in pixels(data, GREY if bands == 1 else COLOUR).items():
        number = int(name.split("/")[1].split(".")[0])
        expected = np.round(ramp(most, bands, number) * (255 / white))
        assert np.abs(picture.permute(1, 2, 0).numpy() - expected).max() <= 1
    assert any(f"{white} is white (--range 0,{white})" in note for note in data.notes)
    assert data.scale.white == white


@pytest.mark.parametrize("form", ["files", "array", "items", "list", "images"])
def test_one_bright_picture_does_not_darken_the_others(tmp_path, form):
    stack = np.stack([ramp(4000, 1, n)[..., 0] for n in range(16)])
    stack[5] = 65535
    data = load_data(source_of(form, stack, tmp_path), valid=0.5)
    assert data.scale.white == 4095
    assert any("brighter values, cut off there (--range 0,65535 keeps them)" in note for note in data.notes)
    assert max(tops(data)) > 240
    kept = load_data(source_of(form, stack, tmp_path / "again"), valid=0.5, range="0,65535")
    assert kept.scale.white == 65535
    assert min(tops(kept)) < 20


@pytest.mark.parametrize("form", ["files", "array", "items", "list", "images"])
def test_a_dark_first_picture_does_not_decide(tmp_path, form):
    stack = np.stack([ramp(4000, 1, n)[..., 0] for n in range(16)])
    stack[0] = 1
    data = load_data(source_of(form, stack, tmp_path), valid=0.5)
    assert data.scale.white == 4095
    assert sorted(tops(data))[1] == 249


def source_of(form, stack, root):
    targets = [0, 1] * (len(stack) // 2)
    if form == "files":
        return folder(root / "x", lambda n: deep_png(stack[n][..., None]), len(stack) // 2)
    if form == "array":
        return stack, targets
    if form == "list":
        return list(stack), targets
    if form == "images":
        return [Image.fromarray(picture) for picture in stack], targets

    class Items(Dataset):
        def __len__(self):
            return len(stack)

        def __getitem__(self, index):
            return stack[index], targets[index]

    return Items()


def tops(data):
    """The brightest of 0..255 in each training and validation picture."""
    train, valid = data.samples(GREY)
    both = [part.pixels(torch.arange(len(part))) for part in (train, valid)]
    every = torch.cat(both)
    every = every * 255 if every.is_floating_point() else every
    return [round(float(top)) for top in every.amax((1, 2, 3))]


def test_floats_beyond_one_are_pixels_where_the_first_item_is_black():
    class Items(Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, index):
            return torch.full((3, 8, 8), 10.0 * index), index % 2

    data = load_data(Items())
    assert data.scale.white == 255
    assert max(tops(data)) == 229  # luma of 230, cut off


def test_a_range_that_is_named_holds_for_eight_bits_too(tmp_path):
    def make(number):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8), 100 + number, np.uint8)).save(file, "PNG")
        return file.getvalue()

    stack = 100 + np.arange(12, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    for source in (folder(tmp_path / "x", make), (stack, [0, 1] * 6)):
        assert sorted(tops(load_data(source, valid=0.5, range=(100, 111))))[::11] == [0, 255]


@pytest.mark.parametrize("low", [-1024, 0])
def test_values_below_zero_need_a_range(tmp_path, low):
    def make(number):
        return tiff((ramp(4000, 1, number).astype(np.int32) + low).astype(np.int16))

    root = folder(tmp_path / "x", make, suffix=".tif")
    if low:
        with pytest.raises(DataError, match="--range -1024,2976"):
            load_data(root)
    data = load_data(root, valid=0.5, range=f"{low},{low + 4000}")
    assert {int(picture.max()) for picture in pixels(data).values()} == {255}
    assert {int(picture.min()) for picture in pixels(data).values()} == {0}


def bands_of(number, bands, dtype=np.uint8):
    values = np.empty((8, 8, bands), dtype)
    values[...] = 10 * np.arange(1, bands + 1)
    values[0, 0, :] = number
    return values


@pytest.mark.parametrize(("extra", "said"), [(None, True), ((0,), True), ((2,), False)])
def test_a_fourth_band_is_opacity_only_where_the_file_says_so(tmp_path, extra, said):
    root = folder(tmp_path / "x", lambda n: tiff(bands_of(n, 4), photometric=2, extra=extra), suffix=".tif")
    data = load_data(root, valid=0.5)
    seen = next(iter(pixels(data, COLOUR).values()))[:, 4, 4].tolist()
    assert (seen == [10, 20, 30]) == said
    assert any("a fourth band that is no opacity" in note for note in data.notes) == said


def test_many_bands_are_named_and_chosen(tmp_path):
    root = folder(tmp_path / "x", lambda n: tiff(bands_of(n, 6), extra=(0,) * 5), suffix=".tif")
    with pytest.raises(DataError, match="6 bands; say which are red, green and blue: --bands 1,2,3"):
        load_data(root)
    data = load_data(root, valid=0.5, bands="4,3,2")
    assert next(iter(pixels(data, COLOUR).values()))[:, 4, 4].tolist() == [40, 30, 20]
    assert pixels(load_data(root, valid=0.5, bands=[6]), GREY).popitem()[1][0, 4, 4] == 60
    with pytest.raises(DataError, match="6 bands; --bands names band 7"):
        load_data(root, bands="7")


def test_as_many_bands_as_the_network_takes(tmp_path):
    root = folder(tmp_path / "x", lambda n: tiff(bands_of(n, 6), extra=(0,) * 5), suffix=".tif")
    four = Preprocess(4, (8, 8), None, (0.0,) * 4, (1.0,) * 4)
    data = load_data(root, valid=0.5, bands="1,2,3,5")
    assert next(iter(pixels(data, four).values()))[:, 4, 4].tolist() == [10, 20, 30, 50]


def test_bands_of_arrays():
    stack = np.stack([bands_of(n, 6, np.uint16) * 50 for n in range(20)])
    data = load_data((stack, [0, 1] * 10), bands="4,3,2")
    assert data.train.images.shape == (16, 3, 8, 8)
    assert (data.train.images[0, :, 4, 4] * data.scale.white).round().tolist() == [2000, 1500, 1000]
    first = load_data((stack.transpose(0, 3, 1, 2).astype(np.float32), [0, 1] * 10), bands=(4, 3, 2))
    assert torch.equal(first.train.images, data.train.images)
    with pytest.raises(DataError, match="the pictures have 6 bands; --bands names band 9"):
        load_data((stack, [0, 1] * 10), bands=9)


def test_near_infrared_in_arrays_is_not_opacity():
    stack = np.stack([bands_of(n, 4) for n in range(20)])
    data = load_data((stack, [0, 1] * 10))
    assert data.train.images[0, :, 4, 4].tolist() == [10, 20, 30]
    assert any("a fourth band that is no opacity" in note for note in data.notes)


@pytest.mark.parametrize(
    "option", [{"range": "5,5"}, {"range": "dark"}, {"range": "nan,1"}, {"bands": "0,1"}, {"bands": "red"}]
)
def test_wrong_ranges_and_bands_are_one_line(option):
    with pytest.raises(DataError, match=r"--(range|bands) takes") as caught:
        load_data("digits", **option)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", ["tiff_lzw", "packbits", "tiff_adobe_deflate", None])
def test_our_reading_of_tiffs_is_pillows(tmp_path, packed):
    values = np.random.default_rng(0).integers(0, 50, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "x.tif", compression=packed)
    content = (tmp_path / "x.tif").read_bytes()
    header = tiff_header(content)
    assert header is not None
    assert np.array_equal(tiff_values(content, header), values)


def test_a_tiff_that_says_it_is_huge_is_refused_before_anything_is_made(tmp_path):
    content = bytearray(tiff(bands_of(0, 6), extra=(0,) * 5))
    for size, reason in (
        ((60000, 60000), "too large"),
        ((12000, 12000), "too large|damaged|cut off"),
        ((0, 8), "no pixels"),
    ):
        for tag, value in zip((256, 257), size, strict=True):
            at = bytes(content).index(struct.pack("<HHI", tag, 4, 1)) + 8
            content[at : at + 4] = struct.pack("<I", value)
        (tmp_path / "x.tif").write_bytes(content)
        assert any(
            word in check_file(tmp_path / "x.tif", scale=PixelScale(bands=(1, 2, 3))).reason
            for word in reason.split("|")
        )


def test_damaged_tiffs_are_one_line(tmp_path):
    good = tiff(bands_of(3, 6), extra=(0,) * 5, packed=8)
    rng = np.random.default_rng(0)
    for _ in range(300):
        bad = bytearray(good)
        for place in rng.integers(0, len(bad), 3):
            bad[place] = rng.integers(0, 256)
        (tmp_path / "x.tif").write_bytes(bad[: rng.integers(20, len(bad) + 1)])
        verdict = check_file(tmp_path / "x.tif", scale=PixelScale(bands=(1, 2, 3)))
        assert "\n" not in verdict.reason


def test_sides_that_no_memory_holds_are_refused():
    with pytest.raises(DataError, match="--size 20000: a picture would take"):
        load_data("digits", size=20_000)


def test_one_value_spread_over_gigabytes_is_refused():
    with pytest.raises(DataError, match="GB are free"):
        load_data((torch.zeros(1).expand(10**7, 3, 224, 224), torch.zeros(10**7)))


def test_a_network_of_other_bands_than_the_pictures_is_one_line(tmp_path):
    def picture(n):
        stream = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), 10 * n, np.uint8)).save(stream, "PNG")
        return stream.getvalue()

    root = folder(tmp_path / "x", picture, suffix=".png")
    for bands in (2, 4):
        other = Preprocess(bands, (8, 8), None, (0.0,) * bands, (1.0,) * bands)
        with pytest.raises(
            DataError, match=f"the pictures have 3 bands and the network takes {bands}; --bands"
        ):
            pixels(load_data(root, valid=0.5), other)
