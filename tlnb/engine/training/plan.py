"""The plan language: a stage a line, the whole checked before anything trains; and the usual plan.

freeze body      epochs 3                    # only the new head trains
unfreeze -3:     epochs 2   lr auto
train 0,head     epochs 2   lr 1e-4  decay 2.6
adapt 3: rank 8  epochs 3                    # what is added to the weights of layers 3: trains, and the head

``fit head`` has no epochs: it fits the last layer to convergence, with all else frozen; ``fit head nearest`` sets it
to the means of the classes, and a head of neighbours keeps the samples. ``adapt`` leaves layers adapted
that lines before it have adapted, and freezes the rest of the body; ``train`` merges what they have learned into the
weights first.

What trains where the user says nothing: the head first, fitted; then what is unfrozen, from a soft head.

Head first because a new head on moving features spoils them (LP-FT, Kumar et al. 2022), and because a fitted head is
at once as good as the features are. What comes after it begins with a soft head: a fitted one tells the few training
samples apart already, so that the body would have nothing to learn. Texts are the exception: a text network goes on
from the fitted head (on Banking77 a soft one costs 8 points). A deep network for pictures adapts its biases first: on
photos that comes further than training all weights does, which serves where the data are far from what it knows, and
stays only where it is better by more than luck. A handful of images trains the weights of the last part of the body
alone. The figures behind each number stand in ``tests/benchmarks/accuracy/RESULTS.md``, which says on what they were
tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tlnb.engine.network import address
from tlnb.engine.network.adapters import BIAS, KINDS, RANK, WIDEST, words_of
from tlnb.engine.network.layers import TRAINS, LayerMap
from tlnb.engine.training.records import spans
from tlnb.engine.training.stage import (
    AUTO,
    FIT,
    FIT_KEYS,
    FITS,
    KEYS,
    LOGISTIC,
    STRICT,
    Stage,
    read_key,
    read_keys,
)  # fmt: skip
from tlnb.errors import AddressError, PlanError, did_you_mean

VERBS = ("freeze", "unfreeze", "train", "fit", "adapt")
ADAPT = "adapt"


@dataclass(frozen=True)
class States:
    """The states of the layers between two lines of a plan.

    Attributes:
        frozen: indexes of the frozen ones.
        adapted: of the adapted ones, each with its adapter's words; all others train.
    """

    frozen: frozenset[int]
    adapted: Mapping[int, str]

    @classmethod
    def of(cls, layers: LayerMap, frozen: Iterable[int]) -> States:
        """As they are now."""
        return cls(frozenset(frozen), {i: layers.adapters[i].words for i in layers.adapted})

    def frozen_now(self, frozen: frozenset[int]) -> States:
        """With these layers frozen; of the others each stays adapted that is."""
        return States(frozen, {i: words for i, words in self.adapted.items() if i not in frozen})

    def trained(self, hit: frozenset[int]) -> States:
        """With these layers training."""
        adapted = {i: words for i, words in self.adapted.items() if i not in hit}
        return States(self.frozen - hit, adapted)

    def adapted_too(self, layers: LayerMap, hit: frozenset[int], words: str) -> States:
        """With these layers of the body adapted, the head training, and what was neither adapted nor head frozen."""
        adapted = {**self.adapted, **{i: words for i in hit if i in layers.body}}
        return States(frozenset(layers.body) - set(adapted), adapted)


def parse_plan(
    text: str, layers: LayerMap, frozen: Collection[int], defaults: Mapping[str, object] | None = None
) -> tuple[Stage, ...]:
    """The stages of a plan, resolved against a model's layers.

    Args:
        text: the plan; blank lines and ``#`` comments are skipped.
        layers: the layers of the model.
        frozen: layers that are frozen when the plan starts; each line changes what the line before left.
        defaults: settings for every stage that does not say otherwise.

    Raises:
        PlanError: the first line that cannot be understood, with its number; or a plan without a stage.
    """
    usual = read_keys(defaults or {})
    stages: list[Stage] = []
    state = States.of(layers, frozen)
    for number, line in _lines(text):
        try:
            stage = _stage(line, layers, state, usual)
        except (PlanError, AddressError) as error:
            raise PlanError(f"line {number} ({line!r}): {error}") from None
        stages.append(stage)
        state = States(frozenset(stage.frozen), dict(stage.adapted))
    if not stages:
        raise PlanError("the plan has no stage; write a line such as: freeze body  epochs 3")
    return tuple(stages)


def one_stage(text: str, layers: LayerMap, frozen: Iterable[int], settings: Mapping[str, object]) -> Stage:
    """A stage that trains what is unfrozen now.

    Raises:
        PlanError: a bad setting, or nothing to train.
    """
    return _checked(text, layers, States.of(layers, frozen), read_keys(settings))


def _lines(text: str) -> Iterable[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        bare = _uncommented(line)
        if bare:
            yield number, bare


def _uncommented(line: str) -> str:
    # A comment starts at a word: a '#' inside a layer's name is part of the name.
    words = line.split()
    for position, word in enumerate(words):
        if word.startswith("#"):
            words = words[:position]
            break
    return " ".join(words)


def _stage(line: str, layers: LayerMap, state: States, usual: Mapping[str, Any]) -> Stage:
    verb, *rest = line.split()
    if verb.lower() not in VERBS:
        raise PlanError(
            f"a stage starts with {', '.join(VERBS[:-1])} or {VERBS[-1]}, not {verb!r}"
            f"{did_you_mean(verb, VERBS)}"
        )
    verb = verb.lower()
    where, rest = _where(verb, rest)
    words, rest = _adapter(rest) if verb == ADAPT else ("", rest)
    by, rest = (rest[0], rest[1:]) if verb == FIT and rest and rest[0] in FITS else ("", rest)
    pairs = _pairs(rest)
    hit = frozenset(address.select(where, layers))
    if verb == FIT:
        return _fit(line, layers, hit, usual, pairs, by if by != LOGISTIC else "")
    if verb == ADAPT:
        check_body(hit, layers)
    after = {
        "freeze": lambda: state.frozen_now(state.frozen | hit),
        "unfreeze": lambda: state.trained(hit),
        "train": lambda: States(frozenset(range(len(layers))) - hit, {}),
        ADAPT: lambda: state.adapted_too(layers, hit, words),
    }[verb]()
    # What is said of the whole plan is not of a stage that cannot have it.
    if pairs.get("contrast") is not None:
        usual = {name: value for name, value in usual.items() if name not in BESIDE_CONTRAST}
    return _checked(line, layers, after, {**usual, **pairs}, merges=verb == "train")


def check_body(hit: Iterable[int], layers: LayerMap) -> None:
    """See that there is something to adapt.

    Raises:
        PlanError: none of these layers is of the body.
    """
    if not set(hit) & set(layers.body):
        raise PlanError("adapt is for layers of the body, and the head trains as it is; such as: adapt all")


def adapter_words(kind: object, rank: object) -> str:
    """An adapter's words from what a user asked for.

    Args:
        kind: None, ``bias`` or ``norm``.
        rank: None for the usual one.

    Raises:
        PlanError: something else, or both.
    """
    if kind is not None and kind not in KINDS:
        hint = did_you_mean(str(kind), (*KINDS, RANK))
        raise PlanError(f"a layer is adapted by rank N, {' or '.join(KINDS)}, not {str(kind)!r}{hint}")
    if kind is not None and rank is not None:
        raise PlanError(f"{kind} has no rank; leave one of them out")
    if rank is None:
        return words_of(kind, None)
    number = str(rank)
    if isinstance(rank, bool) or not number.isdecimal() or not 1 <= int(number) <= WIDEST:
        raise PlanError(f"rank takes a whole number from 1 to {WIDEST}, not {number!r}")
    return words_of(None, int(number))


def _adapter(words: list[str]) -> tuple[str, list[str]]:
    """The adapter's words in a line, and what else stands there."""
    words = [part for word in words for part in (word.split("=", 1) if "=" in word else [word])]
    if words and words[0] in KINDS:
        return adapter_words(words[0], None), words[1:]
    if RANK not in words:
        if words and words[0] not in KEYS:
            adapter_words(words[0], None)
        return adapter_words(None, None), words
    place = words.index(RANK)
    rank = words[place + 1] if place + 1 < len(words) else "nothing"
    return adapter_words(None, rank), words[:place] + words[place + 2 :]


def _fit(
    line: str,
    layers: LayerMap,
    hit: frozenset[int],
    usual: Mapping[str, Any],
    pairs: Mapping[str, Any],
    by: str,
) -> Stage:
    if hit != frozenset(layers.head):
        raise PlanError("what can be fitted is the head alone: fit head")
    _only_known(pairs)
    chosen = {name: value for name, value in usual.items() if name in FIT_KEYS} | dict(pairs)
    return _checked(line, layers, States(frozenset(layers.body), {}), {**chosen, "kind": FIT, "by": by})


def _only_known(pairs: Mapping[str, Any]) -> None:
    for name in pairs:
        if name not in FIT_KEYS:
            raise PlanError(f"fit has no {name}; it takes {', '.join(FIT_KEYS)}")


def _where(verb: str, words: list[str]) -> tuple[str, list[str]]:
    # The address may hold spaces after commas ("2:4, 7"): it goes on as long as a comma joins the words.
    if not words or words[0] in KEYS:
        raise PlanError(f"{verb} needs layers, such as: {verb} {'head' if verb == FIT else 'body'}")
    end = 1
    while end < len(words) and (words[end - 1].endswith(",") or words[end].startswith(",")):
        end += 1
    return " ".join(words[:end]), words[end:]


def _pairs(words: list[str]) -> dict[str, Any]:
    flat = [part for word in words for part in (word.split("=", 1) if "=" in word else [word])]
    pairs: dict[str, Any] = {}
    for name, value in zip(flat[::2], [*flat[1::2], None], strict=False):
        if name in pairs:
            raise PlanError(f"{name} is given twice")
        if value is None and name in KEYS:
            raise PlanError(f"{name} needs a value: {KEYS[name].takes}")
        pairs[name] = read_key(name, value)
    return pairs


def _checked(
    text: str, layers: LayerMap, states: States, settings: Mapping[str, Any], *, merges: bool = False
) -> Stage:
    frozen = states.frozen
    trains = (i for i in range(len(layers)) if i not in states.adapted)
    if not states.adapted and not any(layers.learning(i, frozen) for i in trains):
        raise PlanError("nothing would train: every layer is frozen; unfreeze some, such as: unfreeze head")
    init = settings.get("init", "keep")
    if init != "keep" and frozen & set(layers.head):
        raise PlanError(f"init {init} changes the head, which is frozen here; unfreeze it, or leave init out")
    if settings.get("contrast") is not None:
        settings = _contrasted(settings, frozen >= set(layers.head), bool(states.adapted))
    asked = {name: value for name, value in settings.items() if name in KEYS}
    adapted = tuple(sorted(states.adapted.items()))
    return Stage(
        text=text, frozen=tuple(sorted(frozen)), adapted=adapted, asked=asked, merges=merges, **settings
    )


_BY_SCORE = "goes by scores, and the head falls behind the features here"
BESIDE_CONTRAST: dict[str, tuple[Callable[[object], bool], str]] = {
    "blend": (lambda value: value == AUTO, f"blend auto {_BY_SCORE}; such as: blend 0.5"),
    "patience": (lambda value: value is not None, f"patience {_BY_SCORE}; leave it out"),
    "guard": (bool, f"guard {_BY_SCORE}; leave it out"),
    "smoothing": (bool, "smoothing is of labels, which contrast doesn't use; leave it out"),
    "micro": (
        lambda value: value is not None,
        "contrast compares the samples of a whole batch, so none passes in parts; leave micro out",
    ),
}
"""What a stage with ``contrast`` cannot have: which values do not go with it, and why."""


def check_beside_contrast(settings: Mapping[str, Any]) -> None:
    """Refuse settings that do not go with ``contrast``.

    Raises:
        PlanError: the first of them, and what to do.
    """
    for name, (wrong, why) in BESIDE_CONTRAST.items():
        if name in settings and wrong(settings[name]):
            raise PlanError(why)


def _contrasted(settings: Mapping[str, Any], held: bool, adapted: bool) -> dict[str, Any]:
    """The settings of a stage with ``contrast``, whose end no score can judge.

    Raises:
        PlanError: its head trains, or a setting doesn't go with it.
    """
    if adapted:
        raise PlanError(
            "contrast trains weights, and adapted layers keep theirs; such as: train body … contrast 0.1"
        )
    if not held:
        raise PlanError(
            "contrast teaches the head nothing; freeze it, and fit it afterwards: train body … contrast 0.1"
        )
    check_beside_contrast(settings)
    return {**settings, "guard": False}


LOW = 3e-4  # AdamW's highest rate for pretrained layers
WORDS = 3e-4  # the same for pretrained text networks of this width:
WIDTH = 384  # wider ones take less in proportion, as weights of more inputs do under Adam (Yang et al. 2022)
VOCABULARY = 1000  # rows from which on a table of embeddings is one of words
NORMED = 1e-3  # the same where a few BatchNorm layers keep what moves in bounds, and for random weights
DEEP = (
    12  # BatchNorm layers from which on the noise of batch statistics adds up to harm; their statistics stay
)
HANDFUL = 60  # images up to which the last part of a pretrained body learns more than the whole does
KEPT = 5 / 7  # of the body that stays then
GENTLE = 1e-3  # the highest rate of biases that are adapted before the weights themselves train
FASTER = 10  # how many times the rate of the weights themselves that of adapters is (Hu et al. 2022; Schulman 2025)


@dataclass(frozen=True)
class Traits:
    """What rates and norms depend on.

    Attributes:
        norms: how many BatchNorm layers the network has.
        trained: whether it has weights that are worth keeping.
        words: the width of its layers, where it takes texts; else 0.
        biased: indexes of the layers that have biases to adapt.
        depth: how many matrices and kernels there are, where it takes pictures; else 0.
    """

    norms: int
    trained: bool
    words: int = 0
    biased: frozenset[int] = frozenset()
    depth: int = 0

    @classmethod
    def of(cls, model: nn.Module, layers: LayerMap | None = None, *, trained: bool) -> Traits:
        """Of a network; what it has to adapt is looked for in its layers, where they are given."""
        modules = list(model.modules())
        tables = [m for m in modules if isinstance(m, nn.Embedding) and m.num_embeddings >= VOCABULARY]
        norms = [m.normalized_shape[-1] for m in modules if isinstance(m, nn.LayerNorm)]
        words = max([m.embedding_dim for m in tables] + norms) if tables else 0
        count = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)
        body = [] if layers is None else layers.body
        named = set(layers.adaptable(model, body, BIAS)) if layers is not None else set()
        biased = frozenset(i for i in body if layers is not None and named & set(layers[i].parameter_names))
        depth = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in modules)
        pictures = any(isinstance(m, nn.Conv2d) for m in modules) and not words
        return cls(count, trained, words, biased, depth if pictures else 0)

    @property
    def rate(self) -> float:
        """AdamW's highest rate for all layers, under one-cycle."""
        if self.trained and self.words:
            return float(f"{WORDS * min(1.0, WIDTH / self.words):.2g}")
        return NORMED if not self.trained or 0 < self.norms < DEEP else LOW

    @property
    def bn(self) -> str:
        """What ``bn auto`` means: ``frozen`` or ``train``."""
        return "frozen" if self.trained and self.norms >= DEEP else "train"

    @property
    def near(self) -> bool:
        """Whether what a deep pretrained network for pictures knows is near to what most new data ask for.

        Its biases alone then come further than all its weights, unless the data are far from what it was trained on.
        """
        return self.trained and not self.words and self.rate == LOW and self.depth >= DEEP

    def handful(self, images: int) -> bool:
        """Whether so few training images teach the last part of the body more than the whole of it."""
        return self.trained and (bool(self.words) or self.rate == LOW) and images <= HANDFUL


def usual_epochs(images: int, traits: Traits | None = None) -> int:
    """Epochs of all that is unfrozen, for so many training samples; texts come in more classes, of fewer each."""
    if images <= 100:
        return 16
    return 10 if images <= (1000 if traits is not None and traits.words else 400) else 5


def first_part(layers: LayerMap) -> int:
    """How many first layers stay where only the last part of the body trains.

    It is the nearest place at or before ``KEPT`` where the network can be cut, so that the cache serves it.
    """
    kept = round(KEPT * len(layers.body))
    if layers.graph is None:
        return kept
    return max((cut for cut in layers.graph.cuts if cut <= kept), default=0)


def default_stages(
    layers: LayerMap, frozen: Collection[int], images: int, traits: Traits, *, fit: bool
) -> tuple[Stage, ...]:
    """The stages that train where the user says nothing; where layers are adapted, with the states as they are.

    Args:
        layers, frozen, images, traits, fit: see :func:`default_plan`.
    """
    if not layers.adapted:
        return parse_plan(default_plan(layers, frozen, images, traits, fit=fit), layers, ())
    fit = fit and not set(layers.head) & set(frozen)
    head = parse_plan("fit head", layers, frozen) if fit else ()
    line = train_line(state_words(layers, frozen), images, traits, soft=fit, verb="", faster=FASTER)
    words = line.split()
    start = words.index("epochs")
    settings = dict(zip(words[start::2], words[start + 1 :: 2], strict=True))
    return (*head, one_stage(line, layers, frozen, settings))


def state_words(layers: LayerMap, frozen: Collection[int]) -> str:
    """What trains as it stands, as the first words of a line: ``train 3, 7``, ``adapt 0–3 rank 8, train 7``."""
    trains = [i for i in range(len(layers)) if layers.state(i, frozen) == TRAINS]
    words: dict[str, list[int]] = {}
    for index in sorted(layers.adapted):
        words.setdefault(layers.adapters[index].words, []).append(index)
    parts = [f"adapt {spans(indexes)} {kind}" for kind, indexes in words.items()]
    return ", ".join([*parts, *([f"train {spans(trains)}"] if trains or not parts else [])])


def default_plan(layers: LayerMap, frozen: Collection[int], images: int, traits: Traits, *, fit: bool) -> str:
    """The plan in the stage language.

    Args:
        layers: of the network.
        frozen: those that the user has frozen; they stay so.
        images: training samples.
        traits: of the network.
        fit: whether the head is new, and can be fitted.
    """
    free = [i for i in range(len(layers)) if i not in frozen]
    if not (fit and set(layers.head) <= set(free)):
        return train_line(_address(free, len(layers)), images, traits, soft=False)
    last = [i for i in free if i >= first_part(layers)] if traits.handful(images) else free
    last = last if set(last) - set(layers.head) else free
    behind = lines_behind_fit(layers, free, last, images, traits) if set(free) - set(layers.head) else []
    return "\n".join(["fit head", *behind])


def lines_behind_fit(
    layers: LayerMap, free: Sequence[int], last: Sequence[int], images: int, traits: Traits
) -> list[str]:
    """The stages that go on from a head that was fitted.

    Of a network near to the data the biases adapt first (BitFit, Ben Zaken et al. 2022), unless layers are adapted
    otherwise already, and what the weights learn afterwards has to be better by more than luck.

    Args:
        layers: of the network.
        free: those that may change.
        last: those whose weights train.
        images, traits: see :func:`train_line`.
    """
    train = train_line(_address(last, len(layers)), images, traits, soft=True)
    others = any(layers.adapters[i].words != BIAS for i in free if i in layers.adapters)
    if not traits.near or not traits.biased & set(free) or others:
        return [train]
    where = _address(free, len(layers))
    gently = f"adapt {where} {BIAS} epochs {usual_epochs(images, traits)} lr {GENTLE:g} init soft"
    return [gently, f"{train} guard {STRICT}"]


def _address(free: Sequence[int], count: int) -> str:
    if len(free) == count:
        return "all"
    if free and list(free) == list(range(free[0], count)):
        return f"{free[0]}:"
    return ",".join(map(str, free)) or "none"


def train_line(
    where: str, images: int, traits: Traits, *, soft: bool, verb: str = "train ", faster: float = 1.0
) -> str:
    """A stage that trains these layers for as long as so many images ask for.

    Args:
        where: an address.
        images: training samples.
        traits: of the network.
        soft: whether the head begins soft, after it was fitted.
        verb: what is done with them.
        faster: what the usual rate is multiplied by.
    """
    keys = [f"epochs {usual_epochs(images, traits)}", f"lr {faster * traits.rate:g}"]
    if soft and not traits.words:
        keys.append("init soft")
    if traits.trained:
        keys.append("blend auto")
    return f"{verb}{where} {' '.join(keys)}"
