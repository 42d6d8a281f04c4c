"""What a module of one's own answers is looked at once when data is named: told, used, or refused in one line."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlnb.engine.core.objectives import scores_of
from tlnb.errors import ModelError, TlnbError
from tlnb.session import Session

X, Y = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
Named = namedtuple("Named", "hidden logits")


class Net(nn.Module):
    """``end`` makes the answer of the scores, the features and the second head's scores."""

    def __init__(
        self, end: Callable[[Tensor, Tensor, Tensor], Any] = lambda s, f, d: s, outputs: int = 5
    ) -> None:
        super().__init__()
        self.conv, self.fc, self.domain = nn.Conv2d(3, 8, 3), nn.Linear(8, outputs), nn.Linear(8, 3)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        features = F.relu(self.conv(x)).mean((2, 3))
        return self.end(self.fc(features), features, self.domain(features))


def session(net: nn.Module, data: object = (X, Y), shape: str = "3,8,8") -> tuple[Session, list[str]]:
    told: list[str] = []
    tl = Session([type("Listener", (), {"on_message": lambda self, text: told.append(text)})()])
    tl.load(net, input=shape)
    tl.data(data, batch=8)
    return tl, told


USED: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "alone": lambda s, f, d: s,
    "class and domain": lambda s, f, d: (s, d),
    "a list": lambda s, f, d: [s, d],
    "logits in a dictionary": lambda s, f, d: {"hidden": f, "logits": s, "domain": d},
    "out, as in segmentation": lambda s, f, d: {"aux": d, "out": s},
    "the only row in a dictionary": lambda s, f, d: {"map": f[:, :, None, None], "what": s},
    "a named tuple with logits second": lambda s, f, d: Named(f, s),
    "nested": lambda s, f, d: ((s, f), d),
    "divided by a temperature": lambda s, f, d: s / 2.0,
    "a view": lambda s, f, d: s.view(-1, s.shape[1]).unsqueeze(1).squeeze(1),
    "log softmax": lambda s, f, d: s.log_softmax(1),
}


@pytest.mark.parametrize("form", USED)
def test_the_head_is_the_layer_that_makes_the_scores(form: str) -> None:
    net = Net(USED[form])
    tl, told = session(net)
    assert tl.view.need_model().head == "fc"
    assert (net.fc.out_features, net.domain.out_features) == (2, 3)
    tl.train(epochs=1, lr=1e-2)
    tl.freeze("conv")
    tl.train(epochs=1, lr=1e-2)
    assert tl.predict(X[:4]).answers.shape == (4, 2)
    tl.results(worst=0)
    several = form not in ("alone", "divided by a temperature", "a view", "log softmax")
    assert any("answers several tensors: the scores are" in line for line in told) == several


def test_a_mean_of_two_heads_has_no_head_but_trains_where_its_width_fits() -> None:
    mean = lambda s, f, d: (s + d) / 2  # noqa: E731
    tl, _ = session(Net(mean, outputs=3), (X, torch.arange(40) % 3))
    assert (tl.view.need_model().head, tl.view.need_model().outputs) == ("", 3)
    assert tl.train(epochs=1, lr=1e-2).stages[0].records
    with pytest.raises(ModelError, match="give it one output for each class itself: 2, not 3"):
        session(Net(mean, outputs=3))


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, X[:2])])
def test_scripted_modules_train_where_their_width_fits(make: Callable[[nn.Module], nn.Module]) -> None:
    def net(outputs: int) -> nn.Module:
        return make(
            nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs)
            )
        )

    tl, _ = session(net(2))
    assert tl.train(epochs=1, lr=1e-2).stages[0].records
    assert tl.predict(X[:4]).answers.shape == (4, 2)
    with pytest.raises(ModelError, match="one output for each class itself: 2, not 4"):
        session(net(4))


CLOSED: dict[str, tuple[nn.Module, str]] = {
    "softmax": (nn.Softmax(1), "ends in Softmax"), "sigmoid": (nn.Sigmoid(), "ends in Sigmoid"),
    "relu": (nn.ReLU(), "ends in ReLU"), "tanh": (nn.Tanh(), "ends in Tanh"),
    "log softmax": (nn.LogSoftmax(1), ""), "nothing": (nn.Identity(), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLOSED)
def test_what_closes_a_kept_head_is_told_and_a_new_head_goes_without_it(kind: str) -> None:
    end, words = CLOSED[kind]
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2), end
    )
    tl, told = session(net)
    lines = [line for line in told if "ends in" in line]
    assert [words in line for line in lines] == ([True] if words else [])
    assert all("%tl_head linear" in line for line in lines)
    assert net[5] is end
    tl.head("linear")
    assert isinstance(net[5], nn.Identity)


def test_a_softmax_as_a_function_is_told_for_classes_labels_and_values() -> None:
    labels, values = (torch.rand(40, 2) > 0.5).float(), torch.randn(40, 2)
    for target, words in (
        (Y, "cross-entropy takes scores"),
        (labels, "before a sigmoid"),
        (values, "deviation 1"),
    ):
        for end, name in (
            (lambda s, f, d: s.softmax(1), "Softmax"),
            (lambda s, f, d: s.sigmoid(), "Sigmoid"),
        ):
            _, told = session(Net(end, outputs=2), (X, target))
            assert sum(f"ends in {name}: " in line and words in line for line in told) == 1, (told, words)


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.rnn, self.fc = nn.GRU(5, 8, batch_first=batch_first), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.rnn(x)[0]
        return self.fc(out[:, -1] if self.rnn.batch_first else out[-1])


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.down(x)))


REFUSED: dict[str, tuple[Callable[[], nn.Module], object, str, str]] = {
    "time first": (
        lambda: Recurrent(False), (torch.rand(40, 12, 5), Y), "12,5", "dimension is not the samples.*batch_first",
    ),
    "maps": (Maps, (X, Y), "3,8,8", "answers a map, 2×8×8, for each sample"),
    "a row for each step": (
        lambda: Net(lambda s, f, d: s[:, None].expand(-1, 4, -1), 2), (X, Y), "3,8,8", "answers several rows, 4×2",
    ),
    "one number without a dimension": (
        lambda: Net(lambda s, f, d: s.squeeze(1), 1), (X, torch.randn(40)), "3,8,8", r"return \(B, 1\)",
    ),
    "no name known": (
        lambda: Net(lambda s, f, d: {"a": s, "b": d}), (X, Y), "3,8,8", "returned dict with the keys 'a', 'b'",
    ),
    "nothing": (lambda: Net(lambda s, f, d: None), (X, Y), "3,8,8", "returned NoneType, not class scores"),
    "features beside": (
        lambda: Net(lambda s, f, d: torch.cat([s, f], 1), 2), (X, Y), "3,8,8", "answers 10 numbers|one output for",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_form_is_refused_in_a_line(case: str) -> None:
    make, data, shape, words = REFUSED[case]
    net = make()
    before = dict(net.named_modules())
    with pytest.raises(TlnbError, match=words) as caught:
        session(net, data, shape)
    assert len(str(caught.value).splitlines()) == 1
    assert dict(net.named_modules()) == before
    batch_first = Recurrent(True)
    session(batch_first, (torch.rand(40, 12, 5), Y), "12,5")[0].train(epochs=1, lr=1e-2)


def test_inputs_that_are_written_to_or_made_arrays_of() -> None:
    class Writes(Net):
        def forward(self, x: Tensor) -> Any:
            x -= 0.5
            x[:, 0] = 0
            return super().forward(x)

    class Arrays(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(torch.from_numpy(x.numpy() * 2))

    for kind in (Writes, Arrays):
        tl, _ = session(kind())
        assert tl.view.need_model().head in ("fc", "domain")
        assert tl.predict(X[:4]).answers.shape[0] == 4


def test_scores_by_name() -> None:
    a, b = torch.ones(2, 3), torch.ones(2, 4)
    assert scores_of({"x": b, "logits": a}) is a
    assert scores_of((a, b)) is a
    with pytest.raises(ModelError, match="returned dict with the keys 'x', 'y', not class scores"):
        scores_of({"x": a, "y": b})


class Cosine(nn.Module):
    """Its scores are made by a weight of its own, behind a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv, self.weight = nn.Conv2d(3, 4, 3), nn.Parameter(torch.randn(outputs, 4))

    def forward(self, x: Tensor) -> Tensor:
        return 10 * F.normalize(self.conv(x).mean((2, 3)), dim=1) @ F.normalize(self.weight, dim=1).t()


def test_a_weight_that_makes_the_scores_is_no_convolution() -> None:
    tl, _ = session(Cosine(2))
    assert tl.view.need_model().head == ""
    assert tl.train(1, 0.01).stages[0].records
    with pytest.raises(ModelError, match="give it one output for each class itself: 2, not 7"):
        session(Cosine(7))


def test_an_auxiliary_answer_of_the_right_width_stays() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aux, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            features = self.conv(x).mean((2, 3))
            return self.aux(features), self.fc(features)

    tl, _ = session(First())
    with torch.no_grad():
        scores = tl.model.eval()(X[:4])[0]
    assert torch.allclose(torch.as_tensor(tl.predict(X[:4]).probabilities), scores.softmax(1), atol=1e-4)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda s, f, d: s.to_sparse(), "sparse_coo"),
        (lambda s, f, d: s.to(torch.complex64), "complex64"),
        (lambda s, f, d: s.round().long(), "int64"),
    ],
)
def test_scores_that_are_no_dense_fractions_are_one_line(end: Callable[..., Any], kind: str) -> None:
    with pytest.raises(ModelError, match=f"scores of the kind {kind}; return a dense tensor in float32"):
        session(Net(end, outputs=2))
