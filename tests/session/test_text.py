"""Texts through a whole session: named, trained, kept, predicted, undone, resumed, written as a script, exported."""

from __future__ import annotations

import json
import sys

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("transformers")

from texts import GOOD, network_folder, rows, table, tokenizer

from tlnb import Session
from tlnb.errors import DataError, ModelError

PLAN = "fit head\nfreeze body epochs 2 lr 1e-2\nunfreeze -2: epochs 2 lr 1e-3\nunfreeze all epochs 1 lr 1e-4 decay 1.5"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network_folder(tmp_path / "net", pooling="pooling_mode_mean_tokens")
    table(tmp_path / "t.csv", rows())
    return tmp_path


@pytest.fixture
def ready(folder):
    tl = Session([])
    tl.load("net")
    tl.data("t.csv", text="text", label="label")
    return tl


def weights(tl):
    return {name: tensor.clone() for name, tensor in tl.model.state_dict().items()}


def test_a_folder_is_a_network_with_layers_and_a_head(folder):
    tl = Session([])
    loaded = tl.load("net")
    assert [row.name for row in tl.layers] == [
        "body.embeddings", "body.encoder.layer.0", "body.encoder.layer.1", "body.encoder.layer.2", "head",
    ]  # fmt: skip
    assert "sha256" in loaded.weights
    assert tl.model.pooling.how == "mean"
    tl.data("t.csv", text="text", label="label")
    assert tl.layers[-1].shape == (2,)


def test_the_body_gives_what_transformers_gives(ready):
    import transformers

    body = transformers.AutoModel.from_pretrained("net").eval()
    batch = ready.view.samples[1].batch(torch.arange(5))
    with torch.no_grad():
        tokens = body(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None].float()
        wanted = (tokens * mask).sum(1) / mask.sum(1)
        hidden = ready.model.body(**batch).last_hidden_state
        found = ready.model.pooling(hidden, batch["attention_mask"])
    torch.testing.assert_close(found, wanted)


def test_folds_of_texts_start_anew_and_train_all_layers(ready):
    for plan in ("fit head\nunfreeze -2:  epochs 1  lr 1e-3", "train all  epochs 1  lr 1e-3"):
        cv = ready.cross_validate(2, plan)
        assert cv.answered.all()
        assert cv.targets.tolist() == [int(row == cv.classes[1]) for row in cv.labels]
    assert "ran once" in ready.cross_validate(2, "fit head").results[0].stages[0].shortcut


def test_training_keeps_what_is_frozen_and_runs_it_once(ready):
    before = weights(ready)
    run = ready.run("freeze body epochs 2 lr 1e-2")
    stage = run.stages[0]
    assert "ran once" in stage.shortcut
    assert stage.digest_before == stage.digest_after
    changed = {
        name for name, tensor in ready.model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"head.weight", "head.bias"}


def test_with_and_without_the_cut_training_is_the_same(folder):
    states = []
    for cache in (True, False):
        tl = Session([])
        tl.load("net")
        tl.data("t.csv", text="text", label="label")
        tl.run(PLAN, cache=cache)
        states.append(tl.model.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)


def test_kept_tokens_come_back_from_a_mapped_file(ready):
    cache = ready.view.planner.cache
    cache.memory = 0  # nothing fits into memory
    cache.folder._speed = 1e12
    run = ready.run("freeze 0:3 epochs 1 lr 1e-2")
    assert "features in file" in run.stages[0].shortcut


def test_undo_puts_every_weight_back(ready):
    ready.run("fit head")
    before = weights(ready)
    ready.run("unfreeze all epochs 1 lr 1e-3")
    ready.undo()
    assert all(torch.equal(tensor, before[name]) for name, tensor in ready.model.state_dict().items())


def test_a_session_comes_back_and_goes_on_bit_for_bit(folder):
    whole = Session([])
    whole.load("net")
    whole.data("t.csv", text="text", label="label")
    whole.run("freeze body epochs 2 lr 1e-2")
    whole.save("half")
    whole.run("unfreeze all epochs 2 lr 1e-3")
    again = Session([])
    again.resume("half.safetensors")
    assert again.view.data.name == "t.csv"
    again.run("unfreeze all epochs 2 lr 1e-3")
    ours, theirs = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert np.array_equal(whole.predict(["w1 good"]).answers, again.predict(["w1 good"]).answers)


def test_the_script_ends_with_the_same_bits(ready, folder):
    ready.run(PLAN, cache=False)
    ready.script("train.py")
    assert (folder / "train.tokenizer.json").exists()
    done = forked.run([sys.executable, "train.py"], tlnb=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    found, mine = load_file(folder / "train.trained.safetensors"), ready.model.state_dict()
    assert found.keys() == mine.keys()
    assert all(torch.equal(found[name], mine[name]) for name in mine)
    assert "tlnb" not in (folder / "train.py").read_text().partition('"""\n')[2]


@pytest.mark.parametrize("ending", ["safetensors", "onnx"])
def test_an_export_has_its_tokenizer_and_answers_the_same(ready, folder, ending):
    ready.run("fit head")
    told = ready.export(f"out/mine.{ending}")
    assert "fresh process" in repr(told)
    content = json.loads((folder / "out" / "tokenizer.json").read_text())
    assert content["model"]["vocab"]["[CLS]"] == 2
    if ending == "safetensors":
        code = "import mine, torch\nn = mine.load()\nprint(mine.predict(n, mine.tokens(['w1 good w2'])).tolist()[0])"
        done = forked.run([sys.executable, "-c", code], tlnb=False, cwd=folder / "out")
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(json.loads(done.stdout), ready.predict("w1 good w2").answers[0], atol=1e-5)
    (folder / "out" / "tokenizer.json").write_text("{}")
    with pytest.raises(Exception, match="of another network"):
        ready.export(f"out/mine.{ending}")


def test_a_page_takes_a_text(ready, folder):
    ready.run("fit head")
    ready.export("app", "page")
    page = folder / "page"
    parts = "class Part:\n    def __init__(self, *given, **named): pass\nInterface = Label = Textbox = Part\n"
    (page / "gradio.py").write_text(parts)  # stands in for the real one
    code = "import app, json\nprint(json.dumps(app.answer('w1 good w2')))"
    done = forked.run([sys.executable, "-c", code], tlnb=False, cwd=page)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    chances = answer[0] if isinstance(answer, list) else answer
    np.testing.assert_allclose(list(chances.values()), ready.predict("w1 good w2").answers[0], atol=1e-5)
    assert "tokenizers" in (page / "requirements.txt").read_text()


def test_predictions_on_strings_and_files_are_those_of_the_results(ready, folder):
    ready.run("fit head\nunfreeze all epochs 3 lr 1e-3")
    results, valid = ready.results(), ready.view.data.valid
    found = ready.predict(valid.all())
    np.testing.assert_allclose(found.answers, results.answers, atol=1e-5)
    (folder / "new").mkdir()
    for number, text in enumerate(valid.all()[:3]):
        (folder / "new" / f"{number}.txt").write_text(text)
    for source in ("new", [str(folder / "new" / f"{n}.txt") for n in range(3)]):
        np.testing.assert_allclose(ready.predict(source).answers, results.answers[:3], atol=1e-5)
    assert ready.predict("a single text").answers.shape == (1, 2)
    with pytest.raises(DataError, match="no file"):
        ready.predict("nowhere.txt")


def test_sure_answers_are_in_the_order_of_the_texts(ready):
    ready.run("fit head")
    valid, known = ready.view.data.valid, ready.results()
    found = ready.predict(valid.all(), sure=0.8)
    held = [known.classes[t] in own for t, own in zip(known.targets, found.sets, strict=True)]
    count = len(held)
    assert sum(held) == int(np.ceil(0.8 * (count + 1) - 1e-9))
    one = [ready.predict(text, sure=0.8) for text in valid.all()[:5]]
    assert [each.sets[0] for each in one] == list(found.sets[:5])
    np.testing.assert_allclose([each.strangeness[0] for each in one], found.strangeness[:5], atol=1e-3)


def test_the_words_that_spoke_for_a_mistake_are_marked(ready):
    ready.run("fit head")
    found = ready.results(worst=3)
    if not found.mistakes:
        pytest.skip("no mistake")
    for mistake in found.mistakes:
        assert " ".join(word for word, _ in mistake.words) == ready.view.data.valid.all()[mistake.index]
        assert max(weight for _, weight in mistake.words) == pytest.approx(1.0)
        assert "‹" in mistake.marked
    assert "<mark" in found._repr_html_()


def test_the_length_is_that_of_most_texts_and_what_is_cut_is_shown(folder):
    lines = [*rows(), (" ".join(["w1"] * 30), "praise"), (" ".join(["w2"] * 30), "blame")]
    table(folder / "long.csv", lines)
    tl = Session([])
    tl.load("net")
    tl.data("long.csv", text="text", label="label", length=8)
    assert tl.view.samples[0].batch(torch.arange(20))["input_ids"].shape[1] == 8
    shown = tl.data(show=True)
    assert "✂" in repr(shown)
    with pytest.raises(DataError, match="places for 40"):
        tl.data("long.csv", text="text", label="label", length=41)
    tl.data("long.csv", text="text", label="label")
    lengths = tl.view.loaded.preprocess.lengths(tl.view.data.train.all()).double()
    assert tl.view.loaded.preprocess.length == int(lengths.quantile(0.99).ceil())


def test_a_net_of_transformers_takes_texts_by_its_tokenizer(folder):
    import transformers

    network_folder(folder / "own", kind="BertForSequenceClassification")
    net = transformers.BertForSequenceClassification.from_pretrained("own")
    tl = Session([])
    tl.load(net)
    assert tl.layers[-1].name == "classifier"
    tl.data("t.csv", text="text", label="label")
    tl.freeze("body")
    run = tl.train(epochs=1, lr=1e-3)
    assert run.stages[0].digest_before == run.stages[0].digest_after
    tl.undo()
    assert tl.model is net
    fresh = transformers.BertForSequenceClassification(net.config)
    fresh.config._name_or_path = ""
    tl = Session([])
    tl.load(fresh)
    with pytest.raises(DataError, match="--tokenizer"):
        tl.data("t.csv", text="text", label="label")
    tl.load(fresh, tokenizer=tokenizer())
    tl.data("t.csv", text="text", label="label")
    assert tl.train(epochs=1, lr=1e-3).stages


def test_a_net_of_peft_is_unwrapped_and_what_it_keeps_still_does_not_train(folder):
    peft = pytest.importorskip("peft")
    import transformers

    network_folder(folder / "own", kind="BertForSequenceClassification")
    net = transformers.BertForSequenceClassification.from_pretrained("own")
    wanted = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    wrapped = peft.get_peft_model(net, wanted)
    tl = Session([])
    assert "taken out of its PeftModelForSequenceClassification" in repr(tl.load(wrapped))
    tl.data("t.csv", text="text", label="label")
    before = weights(tl)
    tl.freeze(":2")
    run = tl.train(epochs=1, lr=1e-2)
    assert run.stages[0].digest_before == run.stages[0].digest_after
    changed = {name for name, tensor in weights(tl).items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if "lora" in name}
    assert all("lora" in name or "classifier.modules_to_save" in name for name in changed)
    assert not {name for name in changed if "layer.0." in name}
    assert tl.layers.trainable_parameters == sum(before[name].numel() for name in changed)
    assert tl.model is net


def test_dicts_of_tensors_go_to_the_arguments_of_their_names(folder):
    import transformers

    config = transformers.DistilBertConfig(
        vocab_size=80, dim=32, n_layers=2, n_heads=4, hidden_dim=48, num_labels=2
    )
    torch.manual_seed(0)
    ids = torch.randint(4, 80, (40, 9))
    mask = torch.ones_like(ids)
    mask[::2, 6:] = 0
    targets = (ids[:, 1] > 40).long()
    tl = Session([])
    tl.load(transformers.DistilBertForSequenceClassification(config))
    tl.data(({"input_ids": ids, "attention_mask": mask}, targets))
    tl.freeze("0:2")
    run = tl.train(epochs=2, lr=1e-3)
    assert "ran once" in run.stages[0].shortcut
    assert tl.results().answers.shape == (8, 2)
    assert tl.predict({"input_ids": ids[:3], "attention_mask": mask[:3]}).answers.shape == (3, 2)


def test_several_inputs_in_a_data_set_go_in_by_name_or_in_order(folder):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = torch.nn.Linear(6, 8), torch.nn.Linear(3, 4), torch.nn.Linear(12, 2)

        def forward(self, picture, row):
            return self.last(torch.cat([self.a(picture).relu(), self.b(row)], 1))

    class Pairs(torch.utils.data.Dataset):
        def __init__(self, named):
            generator = torch.Generator().manual_seed(0)
            self.x, self.y = torch.rand(40, 6, generator=generator), torch.rand(40, 3, generator=generator)
            self.named = named

        def __len__(self):
            return 40

        def __getitem__(self, i):
            inputs = {"row": self.y[i], "picture": self.x[i]} if self.named else (self.x[i], self.y[i])
            return inputs, int(self.x[i, 0] > 0.5)

    answers = []
    for named in (True, False):
        torch.manual_seed(0)
        tl = Session([])
        tl.load(Two())
        tl.data(Pairs(named))
        tl.freeze("body")
        tl.train(epochs=1, lr=1e-3)
        answers.append(tl.results().answers)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_texts_and_pictures_are_told_apart(folder):
    tl = Session([])
    tl.load("convnet5")
    with pytest.raises(DataError, match="takes no texts"):
        tl.data("t.csv", text="text", label="label")
    tl.load("net")
    with pytest.raises(DataError, match="takes texts"):
        tl.data("digits")
    with pytest.raises(ModelError, match="Hub"):
        tl.load("convnet5", revision="main")


def test_advice_and_sweep_work_without_batch_norm(ready):
    advice = ready.advise()
    assert advice.figures.similarity is None
    assert len(advice.figures.scores) == 4
    ready.run(advice.plan)
    assert ready.history.stages


def learned_from_many(folder, plan):
    """A session that a plan was trained in, on 300 texts."""
    table(folder / "many.csv", rows(300))
    tl = Session([])
    tl.load("net")
    tl.data("many.csv", text="text", label="label")
    tl.run(plan)
    return tl


def test_answers_say_how_sure_they_are_in_the_order_of_the_texts(folder):
    tl = learned_from_many(folder, "fit head")
    texts = tl.view.data.valid.all()[:20]
    together = tl.predict(texts, sure=0.9)
    alone = [tl.predict(text, sure=0.9) for text in texts]
    assert [list(map(str, one)) for one in together.sets] == [list(map(str, one.sets[0])) for one in alone]


def test_good_words_are_learned(folder):
    tl = learned_from_many(folder, "fit head\nunfreeze all epochs 6 lr 2e-3")
    assert tl.results().accuracy > 0.9
    assert tl.predict([f"w1 {word} w2" for word in GOOD]).labels == ("praise",) * len(GOOD)
