"""What the session answers: objects that show themselves as text and as HTML."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any, TypeVar
from weakref import ref

from tlnb.display.tables import Table, frame
from tlnb.engine.network.layers import ADAPTED, FROZEN, TRAINS, LayerMap
from tlnb.engine.training.lr_curve import LRCurve
from tlnb.engine.training.records import spans

Answer = TypeVar("Answer")


class Owner:
    """The session that gave an answer: held weakly, and left behind by a copy of the answer.

    Args:
        session: the session, or None.
    """

    def __init__(self, session: Any = None):
        self._session = ref(session) if session is not None else lambda: None

    @property
    def session(self) -> Any:
        """The session, as long as it lives; else None."""
        return self._session()

    def __reduce__(self) -> tuple[Any, ...]:
        return Owner, ()


def signed(answer: Answer, session: Any) -> Answer:
    """The answer, which knows now that this session gave it: what is clicked on it acts there."""
    object.__setattr__(answer, "_owner", Owner(session))  # some answers are frozen
    return answer


def owner_of(answer: object) -> Any:
    """The session that gave the answer, or None where that is not known or gone."""
    owner = getattr(answer, "_owner", None)
    return owner.session if isinstance(owner, Owner) else None


class Lines:
    """A few lines of text that show themselves in HTML as they are.

    Args:
        lines: plain text.
    """

    def __init__(self, *lines: str):
        self.lines = tuple(line for line in lines if line)

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return "<div>" + "<br>".join(escape(line) for line in self.lines) + "</div>"


@dataclass(frozen=True)
class LayerRow:
    """One layer as it is now.

    Attributes:
        index: its number.
        name: qualified name of the module that it starts with.
        kind: class of that module.
        shape: of its output for one sample, or None where it was not seen to run.
        parameters: how many numbers it could learn.
        frozen: whether it stays fixed.
        head: whether it belongs to the head.
        state: ``frozen``, ``adapted`` (its weights stay, and what is added to them trains) or ``trains``.
        adapter: how it is adapted, such as ``rank 8``; also where it is frozen or trains with that; else empty.
        added: numbers in its adapter.
    """

    index: int
    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    frozen: bool
    head: bool
    state: str = TRAINS
    adapter: str = ""
    added: int = 0
    still: int = 0

    @property
    def training(self) -> int:
        """Numbers of it that training would change."""
        own = self.parameters - self.still if self.state == TRAINS else 0
        return own + (0 if self.frozen else self.added)

    @property
    def words(self) -> str:
        """Its state for a table."""
        sign = {FROZEN: "❄ ", ADAPTED: "◆ "}.get(self.state, "")
        return f"{sign}{self.state}" + (f", {self.adapter}" if self.adapter else "")


class LayerTable(Sequence[LayerRow]):
    """The layers of a model with their state, in the order in which data flows.

    Args:
        layers: of the model.
        frozen: for each layer, whether it stays fixed.
        still: numbers in each weight that its owner keeps from training, by name.
    """

    def __init__(
        self, layers: LayerMap, frozen: Sequence[bool], still: Mapping[str, int] = MappingProxyType({})
    ):
        self.note = layers.note
        fixed = [i for i, flag in enumerate(frozen) if flag]
        self.rows = tuple(self._row(layers, i, fixed, still) for i in range(len(layers)))

    @staticmethod
    def _row(layers: LayerMap, index: int, fixed: Sequence[int], still: Mapping[str, int]) -> LayerRow:
        layer, adapter = layers[index], layers.adapters.get(index)
        return LayerRow(
            index, layer.name, layer.kind, layer.shape, layer.parameters, index in fixed, index in layers.head,
            layers.state(index, fixed), adapter.words if adapter else "", adapter.parameters if adapter else 0,
            sum(still.get(name, 0) for name in layer.parameter_names),
        )  # fmt: skip

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerRow]:
        return iter(self.rows)

    @property
    def trainable_parameters(self) -> int:
        """Numbers that training would change."""
        return sum(row.training for row in self)

    @property
    def parameters(self) -> int:
        """Numbers in all layers."""
        return sum(row.parameters for row in self)

    @property
    def summary(self) -> str:
        """One line: how much trains."""
        return f"{self.trainable_parameters:,} of {self.parameters:,} parameters train"

    @property
    def table(self) -> Table:
        """One line a layer."""
        rows = [
            (
                row.index,
                row.name + (" (head)" if row.head else ""),
                row.kind,
                "×".join(map(str, row.shape)) if row.shape else "-",
                f"{row.parameters:,}",
                row.words,
            )
            for row in self
        ]
        headers = ("layer", "name", "kind", "output", "parameters", "state")
        return Table(headers, rows, align="><<<><")

    def frame(self) -> Any:
        """A row a layer as a pandas DataFrame; a dict of columns where pandas is not installed."""
        names = ("index", "name", "kind", "shape", "parameters", "frozen", "head")
        return frame({name: [getattr(row, name) for row in self] for name in names})

    def __repr__(self) -> str:
        return "\n".join(filter(None, (repr(self.table), self.summary, self.note)))

    def _repr_html_(self) -> str:
        below = "<br>".join(escape(line) for line in (self.summary, self.note) if line)
        return f"{self.table._repr_html_()}<div>{below}</div>"


class Change(Lines):
    """What a freeze, an unfreeze or an adapt did.

    Attributes:
        hit: indexes of the layers that the address named.
        table: the layers after it.
        curve: the range test that was asked for with it, or None.
    """

    curve: LRCurve | None = None

    def __init__(
        self, verb: str, hit: Sequence[int], layers: LayerMap, table: LayerTable, how: str = "", *more: str
    ):
        self.hit, self.table = tuple(hit), table
        what = layers.describe(hit) if hit else "no layer"
        super().__init__(f"{' '.join(filter(None, (verb, what, how)))}; {table.summary}", *more)

    def __repr__(self) -> str:
        return "\n".join(filter(None, (super().__repr__(), repr(self.curve) if self.curve else "")))

    def _repr_html_(self) -> str:
        if self.curve is None:
            return super()._repr_html_()
        return f"{super()._repr_html_()}{curve_html(self.curve)}"


def curve_html(curve: LRCurve) -> str:
    """A range test as HTML: its picture, and its words for those who cannot see it."""
    picture = b64encode(curve._repr_png_()).decode()
    return f'<img style="max-width:100%" alt="{escape(repr(curve))}" src="data:image/png;base64,{picture}">'


class PanelCard(Lines):
    """Where the panel starts from; a notebook that is open shows the panel itself.

    Args:
        network: the network in words, or empty.
        data: the data in words, or empty.
        frozen: numbers of the frozen layers.
    """

    def __init__(self, network: str, data: str, frozen: Sequence[int]):
        super().__init__(
            f"network  {network.partition(chr(10))[0] or 'none; %tl_load convnet5 loads one'}",
            f"data     {data.partition(chr(10))[0] or 'none; %tl_data digits names some'}",
            f"frozen   {spans(frozen) if frozen else 'none'}" if network else "",
            "the panel shows where a notebook is open; all that it does can be typed as magics too",
        )
