"""Sounds through the whole session: learned in pieces, answered for as clips, saved, written down, exported."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from session_scripts import run_without_tlnb
from sounds import SmallNet, tone, tone_folders, write

from tlnb.engine.data.sound.clips import FrameSamples
from tlnb.errors import DataError
from tlnb.session import Session

sf = pytest.importorskip("soundfile")
PLAN = "freeze body epochs 2 lr 1e-2 batch 8\nunfreeze 3: epochs 1 lr 1e-3 batch 8"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


def heard(folder: Path, plan: str = PLAN, **options: object) -> Session:
    """``convnet5`` trained on tones of which some are longer than the window."""
    session = Session([])
    session.load("convnet5")
    session.data(tone_folders(folder / "tones", long=(0, 3, 4)), window=0.4, valid=0.4, **options)
    if plan:
        session.run(plan)
    return session


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLNB_HOME", str(tmp_path_factory.mktemp("home")))
        return heard(tmp_path_factory.mktemp("data"))


def valid_files(session: Session) -> list[Path]:
    valid = session.view.data.valid
    return [valid.path(i) for i in range(len(valid))]


def test_results_are_for_clips_and_the_mean_of_their_pieces(trained):
    results, samples = trained.results(), trained.view.samples[1]
    assert len(results.targets) == len(trained.view.data.valid) < len(samples)
    with torch.no_grad():
        each = trained.model.eval()(samples.batch(torch.arange(len(samples)))).softmax(1)
    by_hand = torch.stack([each[samples.wholes == clip].mean(0) for clip in range(len(results.targets))])
    assert np.abs(results.answers - by_hand.numpy()).max() < 1e-5
    assert results.targets.tolist() == trained.view.data.valid.targets.tolist()
    assert trained.history.stages[-1].records[-1].accuracy == pytest.approx(results.accuracy)


def test_predictions_of_the_validation_files_are_those_of_the_results(trained):
    results, found = trained.results(), trained.predict([str(path) for path in valid_files(trained)])
    assert np.abs(results.answers - found.answers).max() < 1e-5
    assert len(found) == len(results.targets)


def test_predictions_show_a_picture_a_clip(trained):
    found = trained.predict([str(path) for path in valid_files(trained)[:3]])
    assert len(found.pictures) == len(found) == 3
    assert found._repr_html_().count("data:image/png;base64,") == 3


def test_samples_with_their_rate_are_predicted_like_their_file(trained):
    paths = valid_files(trained)
    waves = [sf.read(path, dtype="int16") for path in paths]
    by_file = trained.predict([str(path) for path in paths]).answers
    assert np.abs(trained.predict([(wave, rate) for wave, rate in waves]).answers - by_file).max() < 1e-4
    wave, rate = sf.read(paths[0], dtype="float32")
    assert np.abs(trained.predict((torch.from_numpy(wave), rate)).answers - by_file[0]).max() < 1e-4
    assert trained.predict((np.stack([wave, wave], 1), rate)).labels == trained.predict(str(paths[0])).labels


@pytest.mark.parametrize(
    "source", [np.zeros(800), [np.zeros(800)], (np.zeros((2, 800)), 8000), (np.zeros(0), 8000)]
)
def test_what_is_no_sound_is_one_line(trained, source):
    with pytest.raises(DataError) as caught:
        trained.predict(source)
    assert "\n" not in str(caught.value)


def test_a_folder_is_predicted_and_damaged_files_are_listed(trained, tmp_path):
    write(tmp_path / "new" / "a.wav", tone(400, 2.0))
    (tmp_path / "new" / "b.wav").write_bytes(b"")
    found = trained.predict(str(tmp_path / "new"))
    assert len(found) == 1
    assert [problem.reason for problem in found.problems] == ["empty: 0 bytes"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no sounds in"):
        trained.predict(str(tmp_path / "nothing"))


def test_pictures_are_shown_and_played(trained):
    grid = trained.show_batch(4)
    html = grid._repr_html_()
    assert html.count("<audio controls") == 4
    assert html.count("data:audio/wav;base64,") == 4
    assert grid.pixels.shape[0] == 4


def test_names_are_escaped_where_sounds_are_played(tmp_path):
    for name in ("<b>x", "y&z"):
        for index in range(4):
            write(tmp_path / "odd" / name / f"{index}.wav", tone(400 + 10 * index, seed=index))
    session = Session([])
    session.load("convnet5")
    session.data(tmp_path / "odd")
    html = session.show_batch(6)._repr_html_()
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html


def test_mistakes_are_seen_and_heard(trained, monkeypatch):
    session = trained
    head = session.model.get_submodule(session.view.loaded.head)
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.neg_()  # all that was right is wrong
    try:
        results = session.results(worst=3)
        html = results._repr_html_()
    finally:
        with torch.no_grad():
            head.weight.copy_(before)
    assert results.mistakes
    assert html.count("<audio controls") == len(results.mistakes)
    assert {m.name for m in results.mistakes} <= {
        session.view.data.valid.name(i) for i in range(len(results.targets))
    }


def test_a_saved_session_hears_the_same(trained, tmp_path):
    trained.save(str(tmp_path / "ears.tlnb"))
    again = Session([])
    again.resume(str(tmp_path / "ears.tlnb"))
    assert again.view.data.sound == trained.view.data.sound
    assert np.array_equal(again.results().answers, trained.results().answers)
    for index in range(4):
        for name, hertz in (("low", 400), ("high", 1500)):
            write(tmp_path / "fine" / name / f"{index}.wav", tone(hertz, 1.5, 16000, seed=index), 16000)
    again.data(tmp_path / "fine")
    assert again.view.data.sound == trained.view.data.sound, "as the network learned to hear"
    assert "as the network learned; --window" in repr(again.view.data)
    again.data(tmp_path / "fine", window=1.5)
    assert again.view.data.sound.window == 1.5


def same_weights(session: Session, folder: Path) -> bool:
    found, ours = load_file(folder / "train.trained.safetensors"), session.model.state_dict()
    return all(torch.equal(ours[name], found[name]) for name in ours)


def check_script(session: Session, folder: Path) -> None:
    session.script(str(folder / "train.py"))
    shown = run_without_tlnb(folder / "train.py")
    last = session.history.stages[-1].records[-1]
    assert same_weights(session, folder)
    assert f"validation loss {last.valid_loss:.4f}, {last.metric_name} {last.accuracy:.4f}" in shown


def test_the_script_ends_with_the_same_weights(trained, tmp_path):
    check_script(trained, tmp_path)


def test_a_script_with_changes_and_class_weights_ends_the_same(tmp_path):
    session = heard(tmp_path, "freeze 0:3 epochs 1 lr 1e-3 batch 8", augment="light", balance="weights")
    check_script(session, tmp_path)


def test_an_export_has_the_front_end_and_its_loader_hears_the_same(trained, tmp_path):
    trained.export(str(tmp_path / "ears.safetensors"))
    with safe_open(tmp_path / "ears.safetensors", "pt") as file:
        sound = json.loads(file.metadata()["sound"])
    assert (sound["window"], sound["bands"], sound["rate"], sound["hop"]) == (0.4, 64, 8000, 80)
    paths = [str(path) for path in valid_files(trained)]
    code = (
        "import sys, json, ears, torch\n"
        "net = ears.load()\n"
        "with torch.inference_mode():\n"
        "    print(json.dumps([ears.predict(net, ears.read_sound(p)).mean(0).tolist() for p in sys.argv[1:]]))\n"
    )
    done = forked.run([sys.executable, "-c", code, *paths], tlnb=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)) - trained.predict(paths).answers).max() < 1e-5


def test_a_network_of_raw_sound_takes_frames_and_goes_all_the_way(tmp_path):
    session = Session([])
    net = SmallNet()
    session.load(net, input="256")
    session.data(tone_folders(tmp_path / "tones"), rate=8000, valid=0.4)
    samples = session.view.samples[1]
    assert isinstance(samples, FrameSamples)
    batch = samples.batch(torch.arange(3))
    assert batch.shape == (3, 256)
    assert torch.allclose(batch.mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(batch.std(1, correction=0), torch.ones(3), atol=1e-3)
    session.run("freeze 0 epochs 6 lr 3e-2 batch 16\nunfreeze all epochs 1 lr 1e-3 batch 16")
    results = session.results()
    assert results.accuracy == 1.0
    found = session.predict([str(path) for path in valid_files(session)])
    assert np.abs(found.answers - results.answers).max() < 1e-5
    wave, rate = sf.read(valid_files(session)[0], dtype="float32")
    assert np.abs(session.predict((wave, rate)).answers[0] - results.answers[0]).max() < 1e-5
    assert "<audio controls" in session.show_batch(3)._repr_html_()
    session.export(str(tmp_path / "raw.pt2"))


def test_advice_range_test_and_fit_go_as_for_pictures(tmp_path):
    session = heard(tmp_path, "")
    advice = session.advise()
    assert f"{len(session.view.data.train)}" in repr(advice), "clips are counted, not pieces"
    assert session.find_lr().rates
    run = session.run("fit head")
    assert run.stages[-1].records[-1].accuracy > 0.6


def test_the_test_part_is_measured_in_clips(tmp_path):
    session = heard(tmp_path, "fit head", test=0.25)
    assert len(session.test().results.targets) == len(session.view.data.test)


def test_nothing_of_sound_is_imported_unless_asked_for():
    code = (
        "import sys\nfrom tlnb.session import Session\ns = Session([])\ns.load('convnet5')\n"
        "s.data('digits', per_class=2)\nprint('soundfile' in sys.modules)"
    )
    done = forked.run([sys.executable, "-c", code])
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnx is not installed")
def test_an_onnx_file_has_the_front_end_too(trained, tmp_path):
    import onnx

    trained.export(str(tmp_path / "ears.onnx"))
    properties = {p.key: p.value for p in onnx.load(str(tmp_path / "ears.onnx")).metadata_props}
    assert json.loads(properties["tlnb.json"])["sound"]["kind"] == "log-mel"


def test_folds_are_of_clips_and_answers_are_the_means_of_their_pieces(tmp_path):
    session = heard(tmp_path, "")
    found = session.cross_validate(2, plan="fit head")
    assert len(found.answers) == 16
    assert np.allclose(found.answers.sum(1), 1, atol=1e-5)
    assert (found.answers.argmax(1) == found.targets).mean() > 0.6


def test_sure_answers_are_for_clips(tmp_path):
    session = Session([])
    session.load("convnet5")
    session.data(
        tone_folders(tmp_path / "tones", each=24, long=tuple(range(0, 24, 3))), window=0.4, valid=0.5
    )
    session.run("fit head")
    paths = valid_files(session)
    found = session.predict([str(path) for path in paths], sure=0.8)
    assert len(found.sets) == len(paths) == len(found.none)
    names = session.view.data.classes
    right = [names[t] in s for t, s in zip(session.view.data.valid.targets.tolist(), found.sets, strict=True)]
    assert np.mean(right) >= 0.8


def test_near_duplicates_by_the_features_of_the_network_are_of_clips(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        for index in range(6):
            # Noise in a band of its own, once loud and once low: the same picture, in other bytes.
            spectrum = np.fft.rfft(rng.standard_normal(8800))
            spectrum[: 600 * index + 200 * (name == "b")] = 0
            spectrum[600 * index + 200 * (name == "b") + 900 :] = 0
            wave = np.fft.irfft(spectrum).astype(np.float32)
            write(tmp_path / "noise" / name / f"{index}.wav", 0.5 * wave / np.abs(wave).max())
            write(tmp_path / "noise" / name / f"{index}_low.wav", 0.3 * wave / np.abs(wave).max())
    session = Session([])
    session.load("convnet5")
    data = session.data(tmp_path / "noise", window=0.4, groups="near", valid=0.4)
    sides = [
        {part.name(i).split("_")[0].split(".")[0] for i in range(len(part))}
        for part in (data.train, data.valid)
    ]
    assert not sides[0] & sides[1]
    assert "24 clips are longer" in repr(data)


def test_an_export_of_whole_clips_judges_as_the_session_does(tmp_path):
    session = Session([])
    session.load("convnet5")
    session.data(tone_folders(tmp_path / "tones", each=16), valid=0.6)
    session.run("fit head")
    session.export(str(tmp_path / "whole.safetensors"))
    assert (tmp_path / "whole.sure.safetensors").exists()
