"""Published weights over HTTP, from a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision

from tlnb.engine.models.catalogue import load_model
from tlnb.engine.models.published import build
from tlnb.engine.models.weights import download
from tlnb.errors import WeightsError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield folder, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", None)  # a folder that was set goes before the variable
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def publish(folder: Path) -> str:
    """A file of SqueezeNet's weights under a name with its hash."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(build("squeezenet1_1").state_dict(), folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    return (folder / "new.pth").rename(folder / f"squeezenet1_1-{digest}.pth").name


def test_a_named_model_downloads_once(
    site: tuple[Path, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = site
    name = publish(folder)
    entry = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    patched = type(entry.value)(f"{address}/{name}", entry.transforms, entry.meta)
    monkeypatch.setattr(entry, "_value_", patched)
    said: list[str] = []
    loaded = load_model("squeezenet1_1", log=said.append)
    assert said == [f"downloading {name} to {cache}"]
    assert [path.name for path in cache.iterdir()] == [name]
    assert (loaded.weights, loaded.task) == ("IMAGENET1K_V1", "imagenet")
    assert torch.equal(
        loaded.model.features[0].weight, torch.load(folder / name, weights_only=True)["features.0.weight"]
    )
    (folder / name).unlink()
    load_model("squeezenet1_1", log=said.append)
    assert len(said) == 1


def test_a_wrong_hash_leaves_nothing_behind(site: tuple[Path, str], cache: Path) -> None:
    folder, address = site
    (folder / "net-00000000.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"cannot download net-00000000\.pth \(invalid hash value"):
        download(f"{address}/net-00000000.pth", lambda text: None)
    assert list(cache.iterdir()) == []


def test_a_missing_file_is_one_line(site: tuple[Path, str]) -> None:
    with pytest.raises(WeightsError) as error:
        download(f"{site[1]}/gone-12345678.pth", lambda text: None)
    text = str(error.value)
    assert "cannot download gone-12345678.pth (" in text
    assert "--weights FILE" in text
    assert "\n" not in text


def test_no_network_is_one_line() -> None:
    with pytest.raises(WeightsError, match=r"cannot download net-12345678\.pth \(.*refused"):
        download("http://127.0.0.1:9/net-12345678.pth", lambda text: None)


def test_a_damaged_file_in_the_cache_is_named(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "net-12345678.pth").write_bytes(b"cut off")
    with pytest.raises(WeightsError, match=r"net-12345678\.pth is damaged: its SHA-256 starts with"):
        download("http://127.0.0.1:9/net-12345678.pth", lambda text: None)
