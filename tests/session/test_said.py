"""What changes without being asked for is said in one line, with what changes it."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import forked
import numpy as np
import pandas as pd
import pytest
import torch
from faults.calls import pair, plain_net
from listening import Ear
from networks import small
from pictures import class_folders
from PIL import Image
from torch import nn

from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.data.sources import named
from tlnb.engine.training.history import Run
from tlnb.engine.training.records import EpochRecord, StageResult
from tlnb.engine.training.stage import Stage
from tlnb.errors import DataError, ModelError, TlnbError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TLNB_AUTOSAVE", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def tl(ear: Ear) -> Session:
    return Session([ear])


# ---------------------------------------------------------------- heads and epochs


def test_a_new_head_is_said_to_be_untrained(tl: Session, ear: Ear) -> None:
    tl.load(small(5), input="1,8,8")
    tl.data(pair(), batch=16)
    assert "the head is new and untrained, for 3 outputs: %tl_train fits it first" in ear.said
    ear.said.clear()
    tl.data(pair(60, 3, 9), batch=16)
    assert not [line for line in ear.said if "untrained" in line]


def record(epoch: int, figure: float, metric: str = "accuracy") -> EpochRecord:
    return EpochRecord(1, epoch, 3, (0,), 1e-3, 1.0, 1.0, figure, 0.1, "", metric)


@pytest.mark.parametrize(
    ("figures", "metric", "words"),
    [
        ((0.837, 0.725), "accuracy", "epoch 1 was better (83.7 %): --keep-best"),
        ((0.7, 0.9, 0.895), "accuracy", ""),
        ((0.7, 0.9), "accuracy", ""),
        ((2.0, 3.5), "mae", "epoch 1 was better (2.0000): --keep-best"),
        ((3.5, 2.0), "mae", ""),
    ],
)
def test_a_worse_last_epoch_is_said(figures: tuple[float, ...], metric: str, words: str) -> None:
    stage = StageResult(1, Stage("train", ()), (0,), 1e-3)
    stage.records = [record(n, figure, metric) for n, figure in enumerate(figures, 1)]
    shown = repr(Run([stage]))
    assert (words in shown) if words else "was better" not in shown


# ---------------------------------------------------------------- network and data that part


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(x).mean(1))


def test_a_network_that_runs_on_other_samples_drops_the_data_and_says_so(tl: Session, ear: Ear) -> None:
    tl.load("convnet5")
    tl.data("digits", per_class=3)
    tl.load(Text(), input="12")
    assert tl.view.data is None
    assert len(tl.layers) == 2
    assert any("so it is dropped: name data that fits (%tl_data)" in line for line in ear.said)
    tl.data((torch.arange(480).reshape(40, 12) % 50, torch.arange(40) % 2))
    tl.train(1, 0.01)
    # A network whose own input nobody knows proves nothing: it is refused, and all stays.
    before = tl.view.loaded
    with pytest.raises(ModelError):
        tl.load(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    assert tl.view.loaded is before


# ---------------------------------------------------------------- files from elsewhere


def forged(source: str) -> Path:
    """A file of this session whose data is renamed by somebody else."""
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=3)
    tl.save("own")
    found = checkpoint.read(Path("own.safetensors"))
    about = {name: value for name, value in found.about.items() if name != "format"}
    about["data"]["asked"]["source"] = source
    for task in about["tasks"]:
        if task["asked"]:
            task["asked"]["source"] = source
    checkpoint.write(Path("forged.safetensors"), checkpoint.Checkpoint(about, found.tensors))
    return Path("forged.safetensors")


@pytest.mark.parametrize("source", ["torchvision/CIFAR10", "/etc", "photos"])
def test_a_file_from_elsewhere_reads_and_downloads_nothing(
    tl: Session, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(Path("photos"))
    path = forged(source)
    asked: list[object] = []
    monkeypatch.setattr(named, "read", lambda *given: asked.append(given))
    said = str(tl.resume(str(path)))
    assert "it was saved elsewhere, so its data digits is not read unasked; name it again" in said
    assert tl.view.data is None
    assert not asked
    tl.head(task=tl.task)
    assert tl.view.data is None
    tl.data("digits", per_class=3)
    tl.train(1, 1e-3)


def test_what_was_saved_here_is_read_again_also_elsewhere_in_the_folders(
    tl: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(Path("photos"))
    tl.load("convnet5")
    tl.data("photos")
    tl.save("own")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    fresh = Session([])
    assert "data photos is read again" in str(fresh.resume("../own"))
    # Another user's tlnb has another key.
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "another"))
    assert "it was saved elsewhere" in str(Session([]).resume("../own"))
    # What the session has named by itself may be read.
    assert "is read again" in str(fresh.resume("../own"))
    assert (tmp_path / "home" / "key").stat().st_mode & 0o777 == 0o600


def test_what_ships_with_tlnb_is_read_whoever_saved_it(
    tl: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tl.load("convnet5")
    tl.data("digits", per_class=3)
    tl.save("own")
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "another"))
    assert "data digits is read again" in str(Session([]).resume("own"))


# ---------------------------------------------------------------- tables in memory


def test_a_data_frame_is_a_table(tl: Session, shell: object) -> None:
    class_folders(Path("pets"))
    rows = [(f"{name}/{i}.jpg", name, i == 0, 3.5 * i) for name in ("cats", "dogs") for i in range(6)]
    frame = pd.DataFrame(rows, columns=["file", "species", "is_valid", "weight"]).sample(
        frac=1, random_state=0
    )
    found = tl.data(frame, folder="pets")
    assert found.classes == ("cats", "dogs")
    assert len(found.valid) == 2
    assert "not used: weight" in repr(found)
    frame["file"] = "pets/" + frame["file"]
    frame.iloc[3, 1] = None
    assert "no label" in repr(tl.data(frame))
    assert tl.data(frame, label="weight", split="none").classes == ("weight",)
    with pytest.raises(DataError, match="holds numbers and no pictures; give inputs and targets as"):
        tl.data(pd.DataFrame(np.random.default_rng(0).random((9, 3))))
    for empty in (pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame({"path": [], "label": []})):
        with pytest.raises(DataError):
            tl.data(empty)


# ---------------------------------------------------------------- unknown targets


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([[1, 0, -1], [0, 1, 1], [1, 1, 0], [0, 0, 1]], "1 labels are -1"),
        ([[1, 0, -100], [0, 1, 1], [1, 1, 0], [0, 0, 1]], "1 labels are -100"),
        ([[1, 0, float("nan")], [0, 1, 1], [1, 1, 0], [0, 0, 1]], "1 labels are missing: taken as 0"),
    ],
)
def test_unknown_labels_are_said(tl: Session, targets: list[list[float]], words: str) -> None:
    found = tl.data((torch.randn(40, 6), np.tile(np.array(targets), (10, 1))))
    assert "labels" in repr(found)
    assert words.replace("1", "10", 1) in repr(found)


@pytest.mark.parametrize("sign", [-1, -100, -999])
def test_a_sign_among_measured_values_is_said(tl: Session, sign: int) -> None:
    values = np.linspace(0.5, 9.5, 40)
    values[::8] = sign
    said = repr(tl.data((torch.randn(40, 6), values)))
    assert f"5 targets are {sign}, and no other is below zero" in said
    assert "below zero" not in repr(tl.data((torch.randn(40, 6), np.linspace(-3.5, 9.5, 40))))


# ---------------------------------------------------------------- predictions


def test_predict_takes_the_bytes_of_a_file_without_a_word(tl: Session) -> None:
    tl.load("convnet5")
    tl.data("digits", per_class=3)
    picture, file = Image.effect_noise((20, 20), 60), io.BytesIO()
    picture.save(file, "png")
    content = file.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = tl.predict(picture).answers
        for source in (
            content, bytearray(content), memoryview(content), io.BytesIO(content), [content],
            ({"name": "a.png", "content": memoryview(content)},), np.asarray(picture),
        ):  # fmt: skip
            assert np.allclose(tl.predict(source).answers, expected, atol=1e-6)


def test_nothing_that_can_be_predicted_on_is_an_error_alone(tl: Session) -> None:
    tl.load("convnet5")
    tl.data("digits", per_class=3)
    Path("README.txt").write_text("no picture")
    for source in ("README.txt", ["README.txt", "README.txt"], b"no picture", io.BytesIO()):
        with pytest.raises(DataError, match="cannot be predicted on"):
            tl.predict(source)


# ---------------------------------------------------------------- where things are kept


def test_cd_does_not_move_the_folder_of_a_notebook(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    code = (
        "import os; from pathlib import Path; from IPython.core.interactiveshell import InteractiveShell as S\n"
        "import tlnb; from tlnb.engine.core.machine import home; shell = S(); tlnb.load_ipython_extension(shell)\n"
        "os.chdir('project'); print(home())"
    )
    import os

    plain = {
        name: value for name, value in os.environ.items() if name not in ("TLNB_HOME", "JPY_SESSION_NAME")
    }
    for more, expected in (
        ({}, tmp_path),
        ({"JPY_SESSION_NAME": str(tmp_path / "project" / "a.ipynb")}, tmp_path / "project"),
    ):
        env = {**plain, **more, "IPYTHONDIR": str(tmp_path / "ipython")}
        done = forked.run([sys.executable, "-c", code], cwd=tmp_path, env=env)
        assert done.stdout.split()[-1] == str(expected / ".tlnb"), done.stderr


# ---------------------------------------------------------------- gradients added up


@pytest.mark.parametrize("kind", ["plain", "lwf:2", "a step"])
def test_gradients_that_are_added_up_are_those_of_the_whole_batch(kind: str) -> None:
    def weights(micro: int | None) -> torch.Tensor:
        inputs, targets = pair(83)
        targets[:20] = 0
        tl = Session([])
        tl.load(plain_net(), input="1,8,8")
        tl.data(((inputs, targets), pair(30, 3, 5)), batch=16, balance="weights")
        if kind == "a step":
            tl.step = lambda model, x, y: nn.functional.cross_entropy(model(x), y)
        keep = kind if ":" in kind else None
        tl.train(2, 5e-3, keep=keep, guard=False, **({"micro": micro} if micro else {}))
        return torch.cat([p.detach().flatten() for p in tl.model.parameters()])

    assert torch.allclose(weights(None), weights(5), atol=1e-6)


# ---------------------------------------------------------------- a press that comes late


def test_a_press_after_the_last_edge_leaves_what_is_done(tl: Session) -> None:
    import signal

    tl.load(plain_net(), input="1,8,8")
    tl.data(pair(), batch=16)

    class Late:
        def observe(self, change: object) -> None:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    tl.observe(Late().observe, "frozen")
    tl.freeze("0")  # told while the state is set: too late to be taken back, so it is not said to be
    assert tl.frozen[0]
    assert signal.getsignal(signal.SIGINT) is before
    tl.unobserve_all("frozen")
    try:
        tl.unfreeze("0")
    except TlnbError as error:  # pragma: no cover
        pytest.fail(str(error))
