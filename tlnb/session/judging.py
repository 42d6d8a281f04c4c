"""What answers are judged by, learned once for the network and the data of the moment."""

from __future__ import annotations

from tlnb.engine.checkpoint.network import tensors_of
from tlnb.engine.core.arguments import number_between
from tlnb.engine.core.fingerprint import tensors_digest
from tlnb.engine.core.objectives import kind_of
from tlnb.engine.results.conformal import needed, too_few
from tlnb.engine.results.cross_validation import CrossValidation
from tlnb.engine.results.sure import SEVERAL, Sure, learn
from tlnb.engine.results.temperature import Temperature, fit_to_answers
from tlnb.errors import DataError
from tlnb.session.advising import The
from tlnb.session.change import Change
from tlnb.session.state import SessionState
from tlnb.session.tools import Tools
from tlnb.session.validating import trained_on_it


def check(state: SessionState, sure: float, false_alarms: float) -> None:
    """See that answers can be judged, before anything runs.

    Raises:
        NotReady: no model or no data.
        BadArguments: an impossible share.
        DataError: there are too few validation samples, or a sample has several labels.
    """
    number_between(sure, "sure", 0, 1)
    number_between(false_alarms, "false_alarms", 0, 1)
    state.need_ready()
    valid = state.need_samples()[1]
    if kind_of(state.need_data().task) == "labels":
        raise DataError(SEVERAL)
    if len(valid) < needed(sure):
        raise DataError(too_few(sure, len(valid)))


def known(change: Change, tools: Tools) -> Sure:
    """What answers are judged by; it is learned anew where the weights or the data are others by now.

    Raises:
        NotReady: no model or no data.
        DataError: there are no validation samples, or the network's scores are not finite.
    """
    state = change.state
    state.need_ready()
    key = _key(state)
    if state.sure is not None and state.sure[0] == key:
        return state.sure[1]
    loaded, task = state.need_model(), state.need_data().task
    found = learn(
        loaded.model, loaded.head, task, state.need_samples(), tools.device, tools.interrupts.check,
        out_of_fold(state),
    )  # fmt: skip
    change.set(sure=(key, found))
    return found


def _key(state: SessionState) -> tuple[object, ...]:
    """What it holds for: these weights, by content, these samples, and these folds."""
    loaded = state.need_model()
    digest = tensors_digest(sorted(tensors_of(loaded.model).items()))
    return The(loaded.model), loaded.head, The(state.samples), The(_folds(state)), digest


def out_of_fold(state: SessionState) -> Temperature | None:
    """The temperature that fits the answers out of fold; None where there are none of such a network.

    They count where all folds have ended, on this data, with the plan that the network was trained by.
    """
    found = _folds(state)
    if found is None:
        return None
    there = found.answered
    words = f"{int(there.sum()):,} answers out of fold"
    return fit_to_answers(found.answers[there], found.targets[there], words)


def _folds(state: SessionState) -> CrossValidation | None:
    found = state.folds
    if found is None or found.kind == "values" or len(found.done) < len(found.folds):
        return None
    of_this = isinstance(found.key, tuple) and found.key[0] == The(state.data)
    plan = "\n".join(result.stage.text for result in trained_on_it(state))
    return found if of_this and found.plan == plan else None
