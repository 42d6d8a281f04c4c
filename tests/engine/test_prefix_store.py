"""Where features are kept, within which budget, and that none is ever stale."""

from __future__ import annotations

import json

import pytest
import torch
from lively import lively
from networks import blobs
from torch import nn

from tlnb.engine.data.preprocess import Preprocess
from tlnb.engine.data.samples import ImageSamples
from tlnb.engine.features import cache as feature_cache
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.features.files import FeatureFolder, MappedRows
from tlnb.engine.features.planner import CacheRequest, FeaturePlanner
from tlnb.engine.features.prefix import PassingSamples
from tlnb.engine.features.samples import FeatureSamples
from tlnb.engine.network.layers import find_layers

CPU = torch.device("cpu")
EVERYTHING = torch.arange(90)


def pictures(count: int = 90) -> ImageSamples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    preprocess = Preprocess(channels=1, size=(8, 8), resize=None, mean=(0.5,), std=(0.5,))
    return ImageSamples(images, torch.arange(count) % 3, preprocess)


def kept(cache, model, samples, frozen=(0, 1)):
    """What a stage with these frozen layers trains on."""
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    return (
        FeaturePlanner(cache)
        .forward_plan(model, layers, CacheRequest(frozen), (samples, blobs(30, seed=1)), CPU)
        .train
    )


def expected(model, samples, cut=2):
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    return layers.graph.split(cut)[0](samples.batch(torch.arange(len(samples)))).detach()


@pytest.fixture
def eager(monkeypatch):
    """Files are written for any features, however cheap."""
    monkeypatch.setattr(feature_cache, "WORTH_A_FILE", 0.0)
    monkeypatch.setattr(feature_cache, "WRITING_SHARE", float("inf"))
    monkeypatch.setattr(FeatureFolder, "speed", 1e15)


# -------------------------------------------------------------------- never stale


def change_image(model, samples):
    samples.images[7, 0, 3, 3] ^= 1


def change_transform(model, samples):
    samples.preprocess = Preprocess(channels=1, size=(8, 8), resize=None, mean=(0.4,), std=(0.5,))


def change_weight(model, samples):
    with torch.no_grad():
        model.body[4].weight[0, 0, 0, 0] += 0.5


def change_weight_unseen(model, samples):
    model.body[4].weight.data[0, 0, 0, 0] += 0.5  # torch does not count this write


def change_statistics(model, samples):
    model.body[5].running_mean += 1.0


def change_setting(model, samples):
    model.body[1].eps = 0.1


def change_padding(model, samples):
    model.body[4].padding_mode = "circular"
    model.body[4].__init__(4, 4, 3, padding=1, padding_mode="circular")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.body[4].reset_parameters()


CHANGES = [
    change_image, change_transform, change_weight, change_weight_unseen, change_statistics, change_setting,
    change_padding,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["memory", "file"])
def test_a_change_never_serves_what_was_kept_before(change, place, tmp_path, eager):
    model, samples, cache = lively(), pictures(), FeatureCache(tmp_path)
    before = kept(cache, model, samples).batch(EVERYTHING)
    change(model, samples)
    after = kept(cache if place == "memory" else FeatureCache(tmp_path), model, samples).batch(EVERYTHING)
    torch.testing.assert_close(after, expected(model, samples), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after)


def test_another_cut_is_another_key(tmp_path, eager):
    model, samples, cache = lively(), pictures(), FeatureCache(tmp_path)
    for frozen in ((0, 1), (0,), (0, 1, 2), (0, 1)):
        rows = kept(cache, model, samples, frozen).batch(EVERYTHING)
        torch.testing.assert_close(rows, expected(model, samples, len(frozen)), rtol=1e-4, atol=1e-5)


def test_a_class_defined_again_under_its_name_is_another_key():
    def define(scale):
        source = f"class Scaled(nn.Module):\n    def forward(self, x):\n        return x * {scale}"
        names = {"nn": nn, "__name__": "notebook"}
        exec(source, names)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(names["Scaled"](), nn.ReLU()))
            return nn.Sequential(body, nn.Flatten(), nn.Linear(72, 3)).eval()

    cache, samples = FeatureCache(), pictures()
    one, two = (kept(cache, define(s), samples, (0,)).batch(EVERYTHING) for s in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one)


def test_the_same_again_is_found_and_not_computed():
    model, samples, cache = lively(), pictures(), FeatureCache()
    first = kept(cache, model, samples)
    spent = cache.spent
    second = kept(cache, model, pictures())
    assert second.features is first.features
    assert cache.spent == spent


# -------------------------------------------------------------------- budget and place


def test_a_budget_smaller_than_the_features_is_honoured():
    model, samples = lively(), pictures()
    size = expected(model, samples).nbytes
    cache = FeatureCache(memory=size - 1)
    forward_plan = kept(cache, model, samples)
    assert isinstance(forward_plan, PassingSamples)
    assert cache.bytes("memory") <= size - 1
    torch.testing.assert_close(forward_plan.batch(EVERYTHING), expected(model, samples))


def test_cuts_of_coming_stages_share_the_budget():
    model, samples = lively(), pictures()
    layers = find_layers(model, torch.zeros(1, 1, 8, 8))
    sizes = [expected(model, samples, cut).nbytes for cut in (1, 2)]
    cache = FeatureCache(memory=sum(sizes) - 1)
    cache_request = CacheRequest((0, 1), [(0,)])
    forward_plan = FeaturePlanner(cache).forward_plan(
        model, layers, cache_request, (samples, blobs(1, seed=1)), CPU
    )
    assert isinstance(forward_plan.train, FeatureSamples)
    assert len(forward_plan.train.features.rows) == 90
    assert cache.bytes("memory") < sum(sizes)


def test_what_was_used_longest_ago_makes_room():
    model, samples = lively(), pictures()
    size = expected(model, samples).nbytes
    cache = FeatureCache(memory=int(1.5 * size))
    kept(cache, model, samples, (0,))
    kept(cache, model, samples, (0, 1))
    assert cache.bytes("memory") <= int(1.5 * size)
    assert isinstance(kept(cache, model, samples, (0, 1)), FeatureSamples)


def test_features_that_do_not_fit_memory_lie_in_a_file(tmp_path, eager):
    model, samples = lively(), pictures()
    cache = FeatureCache(tmp_path, memory=10)
    train = kept(cache, model, samples)
    assert train.features.place == "file"
    train.RELEASE_AFTER = 1  # let go of the file's pages after each batch
    for indices in torch.randperm(90).split(16):
        torch.testing.assert_close(train.batch(indices), expected(model, samples)[indices])
    assert cache.bytes("memory") == 0
    assert cache.bytes("file") == sum(p.stat().st_size for p in tmp_path.glob("*.rows"))


def test_no_file_is_written_where_reading_costs_more_than_computing(tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureFolder, "speed", 1.0)
    train = kept(FeatureCache(tmp_path, memory=10), lively(), pictures())
    assert isinstance(train, PassingSamples)
    assert not list(tmp_path.glob("*.rows"))


def test_cheap_features_leave_no_files(tmp_path):
    kept(FeatureCache(tmp_path), lively(), pictures())
    assert not list(tmp_path.iterdir())


def test_a_new_kernel_finds_the_files_of_the_last_one(tmp_path, eager):
    model, samples = lively(), pictures()
    before = kept(FeatureCache(tmp_path), model, samples).batch(EVERYTHING)
    cache = FeatureCache(tmp_path)
    after = kept(cache, lively(), pictures())
    assert after.features.place == "file"
    assert cache.spent == 0
    assert torch.equal(after.batch(EVERYTHING), before)


@pytest.mark.parametrize("damage", ["short", "json", "shape", "gone"])
def test_a_damaged_file_is_computed_anew(damage, tmp_path, eager):
    model, samples = lively(), pictures()
    kept(FeatureCache(tmp_path), model, samples)
    for path in tmp_path.glob("*.json"):
        rows = path.with_suffix(".rows")
        if damage == "short":
            rows.write_bytes(rows.read_bytes()[:-4])
        elif damage == "json":
            path.write_text("{")
        elif damage == "shape":
            path.write_text(json.dumps({**json.loads(path.read_text()), "shape": [1, 2]}))
        else:
            rows.unlink()
    again = kept(FeatureCache(tmp_path), model, samples).batch(EVERYTHING)
    torch.testing.assert_close(again, expected(model, samples))


def test_an_unfinished_file_is_nobodys(tmp_path, eager):
    folder = FeatureFolder(tmp_path)
    mapped = folder.create((4, 2), torch.float32)
    mapped.rows.fill_(1.0)
    assert folder.find("key") is None
    folder.keep("key", mapped, seconds=1.0, channels_last=True)
    rows, about = folder.find("key")
    assert torch.equal(rows.rows, torch.ones(4, 2))
    assert about == {"seconds": 1.0, "channels_last": True}
    assert not list(tmp_path.glob("*.part"))


def test_the_oldest_files_go_when_the_folder_is_full(tmp_path):
    folder = FeatureFolder(tmp_path, cap=100)
    for name in ("a", "b", "c"):
        assert folder.room(40)
        mapped = folder.create((10,), torch.float32)
        folder.keep(name, mapped, seconds=1.0, channels_last=False)
    assert [folder.find(name) is not None for name in ("a", "b", "c")] == [False, True, True]
    assert not folder.room(101)
    assert folder.bytes <= 100


def test_bfloat16_rows_come_back_from_a_file(tmp_path):
    path = tmp_path / "rows"
    rows = torch.randn(5, 3).bfloat16()
    MappedRows(path, (5, 3), torch.bfloat16, create=True).rows.copy_(rows)
    assert torch.equal(MappedRows(path, (5, 3), torch.bfloat16).rows, rows)


# -------------------------------------------------------------------- an accelerator


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("fits", [True, False])
def test_features_on_an_accelerator(fits, monkeypatch):
    monkeypatch.setattr(feature_cache, "_device_budget", lambda device: (1 << 30) * fits)
    device = torch.device("cuda")
    model, samples = lively(), pictures()
    wanted = expected(model, samples)
    model.to(device)
    layers = find_layers(model, torch.zeros(1, 1, 8, 8, device=device))
    forward_plan = FeaturePlanner(FeatureCache(), dtype_policy="fp32").forward_plan(
        model, layers, CacheRequest((0, 1)), (samples, blobs(30, seed=1)), device
    )
    assert forward_plan.train.features.place == ("device" if fits else "memory")
    batch = forward_plan.train.batch(EVERYTHING)
    assert batch.device.type == "cuda"
    torch.testing.assert_close(batch.cpu(), wanted, rtol=1e-3, atol=1e-3)
