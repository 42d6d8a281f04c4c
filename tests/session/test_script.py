"""%tl_script: a plain script that runs where there is no tlnb, and ends with the same weights bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from session_scripts import run_without_tlnb
from sklearn.datasets import load_digits
from torch import nn

from tlnb.errors import ExportError
from tlnb.magics.step import CellStep
from tlnb.session import Session

PLAN = "freeze body\nunfreeze 3: lr 1e-3\nunfreeze all decay 2.6 lr 1e-3"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def same_weights(session: Session, folder: Path) -> bool:
    found = load_file(folder / "train.trained.safetensors")
    ours = session.model.state_dict()
    return ours.keys() == found.keys() and all(torch.equal(ours[name], found[name]) for name in ours)


def figures(session: Session) -> list[str]:
    found = []
    for stage in session.history.stages:
        fitted = stage.note.partition(",")[0] if stage.stage.kind == "fit" else ""
        found += [
            f"stage {r.stage}, {fitted or f'epoch {r.epoch} of {r.epochs}: training loss {r.train_loss:.4f}'}"
            f"{':' if fitted else ','} validation loss {r.valid_loss:.4f}, {r.metric_name} {r.accuracy:.4f}"
            for r in stage.records
        ]
    return found


def trained_on_digits(**options: object) -> Session:
    session = Session([])
    session.load("convnet5")
    session.data("digits", per_class=12, valid=0.05, **options)
    return session


def check(session: Session, folder: Path) -> str:
    """Write the script, run it, compare figures and weights; what it printed."""
    session.script(str(folder / "train.py"))
    shown = run_without_tlnb(folder / "train.py")
    assert [line for line in shown.splitlines() if line.startswith("stage ")] == figures(session)
    assert same_weights(session, folder)
    return shown


@pytest.mark.parametrize("cache", [True, False])
def test_three_stages_end_bit_equal(tmp_path: Path, cache: bool) -> None:
    session = trained_on_digits()
    session.run(PLAN, cache=cache)
    check(session, tmp_path)
    text = (tmp_path / "train.py").read_text()
    assert ("def features(" in text) is cache


def test_settings_of_stages_are_in_the_numbers(tmp_path: Path) -> None:
    session = trained_on_digits(seed=4, balance="weights")
    session.run(
        "freeze body lr 0.01 optimizer sgd momentum 0.8 schedule cosine smoothing 0.1 batch 50\n"
        "train 6: lr 1e-3 schedule constant weight_decay 0.2 epochs 2",
        bn="frozen",
    )
    session.train(epochs=3, lr=1e-3, keep_best=True)
    check(session, tmp_path)


@pytest.mark.parametrize(
    "plan",
    [
        "fit head\nunfreeze 6: lr 1e-3 init soft guard off\nunfreeze all lr 1e-3 blend 0.25 guard off",
        "freeze body lr 1e-2 init zero\nunfreeze all lr 0.1 schedule constant\nfit head guard off",
    ],
)
def test_fitted_heads_their_starts_blends_and_guards_are_bit_equal(tmp_path: Path, plan: str) -> None:
    session = trained_on_digits()
    session.run(plan)
    assert [stage.share for stage in session.history.stages] in ([1.0, 1.0, 0.25], [1.0, 0.0, 1.0])
    check(session, tmp_path)


def test_the_default_plan_is_bit_equal(tmp_path: Path) -> None:
    session = Session([])
    session.load(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
    rows = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    session.data((rows, (rows[:, :3].argmax(1))), balance="weights")
    session.train()
    session.train(lr=1e-3, bn="frozen")
    assert [stage.stage.kind for stage in session.history.stages] == ["fit", "train", "train"]
    check(session, tmp_path)


@pytest.mark.parametrize("target", ["labels", "regression"])
def test_labels_and_values_are_fitted_in_a_script(tmp_path: Path, target: str) -> None:
    rows = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    targets = (rows[:, :2] > 0).float() if target == "labels" else rows[:, :2] * 3 + 1
    session = Session([])
    session.load(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)))
    session.data((rows, targets), target=target)
    session.run("fit head")
    check(session, tmp_path)


def test_a_head_of_several_layers(tmp_path: Path) -> None:
    session = trained_on_digits()
    session.head("mlp:32,16")
    session.freeze("body")
    session.train(lr=1e-3)
    check(session, tmp_path)


class StopsAt:
    """Asks for a stop at a batch of the first epoch."""

    def __init__(self, session: Session, step: int):
        self.session, self.step = session, step

    def on_batch(self, step: int, steps: int) -> None:
        if step == self.step and self.session.stop_request is not None:
            self.session.stop_request.ask()


def test_a_session_that_was_stopped_saved_and_resumed(tmp_path: Path) -> None:
    session = trained_on_digits()
    session.freeze("body")
    session.listeners = [StopsAt(session, 2)]
    assert session.train(lr=1e-2, epochs=2, batch=32).stopped
    with pytest.raises(ExportError, match="stopped in the middle"):
        session.script()
    session.save(str(tmp_path / "half"))
    other = Session([])
    other.resume(str(tmp_path / "half"))
    other.go_on()
    other.unfreeze("-2:")
    other.train(lr=1e-3)
    check(other, tmp_path)


def pictures(folder: Path) -> Path:
    numbers = np.random.default_rng(0)
    for kind, level in (("dark", 60), ("light", 190)):
        (folder / kind).mkdir(parents=True)
        for index in range(12):
            pixels = numbers.normal(level, 30, (40 + index, 52, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{index}.{'png' if index % 2 else 'jpg'}")
    Image.new("RGBA", (50, 50), (10, 20, 30, 90)).save(folder / "dark" / "see-through.png")
    (folder / "dark" / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2"])
def test_a_folder_and_a_network_of_torchvision(tmp_path: Path, name: str) -> None:
    session = Session([])
    session.load(name, weights="none")
    session.data(str(pictures(tmp_path / "photos")), size=64, batch=8)
    session.freeze("body")
    session.train(lr=1e-3)
    session.unfreeze("-3:")
    session.train(lr=1e-4)
    check(session, tmp_path)
    assert "broken.jpg" not in (tmp_path / "train.files.csv").read_text()


@pytest.mark.parametrize("preset", ["light", "strong"])
def test_files_under_random_changes(tmp_path: Path, preset: str) -> None:
    session = Session([])
    session.load("convnet5")
    session.data(str(pictures(tmp_path / "photos")), batch=8, augment=preset)
    session.run("train 5: lr 1e-3 epochs 2\nunfreeze all lr 1e-4")
    check(session, tmp_path)


def test_arrays_under_random_changes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (40, 48, 40, 3), dtype=torch.uint8, generator=generator).numpy()
    session = Session([])
    session.load("alexnet", weights="none")
    session.data((images, np.arange(40) % 3), size=64, batch=16, augment="standard")
    session.freeze("features")
    session.train(lr=1e-4)
    check(session, tmp_path)


def test_measured_values_and_a_module_of_ones_own(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(80, 5, generator=generator)
    targets = inputs[:, :2].sum(1, keepdim=True) * 3 + 7
    network = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    session = Session([])
    session.load(network)
    session.data((inputs, targets), target="regression", batch=16)
    session.freeze("0")
    session.train(epochs=2, lr=1e-2)
    assert "R²" in check(session, tmp_path)


def test_labels_and_a_step_of_ones_own(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 6, generator=generator)
    labels = (inputs[:, :3] > 0).float()
    session = Session([])
    session.load(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)))
    session.data((inputs, labels), target="labels", batch=20)
    session.train(lr=1e-2)
    check(session, tmp_path)


def test_a_step_from_a_cell(tmp_path: Path) -> None:
    session = trained_on_digits()
    body = "scores = model(x)\nloss = torch.nn.functional.multi_margin_loss(scores, y)"
    session.step = CellStep(body, {"torch": torch})
    session.freeze("body")
    session.train(lr=1e-3)
    check(session, tmp_path)


def refused(change: Callable[[Session], None]) -> str:
    session = trained_on_digits()
    change(session)
    with pytest.raises(ExportError) as caught:
        session.script()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_script_cannot_hold_is_said() -> None:
    assert "nothing was trained" in refused(lambda session: None)

    def by_hand(session: Session) -> None:
        session.train(lr=1e-3)
        with torch.no_grad():
            session.model.classifier[7].bias.add_(1)
        session.train(lr=1e-3)

    assert "something other than training" in refused(by_hand)

    def by_hand_at_the_end(session: Session) -> None:
        session.train(lr=1e-3)
        with torch.no_grad():
            session.model.features[0].weight.add_(1)

    assert "after the last stage" in refused(by_hand_at_the_end)

    def the_head_by_hand(session: Session) -> None:
        session.freeze("body")
        session.train(lr=1e-3)
        with torch.no_grad():
            session.model.classifier[7].bias.add_(1)
        session.train(lr=1e-3)

    assert "weights of the head were changed" in refused(the_head_by_hand)

    def with_moments_that_are_gone(session: Session) -> None:
        session.freeze("body")
        session.train(lr=0.5, epochs=3, schedule="constant", keep_best=True)
        stage = session.history.stages[0]
        if len(session.history) == stage.recipe.epochs:  # the last epoch happened to be the best
            stage.recipe = replace(stage.recipe, epochs=stage.recipe.epochs - 1)
        session.go_on(epochs=1)

    assert "optimizer of a stage" in refused(with_moments_that_are_gone)


def test_a_head_changed_by_hand_before_training_is_saved(tmp_path: Path) -> None:
    session = trained_on_digits()
    with torch.no_grad():
        session.model.classifier[7].weight.mul_(0.5)
    session.freeze("body")
    session.train(lr=1e-3)
    check(session, tmp_path)


def digits_upside_down() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    pixels = (digits.images[:150, None, ::-1, ::-1] * 255 / 16).astype(np.uint8)
    return torch.from_numpy(pixels), torch.from_numpy(digits.target[:150])


def test_strict_transfer_to_other_data_and_on_with_the_moments(tmp_path: Path) -> None:
    session = trained_on_digits()
    session.freeze("0:5")
    session.listeners = [StopsAt(session, 2)]
    session.train(lr=1e-3, epochs=3, batch=32)  # stops in its first epoch
    session.save(str(tmp_path / "half"))
    other = Session([])
    other.resume(str(tmp_path / "half"))
    other.data(digits_upside_down(), valid=0.3)
    run = other.go_on()
    assert [record.epoch for record in run.records] == [1, 2, 3]
    other.go_on(epochs=1)
    check(other, tmp_path)
    assert "parts=((DATA[0], 0, 0, 2), (DATA[1], 0, 3, 0))" in (tmp_path / "train.py").read_text()


def test_a_folder_and_then_a_table_with_other_classes(tmp_path: Path) -> None:
    session = Session([])
    session.load("convnet5")
    photos = pictures(tmp_path / "photos")
    first = session.data(str(photos), batch=8, augment="light", balance="weights")
    session.train(lr=1e-3)
    rows = [f"photos/{kind}/{i}.{'png' if i % 2 else 'jpg'},{'even' if i % 2 else 'odd'}"
            for kind in ("dark", "light") for i in range(12)]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    session.data(str(tmp_path / "labels.csv"), batch=8)
    assert "SimpleNamespace" not in session.script().text  # what was trained so far is one data set
    session.freeze("body")
    session.train(lr=1e-2)
    session.head(task=first.name)
    session.train(lr=1e-3)
    check(session, tmp_path)
    text = (tmp_path / "train.py").read_text()
    assert "def load_data_2(" in text
    assert [line.strip() for line in text.splitlines() if line.strip().startswith("head=")] == [
        "head=0,", "head=1,", "head=0,"
    ]  # fmt: skip


@pytest.mark.parametrize("keep", ["lwf:1", "l2sp:0.1", "ewc:1"])
def test_guards_against_forgetting(tmp_path: Path, keep: str) -> None:
    session = trained_on_digits()
    session.run(f"freeze body lr 1e-2\ntrain 5: lr 1e-3 keep {keep}")
    check(session, tmp_path)


def test_blends_between_stages_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlnb.session.old_task.SHIPPED", {})  # the old task need not be measured here
    session = trained_on_digits()
    session.freeze("0:5")
    session.train(lr=1e-3)
    session.blend(0.5)
    session.train(lr=1e-3)
    session.blend(0.8)
    check(session, tmp_path)
    text = (tmp_path / "train.py").read_text()
    assert "blend=0.5," in text
    assert "blend(model, old, 0.8)" in text


def test_a_script_ends_in_py(tmp_path: Path) -> None:
    session = trained_on_digits()
    session.freeze("body")
    session.train(lr=1e-3)
    with pytest.raises(ExportError, match=r"\.py"):
        session.script(str(tmp_path / "train.ipynb"))
    shown = session.script()
    assert shown.path is None
    assert "class ConvNet5" in repr(shown)
    assert "&quot;" in shown._repr_html_()
    assert not list(tmp_path.glob("*.py"))
