"""Where the parts of a session meet: a call that fails changes nothing, and what one part notes the others see."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import blobs, small
from torch import nn

from tlnb.engine.checkpoint import autosave
from tlnb.engine.checkpoint import file as checkpoint
from tlnb.engine.core.machine import home
from tlnb.engine.core.objectives import Classification
from tlnb.engine.features import cache as feature_cache
from tlnb.engine.features.cache import FeatureCache
from tlnb.engine.training.history import History
from tlnb.engine.training.passes import loss_and_figure
from tlnb.errors import DataError, ExportError, ModelError, NotReady, TlnbError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def pair(count: int = 90, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    found = blobs(count, classes)
    return found.inputs, found.targets


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A small network that tells two classes apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(tmp_path_factory.mktemp("home")))
        tl = Session([])
        tl.load(small(2, 0), input="1,8,8")
        tl.data(pair(60, 2), batch=16)
        tl.train(2, 0.02)
    return tl.model


@pytest.fixture
def tl(learned: nn.Module) -> Session:
    """The small network with data of three classes."""
    session = Session([])
    session.load(copy.deepcopy(learned), input="1,8,8")
    session.data(pair(), batch=16)
    return session


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [t.detach().clone() for t in model.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------- a call that fails changes nothing


def test_a_failed_load_keeps_what_is_known_of_the_old_task(tl: Session) -> None:
    tl.forgetting(pair(60, 2))
    tl.train(1, 0.02, keep="ewc:5")
    before = tl.view.state
    with pytest.raises(ModelError):
        tl.load(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)))
    assert tl.view.state is before
    assert before.old.importance is not None


class Pairs(nn.Module):
    """Takes signals of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.c(x).relu()).mean(2)


def test_failed_data_leaves_the_layers_and_the_views_as_they_were() -> None:
    tl = Session([])
    tl.load(Pairs(), input="2,16")
    shapes, told = [row.shape for row in tl.layers], []
    tl.observe(lambda change: told.append(change["name"]), ["frozen", "revision"])
    with pytest.raises(TlnbError):
        tl.data((torch.randn(60, 2, 20), torch.arange(60) % 4))
    assert [row.shape for row in tl.layers] == shapes
    assert tl.view.need_model().input is not None
    assert tl.view.need_model().input.shape == (2, 16)
    assert told == []


def test_a_failed_load_leaves_a_module_of_the_users_alone(tl: Session) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net.train()
    before, flags = weights(net), [p.requires_grad for p in net.parameters()]
    with pytest.raises(TlnbError):  # the data that is named has one channel
        tl.load(net, input="3,8,8", layers_from="head")
    assert same(weights(net), before)
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(module.training for module in net.modules())


def test_a_resume_whose_data_does_not_fit_comes_back_without_it() -> None:
    classes = torch.arange(90) % 3
    saved = Session([])
    saved.load("convnet5")
    saved.data((torch.randint(0, 255, (90, 1, 32, 32), dtype=torch.uint8), classes))
    saved.train(1, 0.001)
    saved.save("c")
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), input="5")
    tl.data((torch.randn(90, 5), classes), batch=16)
    said = tl.resume("c")
    assert any("does not fit" in line for line in said.lines)
    assert type(tl.model) is type(saved.model)
    assert tl.view.data is None
    assert len(tl.history.stages) == 1


def test_a_forgetting_that_fails_keeps_the_scores_of_before(
    tl: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    tl.forgetting(pair(60, 2))
    tl.train(1, 0.02, keep="ewc:1")
    before = tl.view.state

    def fails(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("tlnb.session.old_task.figure_with_head", fails)
    other = blobs(40, 2, seed=7)
    with pytest.raises(RuntimeError):
        tl.forgetting((other.inputs, other.targets))
    assert tl.view.state is before


def test_unfreezing_that_ends_in_a_stopped_range_test_freezes_again(tl: Session) -> None:
    tl.freeze("body")
    frozen = tl.frozen

    class Asks:
        def on_test(self, done: int, total: int) -> None:
            if done == 3 and tl.stop_request is not None:
                tl.stop_request.ask()

    tl.listeners.append(Asks())
    with pytest.raises(NotReady, match="stopped"):
        tl.unfreeze("all", find=True)
    assert tl.frozen == frozen
    assert not tl.model.body[0].weight.requires_grad


def test_freezing_said_again_repairs_what_somebody_changed_in_the_model(tl: Session) -> None:
    tl.unfreeze("all")
    tl.model.requires_grad_(False)
    tl.unfreeze("all")
    assert all(p.requires_grad for p in tl.model.parameters())
    tl.frozen = (True,) * len(tl.frozen)
    assert not any(p.requires_grad for p in tl.model.parameters())


def test_heads_are_switched_wholly_or_not_at_all(tl: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(iter(tl.heads))
    before, head, state = weights(tl.model), tl.model.head, tl.view.state

    def fails(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("tlnb.session.network.freezing.apply", fails)
    for call in (lambda: tl.head(task=first), lambda: tl.data(pair(60, 5)), lambda: tl.head("mlp:6")):
        with pytest.raises(RuntimeError):
            call()
        assert tl.model.head is head
        assert same(weights(tl.model), before)
        assert tl.view.state is state


# ---------------------------------------------------------------- what is saved


def test_the_autosave_at_the_end_of_a_stage_has_its_score_on_the_old_task(tl: Session) -> None:
    tl.forgetting(pair(60, 2))
    tl.train(1, 0.02)
    last = tl.view.saved
    assert last
    files = sorted((home() / "autosave").glob("*.safetensors"))
    saved = checkpoint.read(files[-1]).about["old"]
    assert saved == {str(n): score for n, score in tl.history.old.items()}
    assert saved


def test_moments_of_the_network_before_are_not_saved_with_a_new_one(tl: Session) -> None:
    tl.train(1, 0.02)
    tl.load(small(3), input="1,8,8")
    tl.save("z")
    assert not [n for n in checkpoint.read(Path("z.safetensors")).tensors if n.startswith("moments")]


def test_strict_transfer_ends_with_another_network_and_with_the_next_data(learned: nn.Module) -> None:
    tl = Session([])
    tl.load(copy.deepcopy(learned), input="1,8,8")
    tl.data(pair(), batch=16)
    tl.train(1, 0.02)
    tl.save("y")
    tl.resume("y")
    other = Session([])
    other.load(copy.deepcopy(learned), input="1,8,8")
    other.resume("y")
    other.load("convnet5")
    outputs = other.view.need_model().outputs
    assert outputs is not None
    many = torch.arange(outputs * 4) % outputs
    other.data((torch.randint(0, 255, (len(many), 1, 32, 32), dtype=torch.uint8), many))
    assert other.old_head is not None, "a network that was loaded gets a head for data that it does not know"
    kept = tl.model.head
    tl.data((blobs(90).inputs, ["abc"[i % 3] for i in range(90)]), batch=16)
    assert tl.model.head is kept, "right after a resume the head stays"
    tl.data((blobs(90).inputs, ["xyz"[i % 3] for i in range(90)]), batch=16)
    assert tl.model.head is not kept


def test_an_ended_plan_is_saved_as_none_whatever_a_listener_does(tl: Session, learned: nn.Module) -> None:
    class Breaks:
        def on_stage_end(self, result: object) -> None:
            raise RuntimeError("a listener")

    tl.listeners.append(Breaks())
    with pytest.raises(RuntimeError):
        tl.train(1, 0.01)
    tl.listeners.clear()
    tl.save("mine")
    other = Session([])
    other.load(copy.deepcopy(learned), input="1,8,8")
    other.resume("mine")
    assert same(weights(other.model), weights(tl.model))


def test_a_live_autosave_is_seen_where_the_system_locks_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[tuple[int, int], int] = {}

    class Windows:
        """As Windows locks: a region of a file, for one handle."""

        LK_NBLCK = 2

        def locking(self, handle: int, mode: int, size: int) -> None:
            import os

            stat = os.fstat(handle)
            owner = held.setdefault((stat.st_dev, stat.st_ino), handle)
            if owner != handle:
                raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(autosave, "fcntl", None)
    monkeypatch.setattr(autosave, "msvcrt", Windows())
    lock = autosave.Lock(tmp_path / f"one{autosave.LOCK}")
    assert autosave.is_held(lock.path)
    held.clear()
    lock.release()
    assert not lock.path.exists()


# ---------------------------------------------------------------- what is shown


def test_the_epoch_that_was_kept_is_shown_everywhere(tl: Session) -> None:
    tl.train(3, 0.02)
    result = tl.view.state.stages[-1]
    result.records[0] = dataclasses.replace(result.records[0], accuracy=0.123, valid_loss=7.5)
    result.kept = 1
    result.ending = None
    assert result.final is result.records[0]
    assert next(line for line in tl.status().lines if line.startswith("trained")).endswith("12.3 %")
    assert tl.compare().table.rows[0][6:8] == ("7.5000", "12.3 %")
    tl.train(1, 1e-6)
    assert "accuracy 0.123" in tl.undo().lines[0]


def test_a_view_that_was_closed_hears_no_more(tl: Session) -> None:
    from tlnb.widgets.layer_toggles import LayerToggles
    from tlnb.widgets.training_part import TrainingView

    def followers() -> int:
        return sum(len(kinds.get("change", [])) for kinds in tl._trait_notifiers.values())

    before = followers()
    for kind in (TrainingView, LayerToggles):
        view: Any = kind(tl)
        view.close()
        view.close()
    assert followers() == before


def test_advice_stands_after_the_old_task_was_measured(tl: Session) -> None:
    tl.forgetting()
    tl.train(1, 0.02)
    advice = tl.advise(images=40)
    tl.forgetting(pair(60, 2))  # measures the bodies after each stage, which it puts into the network
    tl.blend()
    asked: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlnb.session.advising.measure", lambda *a, **k: asked.append(a))
        patch.setattr(Session, "run", lambda self, plan, **settings: plan)
        assert tl.train_advised() == advice.plan
    assert not asked


def test_the_old_task_is_shown_in_the_unit_of_its_score() -> None:
    history = History()
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)))
    tl.data((torch.randn(40, 3), torch.rand(40)), batch=8)
    tl.train(1, 1e-3)
    history.stages, history.old = tl.history.stages, {1: 0.5}
    history.old_metric = "R²"
    assert history.table.rows[-1][-1] == "0.5000"
    history.old_metric = "accuracy"
    assert history.table.rows[-1][-1] == "50.0 %"


# ---------------------------------------------------------------- figures and files


def test_the_mean_loss_under_class_weights_is_the_same_for_any_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 8, generator=generator)
    targets = torch.cat([torch.zeros(80), torch.ones(15), torch.full((5,), 2)]).long()
    targets = targets[torch.randperm(100, generator=generator)]
    task = Classification(weights=(0.4, 2.2, 6.6))
    from tlnb.engine.data.samples import TensorSamples

    samples, net = TensorSamples(inputs, targets), nn.Linear(8, 3)
    losses = [loss_and_figure(net, samples, task, torch.device("cpu"), batch)[0] for batch in (8, 32, 256)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2"])
def test_an_export_that_fails_keeps_the_files_of_before(
    suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tl = Session([])
    tl.load(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    tl.data((torch.randn(60, 4), torch.arange(60) % 3), batch=16)
    tl.train(1, 0.02)
    folder = tmp_path / "out"
    tl.export(str(folder / f"m{suffix}"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fails(*_: object) -> None:
        raise ExportError("answers otherwise")

    monkeypatch.setattr("tlnb.session.exporting.check", fails)
    tl.train(1, 0.02)
    for name in (f"m{suffix}", f"new{suffix}"):
        with pytest.raises(ExportError):
            tl.export(str(folder / name))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    monkeypatch.undo()
    tl.export(str(folder / f"m{suffix}"))


def test_a_script_that_fails_keeps_the_one_of_before(
    tl: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tl.train(1, 0.02)
    script = tl.script(str(tmp_path / "out" / "job.py"), network="model = None")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert script.files

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tlnb.engine.export.script.shown.save_file", fails)
    tl.train(1, 0.02)
    with pytest.raises(ExportError, match="No space left"):
        tl.script(str(tmp_path / "out" / "job.py"), network="model = None")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_features_on_a_device_give_way_and_a_failed_allocation_promises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    total, each = 1000, 400
    kept = FeatureCache(None)
    monkeypatch.setattr(feature_cache, "_device_budget", lambda device: total - kept.bytes("device"))
    for name in "abcd":
        slot = kept.slot((each // 4,), torch.float32, 1.0, torch.device("cpu"))
        assert slot is not None
        assert slot.place == "device"
        kept.add(name, slot, 1.0, channels_last=False)
    assert list(kept.entries) == ["c", "d"]

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(feature_cache.torch, "empty", full)
    assert kept.slot((100,), torch.float32, 1.0, torch.device("cpu")) is None
    assert kept._promised == 0


def test_the_home_is_expanded_and_stays_where_it_was_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tlnb.engine.data.sources.named import folder

    monkeypatch.setenv("TLNB_HOME", "~/q")
    assert home() == Path("~/q").expanduser()
    assert folder() == home() / "datasets"
    monkeypatch.setenv("TLNB_HOME", "kept")
    there = home()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert home() == there == tmp_path / "kept"


def test_a_line_break_inside_a_quoted_cell_belongs_to_the_cell(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(8):
        Image.new("L", (9, 9), 30 * i).save(tmp_path / f"{i}.png")
    rows = (f'{i}.png,"a\nb"\n' if i % 2 else f"{i}.png,c\n" for i in range(8))
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(rows))
    data: Any = Session([]).data(str(tmp_path / "t.csv"))
    assert len(data.classes) == 2
    assert "b" in data.classes[0]


def test_pictures_are_predicted_on_as_the_data_set_makes_them() -> None:
    import numpy as np
    from PIL import Image
    from torchvision import transforms

    drawn = np.random.default_rng(0).integers(0, 255, (40, 32, 32), dtype=np.uint8)
    pictures = [Image.fromarray(pixels) for pixels in drawn]

    class Own(torch.utils.data.Dataset[Any]):
        classes = ("a", "b")
        targets = tuple(i % 2 for i in range(40))
        transform = transforms.Compose([transforms.RandomHorizontalFlip(0.0), transforms.ToTensor()])

        def __len__(self) -> int:
            return 40

        def __getitem__(self, i: int) -> tuple[Any, int]:
            return self.transform(pictures[i]), self.targets[i]

    tl = Session([])
    tl.load("convnet5")
    tl.data(Own())
    x = torch.stack([transforms.ToTensor()(picture) for picture in pictures[:6]])
    with torch.no_grad():
        truth = tl.model.eval()(x).softmax(1)
    for source in (x, pictures[:6], x.numpy()):
        assert torch.allclose(torch.from_numpy(tl.predict(source).answers), truth, atol=1e-5)
    pictures[0].save("one.png")
    assert torch.allclose(torch.from_numpy(tl.predict("one.png").answers), truth[:1], atol=1e-5)
    tl.load("convnet5")
    with pytest.raises(TlnbError, match="shape"):
        tl.predict(torch.zeros(2, 3, 32, 32))


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds").mkdir()

    def refused(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    tl = Session([])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refused)
        with pytest.raises(DataError, match="Permission denied"):
            tl.data(str(tmp_path / "birds"))
    assert tl.view.data is None


# ---------------------------------------------------------------- other threads


CALLS: dict[str, Callable[[Session], object]] = {
    "tasks": lambda tl: tl.tasks(),
    "blend": lambda tl: tl.blend(0.0),
    "forgetting": lambda tl: tl.forgetting(),
    "head": lambda tl: tl.head("mlp:6"),
    "data": lambda tl: tl.data(pair(50, 5)),
    "load": lambda tl: tl.load(small(4), input="1,8,8"),
    "save": lambda tl: tl.save("x"),
    "results": lambda tl: tl.results(),
    "freeze": lambda tl: tl.freeze("0"),
    "adapt": lambda tl: tl.adapt("0"),
    "merge": lambda tl: tl.merge(),
    "frozen": lambda tl: setattr(tl, "frozen", (True,) * len(tl.frozen)),
    "step": lambda tl: setattr(tl, "step", None),
    "undo": lambda tl: tl.undo(),
    "track": lambda tl: tl.track(),
}


def test_every_call_from_another_thread_is_refused_before_anything_is_touched(tl: Session) -> None:
    tl.train(1, 0.01)
    said: dict[str, str] = {}

    class Meanwhile:
        def on_batch(self, step: int, steps: int) -> None:
            if said:
                return
            before = weights(tl.model)
            for name, call in CALLS.items():

                def work(name: str = name, call: Callable[[Session], object] = call) -> None:
                    try:
                        call(tl)
                        said[name] = "ran"
                    except NotReady as error:
                        said[name] = str(error)

                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            assert same(weights(tl.model), before)

    tl.listeners.append(Meanwhile())
    tl.train(1, 0.01)
    assert set(said) == set(CALLS)
    assert all(text.startswith("training is under way") for text in said.values()), said
