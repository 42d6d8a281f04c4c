"""Layers that are adapted: what moves, what is proven to stay, and every way in which an adapter is taken along."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import pytest
import torch
from networks import blobs
from safetensors.torch import load_file
from session_scripts import run_without_tlnb
from stopping import stop_and_save
from torch import nn

from tlnb.errors import CheckpointError, NotReady, PlanError, TlnbError, TrainingError
from tlnb.session import Session


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))


class Mixed(nn.Module):
    """A convolution with BatchNorm, a grouped and a depthwise one, an attention, norms, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.grouped = nn.Conv2d(16, 32, 3, groups=2, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32, padding=1)
        self.attention = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.middle = nn.Linear(32, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.grouped(self.stem(x)))
        x = self.attention(x.flatten(2).transpose(1, 2))
        return self.head(torch.relu(self.middle(x.mean(1))))


def pictures(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % 3
    return torch.randn(count, 1, 9, 9, generator=generator) + 1.5 * targets.view(-1, 1, 1, 1), targets


def mixed() -> Session:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Mixed()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.25)
    session = Session([])
    session.load(model)
    session.data(pictures())
    return session


def digits(per_class: int = 12, **options: object) -> Session:
    session = Session([])
    session.load("convnet5")
    session.data("digits", per_class=per_class, valid=0.05, **options)
    return session


def body_of(session: Session) -> dict[str, torch.Tensor]:
    """Weights and buffers of the body without what adapts them."""
    state = session.model.state_dict()
    return {
        n: t.clone()
        for n, t in state.items()
        if "adapt_" not in n and not n.startswith(("head.", "classifier.7."))
    }


def answers(session: Session) -> torch.Tensor:
    x = session.view.need_samples()[1].batch(torch.arange(12))
    with torch.no_grad():
        return session.model.eval()(x)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


KINDS = [{"rank": 2}, {"kind": "bias"}, {"kind": "norm"}]


@pytest.mark.parametrize("how", KINDS)
def test_the_body_keeps_every_bit_and_every_statistic_and_the_network_learns(how: dict[str, object]) -> None:
    session = mixed()
    before, first, untouched = body_of(session), answers(session), copy.deepcopy(session.model)
    session.adapt("all", **how)
    assert torch.equal(answers(session), first)  # an adapter adds nothing at first
    run = session.train(epochs=2, lr=1e-2)
    after = body_of(session)
    assert same(after, before)
    assert not torch.equal(answers(session), first)
    result = run.stages[0]
    assert result.digest_before == result.digest_after
    assert len(result.digest_after) == 64
    assert "under adapters" in result.proof
    assert "unchanged" in result.proof
    # An independent network: the body of before, and each weight with its difference added.
    merged = {n: t.clone() for n, t in untouched.state_dict().items() if not n.startswith("head.")}
    session.merge()
    assert set(merged) == set(body_of(session))
    assert any(not torch.equal(merged[n], t) for n, t in body_of(session).items())
    assert all(torch.equal(merged[n], t) for n, t in body_of(session).items() if "running" in n)


@pytest.mark.parametrize("how", KINDS)
def test_merged_equals_unmerged_and_undo_takes_the_merge_back(how: dict[str, object]) -> None:
    session = mixed()
    session.adapt("all", **how)
    session.train(epochs=2, lr=1e-2)
    before, state = answers(session), {n: t.clone() for n, t in session.model.state_dict().items()}
    states = [row.state for row in session.layers]
    told = repr(session.merge())
    assert "undo" in told
    assert not [n for n, _ in session.model.named_parameters() if "adapt_" in n]
    assert {type(m) for m in session.model.modules()} == {type(m) for m in Mixed().modules()}
    merged = answers(session)
    assert ((merged - before).norm() / before.norm()).item() <= 1e-6
    session.undo()
    assert same(dict(session.model.state_dict()), state)
    assert [row.state for row in session.layers] == states
    assert torch.equal(answers(session), before)
    session.undo()  # the stage itself
    assert len(session.history.stages) == 0


def test_low_rank_is_that_of_the_paper_and_depthwise_matrices_are_left_out() -> None:
    session = mixed()
    answer = session.adapt("all", rank=8)
    names = [n for n, _ in session.model.named_parameters() if n.rpartition(".")[2].startswith("adapt_")]
    on = {n.replace("adapt_", "").removesuffix("_a").removesuffix("_b") for n in names}
    assert on == {
        "grouped.weight", "attention.self_attn.in_proj_weight", "attention.self_attn.out_proj.weight",
        "attention.linear1.weight", "attention.linear2.weight", "middle.weight",
    }  # fmt: skip
    depthwise = next(row for row in session.layers if row.name == "depthwise")
    assert depthwise.state == "frozen"
    assert "depthwise" in repr(answer)
    grouped = session.model.grouped
    assert grouped.adapt_weight_a.shape == (8, 8 * 9)
    assert grouped.adapt_weight_b.shape == (32, 8)
    with torch.no_grad():
        grouped.adapt_weight_b.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 16, 5, 5, generator=torch.Generator().manual_seed(2))
    conv = nn.functional.conv2d
    plain = conv(x, grouped._parameters["weight"], grouped.bias, padding=1, groups=2)
    # LoRA as two convolutions (Hu et al. 2022, their code): the first with the filters of A, the second 1 x 1, a group
    # of channels at a time.
    a, b = grouped.adapt_weight_a.view(8, 8, 3, 3), grouped.adapt_weight_b
    parts = [
        conv(conv(x[:, 8 * g : 8 * g + 8], a, padding=1), b[16 * g : 16 * g + 16, :, None, None])
        for g in (0, 1)
    ]  # fmt: skip
    wanted = plain + 2.0 * torch.cat(parts, 1)
    assert torch.allclose(grouped(x), wanted, atol=1e-5)


def test_the_prefix_is_kept_up_to_the_first_adapted_layer_and_changes_nothing() -> None:
    weights = []
    for cache in (True, False):
        session = digits()
        session.adapt("3:", rank=2)
        run = session.train(epochs=2, lr=1e-2, cache=cache, guard="off")
        assert ("layers 0–2" in run.stages[0].shortcut) is cache
        weights.append({n: t.clone() for n, t in session.model.state_dict().items()})
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][n], weights[1][n], atol=2e-3) for n in weights[0])


def test_optimizer_and_gradients_are_those_of_the_adapter_alone() -> None:
    session = digits()
    session.adapt("body", "bias")
    trains = {n for n, p in session.model.named_parameters() if p.requires_grad}
    assert trains == {
        n for n, _ in session.model.named_parameters() if "adapt_" in n or n.startswith("classifier.7.")
    }
    assert session.layers.trainable_parameters == sum(
        p.numel() for p in session.model.parameters() if p.requires_grad
    )


def test_plans_adapt_and_go_on() -> None:
    session = digits()
    run = session.run(
        "fit head\nadapt 3: rank 2  epochs 2 lr 1e-2\nadapt 0:3 bias lr 1e-3  # 3: stays adapted\nfreeze 0:5 lr 1e-3"
    )
    stages = [stage.stage for stage in run.stages]
    assert [stage.adapted for stage in stages] == [
        (), tuple((i, "rank 2") for i in range(3, 7)),
        (*((i, "bias") for i in range(3)), *((i, "rank 2") for i in range(3, 7))), ((5, "rank 2"), (6, "rank 2")),
    ]  # fmt: skip
    assert stages[1].frozen == (0, 1, 2)
    assert stages[2].frozen == ()
    assert stages[3].frozen == (0, 1, 2, 3, 4)
    assert [row.state for row in session.layers] == ["frozen"] * 5 + ["adapted"] * 2 + ["trains"]
    assert all(stage.digest_before == stage.digest_after for stage in run.stages)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("adapt head rank 4", "body"),
        ("adapt 3: rank 0", "rank"),
        ("adapt 3: rank", "rank"),
        ("adapt 3: biass", "bias"),
        ("adapt", "needs layers"),
        ("adapt all norm", "nothing to adapt"),  # convnet5 in these layers has none
        ("adapt 3: rank 8\nadapt 4 bias", "layer 4 is adapted by rank 8"),
        ("adapt 3: rank 8 keep l2sp:0.1", "lwf"),
    ],
)
def test_a_wrong_line_says_why_and_changes_nothing(line: str, word: str) -> None:
    session = Session([])
    session.load("alexnet", weights="none") if "norm" in line else session.load("convnet5")
    session.data("digits", per_class=5)
    before, frozen = {n: t.clone() for n, t in session.model.state_dict().items()}, session.frozen
    with pytest.raises((PlanError, TrainingError), match=word) as error:
        session.run(line)
    assert "\n" not in str(error.value)
    assert same(before, dict(session.model.state_dict()))
    assert session.frozen == frozen
    assert len(session.history.stages) == 0


def test_a_scripted_layer_has_nothing_to_adapt_and_that_is_one_line() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the form, and people still bring it
        part = torch.jit.script(nn.Linear(64, 8))
    session = Session([])
    session.load(nn.Sequential(nn.Flatten(), part, nn.ReLU(), nn.Linear(8, 3)), input="1,8,8")
    source = blobs(30)
    session.data((source.inputs, source.targets))
    with pytest.raises(TlnbError, match="nothing to adapt"):
        session.adapt("all", kind="bias")


def test_unfreezing_lets_weights_and_adapter_train_and_freezing_holds_both() -> None:
    session = digits()
    session.adapt("3:", rank=2)
    session.train(epochs=1, lr=1e-2)
    first = answers(session)
    session.unfreeze("5")
    assert torch.equal(answers(session), first)
    assert session.layers[5].state == "trains"
    assert session.layers[5].adapter == "rank 2"
    session.freeze("3:5")
    assert [row.state for row in session.layers][3:] == ["frozen", "frozen", "trains", "adapted", "trains"]
    before = {n: t.clone() for n, t in session.model.state_dict().items()}
    session.train(epochs=1, lr=1e-3, guard="off")
    moved = {
        n.rpartition(".")[0] for n, t in session.model.state_dict().items() if not torch.equal(t, before[n])
    }
    assert moved == {"classifier.1", "classifier.4", "classifier.7"}
    with pytest.raises(NotReady, match="merge"):
        session.adapt("3", "bias")


@pytest.mark.parametrize("cut", [1, 4])
def test_a_stage_that_was_stopped_and_saved_goes_on_bit_equal_in_another_kernel(
    tmp_path: Path, cut: int
) -> None:
    plan = "adapt 3: rank 2 epochs 3 lr 1e-2"
    whole = digits()
    whole.run(plan)
    stop_and_save(digits(), plan, cut, tmp_path / "left")
    late = Session([])
    late.resume(str(tmp_path / "left.safetensors"))
    assert [row.state for row in late.layers] == ["frozen"] * 3 + ["adapted"] * 4 + ["trains"]
    with pytest.raises(NotReady, match="under way"):
        late.merge()
    run = late.go_on()
    assert same(dict(late.model.state_dict()), dict(whole.model.state_dict()))
    assert run.stages[-1].digest_after == whole.history.stages[-1].digest_after
    late.merge()
    late.undo()
    assert same(dict(late.model.state_dict()), dict(whole.model.state_dict()))


def test_the_adapter_saves_alone_and_goes_on_the_same_body(tmp_path: Path) -> None:
    session = mixed()
    session.adapt("all", rank=2)
    session.train(epochs=2, lr=1e-2)
    wanted = answers(session)
    told = repr(session.save(str(tmp_path / "birds"), adapter=True))
    assert "birds.safetensors" in told
    assert "%" in told
    names = load_file(tmp_path / "birds.safetensors")
    assert all(n.startswith(("adapter.", "head.")) for n in names)
    other = mixed()
    other.adapt(file=str(tmp_path / "birds"))
    assert torch.equal(answers(other), wanted)
    assert [row.state for row in other.layers] == [row.state for row in session.layers]
    with pytest.raises(CheckpointError, match="adapters alone"):
        other.resume(str(tmp_path / "birds"))
    # Another body, by one bit of one statistic.
    changed = mixed()
    changed.model.stem[1].running_mean[0] += 1e-6
    before = {n: t.clone() for n, t in changed.model.state_dict().items()}
    with pytest.raises(CheckpointError, match="another body"):
        changed.adapt(file=str(tmp_path / "birds"))
    assert same(before, dict(changed.model.state_dict()))
    session.save(str(tmp_path / "whole"))
    with pytest.raises(CheckpointError, match="tl_resume"):
        other.adapt(file=str(tmp_path / "whole"))


def test_the_adapter_of_a_resnet_is_under_two_hundredths(tmp_path: Path) -> None:
    session = Session([])
    session.load("resnet18", weights="none")
    session.data("digits", per_class=3, size=32)
    session.adapt("all")
    session.save(str(tmp_path / "small"), adapter=True)
    whole = sum(t.numel() * t.element_size() for t in session.model.state_dict().values())
    assert (tmp_path / "small.safetensors").stat().st_size < 0.02 * whole


def test_a_script_ends_bit_equal(tmp_path: Path) -> None:
    session = digits()
    session.run(
        "fit head\nadapt 3: rank 2 epochs 2 lr 1e-2 init soft blend 0.5\nadapt 0:3 bias epochs 1 lr 1e-3"
    )
    session.merge()
    session.run("freeze 0:6 lr 1e-3\nadapt 4: rank 1 lr 1e-2 guard off")
    session.script(str(tmp_path / "train.py"))
    shown = run_without_tlnb(tmp_path / "train.py")
    assert "adapt 0:3 bias" in shown
    found, ours = load_file(tmp_path / "train.trained.safetensors"), session.model.state_dict()
    assert same(dict(ours), found)


def test_an_export_is_merged(tmp_path: Path) -> None:
    session = digits()
    session.adapt("3:", rank=2)
    session.train(epochs=1, lr=1e-2)
    session.export(str(tmp_path / "net"))
    names = load_file(tmp_path / "net.safetensors")
    assert not [n for n in names if "adapt_" in n]
    session.merge()
    assert all(torch.equal(t, names[n]) for n, t in session.model.state_dict().items())


def test_copies_and_pickles_of_an_adapted_network_answer_the_same() -> None:
    session = mixed()
    session.adapt("all", rank=2)
    session.train(epochs=1, lr=1e-2)
    x = pictures()[0][:5]
    with torch.no_grad():
        wanted = session.model(x)
        assert torch.equal(copy.deepcopy(session.model)(x), wanted)
        file = io.BytesIO()
        torch.save(session.model.attention, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
        y = torch.randn(2, 4, 32)
        assert torch.equal(again(y), session.model.attention(y))


def test_what_knows_nothing_of_adapters_says_so(tmp_path: Path) -> None:
    session = mixed()
    with pytest.raises(NotReady, match="nothing is adapted"):
        session.merge()
    with pytest.raises(NotReady, match="nothing is adapted"):
        session.save(str(tmp_path / "none"), adapter=True)
    session.adapt("all", rank=2)
    session.train(epochs=1, lr=1e-2)
    with pytest.raises(NotReady, match="merge"):
        session.blend(0.5)
    session.forgetting()
    session.merge()
    session.blend(1.0)
    with pytest.raises(TlnbError):
        session.adapt("9", rank=2)


def test_a_new_head_keeps_the_adapters() -> None:
    session = digits()
    session.adapt("3:", rank=2)
    session.train(epochs=1, lr=1e-2)
    states = [row.state for row in session.layers]
    session.head("linear")
    assert [row.state for row in session.layers] == states
    assert session.layers[3].added > 0
    session.train(epochs=1, lr=1e-2)


def test_folds_adapt_copies_and_leave_the_network() -> None:
    session = mixed()
    before = {n: t.clone() for n, t in session.model.state_dict().items()}
    found = session.cross_validate(3, "adapt all rank 2 epochs 2 lr 1e-2")
    again = session.cross_validate(3, "adapt all rank 2 epochs 2 lr 1e-2")
    assert same(before, dict(session.model.state_dict()))
    assert repr(found) == repr(again)


# ---------------------------------------------------------------- what was adapted becomes a part of the weights

MERGING = (
    "fit head\nadapt all bias epochs 2 lr 1e-2 init soft guard off\n"
    "train 3: epochs 2 lr 1e-3 init soft guard strict"
)


def test_train_merges_what_lines_before_it_adapted_and_undo_takes_that_back() -> None:
    session = digits()
    plain = list(session.model.state_dict())
    session.run(MERGING.rpartition("\n")[0])
    adapted = {n: t.clone() for n, t in session.model.state_dict().items()}
    assert len(adapted) > len(plain)
    samples = session.view.need_samples()[1].batch(torch.arange(20))
    with torch.no_grad():
        before = session.model.eval()(samples)
    session.run("train head epochs 1 lr 1e-9 guard off")
    assert list(session.model.state_dict()) == plain
    assert not session.view.need_layers().adapters
    with torch.no_grad():
        assert torch.allclose(session.model.eval()(samples), before, atol=1e-5)
    assert [row.state for row in session.layers] == ["frozen"] * 7 + ["trains"]
    session.undo()
    assert same(adapted, dict(session.model.state_dict()))
    assert [row.state for row in session.layers] == ["adapted"] * 7 + ["trains"]
    assert session.history.stages[-1].recipe is not None
    assert not session.history.stages[-1].recipe.merged


def test_a_stage_that_is_taken_back_after_a_merge_leaves_plain_weights() -> None:
    session = digits()
    session.run("fit head\nadapt all bias epochs 1 lr 1e-3 guard off")
    score = session.history.stages[-1].final
    (stage,) = session.run("train all epochs 1 lr 3 schedule constant").stages
    assert (stage.share, stage.final) == (0.0, score)
    assert not any("adapt" in name for name in session.model.state_dict())
    assert session.results().accuracy == pytest.approx(score.accuracy, abs=1e-6)


def test_a_plan_that_merges_is_written_bit_equal(tmp_path: Path) -> None:
    whole = digits()
    whole.run(MERGING)
    whole.script(str(tmp_path / "train.py"))
    run_without_tlnb(tmp_path / "train.py")
    found, ours = load_file(tmp_path / "train.trained.safetensors"), whole.model.state_dict()
    assert all(torch.equal(found[name], ours[name]) for name in ours)


@pytest.mark.parametrize(("stages", "when"), [(1, "batch"), (1, "end"), (2, "start"), (2, "batch")])
def test_a_plan_that_merges_is_gone_on_with_bit_equal(stages: int, when: str, tmp_path: Path) -> None:
    whole = digits()
    whole.run(MERGING)
    ours = whole.model.state_dict()
    left = digits()

    class Stop:
        def on_stage_start(self, *of: object) -> None:
            self.ask("start")

        def on_batch(self, step: int, steps: int) -> None:
            self.ask("batch")

        def on_stage_end(self, result: object) -> None:
            self.ask("end", 1)

        def ask(self, now: str, counted: int = 0) -> None:
            if len(left.history.stages) == stages + counted and now == when:
                left.stop_request.ask()

    left.listeners = [Stop()]
    assert left.run(MERGING).stopped
    left.save(str(tmp_path / "left"))
    late = Session([])
    late.resume(str(tmp_path / "left.safetensors"))
    late.data("digits", per_class=12, valid=0.05)
    late.go_on()
    assert same(dict(ours), dict(late.model.state_dict()))


def test_layers_may_be_adapted_otherwise_after_a_line_that_merges() -> None:
    session = digits()
    run = session.run(
        "adapt all bias epochs 1 lr 1e-3 guard off\ntrain all epochs 1 lr 1e-4 guard off\n"
        "adapt 3: rank 2 epochs 1 lr 1e-3 guard off"
    )
    assert [stage.stage.text.split()[0] for stage in run.stages] == ["adapt", "train", "adapt"]
    assert {a.words for a in session.view.need_layers().adapters.values()} == {"rank 2"}


def test_the_note_of_a_merge_stays_when_a_later_stage_is_undone() -> None:
    session = digits()
    session.adapt("all", kind="bias")
    with torch.no_grad():
        for name, parameter in session.model.named_parameters():
            if "adapt" in name:
                parameter.add_(0.01)
    session.merge()
    notes = session.view.need_model().notes
    session.adapt("3:", rank=2)
    session.train(epochs=1, lr=1e-3)
    session.undo()
    assert session.view.need_model().notes == notes
