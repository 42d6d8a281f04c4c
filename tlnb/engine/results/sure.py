"""What answers are judged by: learned once of a network and its data, then used on new samples and in exports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlnb.engine.core.objectives import Objective, Regression, kind_of, scores_of
from tlnb.engine.core.tree import Batch, call
from tlnb.engine.data.augmented import augmented
from tlnb.engine.data.samples import Samples, choose
from tlnb.engine.data.wholes import mean_of_wholes, of_wholes
from tlnb.engine.network.trace import quiet
from tlnb.engine.results.conformal import Conformal
from tlnb.engine.results.judging import watched
from tlnb.engine.results.novelty import FALSE_ALARMS, MOST, Novelty, fit_novelty
from tlnb.engine.results.temperature import Temperature, fit_temperature
from tlnb.errors import DataError

NONE = "none of these"
BATCH = 64
SHARES = (0.5, 0.8, 0.9, 0.95, 0.99)  # of which exports say the bound


@dataclass(frozen=True)
class Judged:
    """What can be relied on of some answers.

    Attributes:
        sure: share of the answers that should hold.
        false_alarms: share of samples of the classes that may be taken for none of them.
        probabilities: at the temperature, float32 (N, classes); None for values.
        member: which classes each sample may be of, bool (N, classes); None for values.
        none: which samples are like nothing that was learned, bool (N,); None where that is not known.
        strangeness: how unlike all that was learned each sample is, float32 (N,); None where that is not known.
        intervals: from and to of each value, in its unit, float32 (N, values, 2); None for classes.
        note: what is missing, and why; empty where nothing is.
    """

    sure: float
    false_alarms: float
    probabilities: np.ndarray | None = field(default=None, repr=False)
    member: np.ndarray | None = field(default=None, repr=False)
    none: np.ndarray | None = field(default=None, repr=False)
    strangeness: np.ndarray | None = field(default=None, repr=False)
    intervals: np.ndarray | None = field(default=None, repr=False)
    note: str = ""


@dataclass(frozen=True)
class Sure:
    """What the answers of a network are judged by.

    Attributes:
        kind: ``classes``, ``labels`` or ``values``.
        samples: of the validation part, that all of it is from.
        temperature: None for values.
        conformal: bounds of sets or of errors; None for labels.
        novelty: what tells ``none of these``; None where that is not known.
        reads: name of the module whose input the features are; empty where the scores are.
        note: why there is no ``none of these``; empty where there is.
    """

    kind: str
    samples: int
    temperature: Temperature | None = None
    conformal: Conformal | None = None
    novelty: Novelty | None = None
    reads: str = ""
    note: str = ""

    def tensors(self) -> dict[str, Tensor]:
        """What bounds and ``none of these`` go by, by name; nothing for labels."""
        found = {} if self.conformal is None else {"margins": self.conformal.margins}
        return found | ({} if self.novelty is None else self.novelty.tensors())

    def told(self) -> dict[str, Any]:
        """The figures in short, as plain values, for those who read a file without its loader.

        Bounds are of the log odds of a class, log p - log (1 - p), or of the standardised error with the sign turned;
        a class is in the set where it is not below.
        """
        found: dict[str, Any] = {"samples": self.samples}
        if self.temperature is not None:
            found["temperature"] = self.temperature.value
        if self.conformal is not None:
            found["bounds"] = {
                f"{share:g}": self.conformal.bound(share)
                for share in SHARES
                if share <= self.conformal.surest
            }
        if self.novelty is not None:
            threshold = self.novelty.threshold()
            found["none_of_these"] = {
                "reads": self.reads or "the scores", "false_alarms": FALSE_ALARMS,
                "threshold": threshold if math.isfinite(threshold) else None,
            }  # fmt: skip
        return found

    def judge(
        self,
        task: Objective,
        features: Tensor,
        scores: Tensor,
        sure: float,
        false_alarms: float = FALSE_ALARMS,
    ) -> Judged:
        """Judge answers.

        Args:
            task: what the scores mean.
            features: what enters ``reads``, (N, D).
            scores: of the network, (N, outputs).
            sure: share of the answers that should hold.
            false_alarms: share of samples of the classes that may be taken for none of them.

        Raises:
            DataError: there are too few validation samples, or a sample has several labels.
        """
        conformal = self.need(sure)
        if isinstance(task, Regression):
            width = conformal.half_width(sure) * torch.tensor(task.std)
            answers = task.answers(scores)
            spans = torch.stack([answers - width, answers + width], 2)
            return Judged(sure, false_alarms, intervals=spans.float().numpy())
        assert self.temperature is not None
        chances, sets = self.temperature.probabilities(scores), conformal.sets(scores, sure)
        found = Judged(sure, false_alarms, chances.numpy(), sets.numpy(), note=self.note)
        if self.novelty is None:
            return found
        count, note = len(self.novelty.ordinary), ""
        if self.novelty.threshold(false_alarms) == float("inf"):
            note = (
                f"nothing is answered {NONE}: {count:,} validation samples are too few for "
                f"{100 * false_alarms:g} % false alarms"
            )
        none = self.novelty.none_of_these(features, scores, false_alarms)
        strange = self.novelty.strangeness(features, scores)
        return Judged(
            sure, false_alarms, chances.numpy(), sets.numpy(), none.numpy(), strange.numpy(), note=note
        )

    def need(self, sure: float) -> Conformal:
        """What a share of answers holds by.

        Raises:
            DataError: there are too few validation samples, or a sample has several labels.
        """
        if self.conformal is None:
            raise DataError(SEVERAL)
        self.conformal.check(sure)
        return self.conformal


SEVERAL = (
    "sure answers are for data of one class a sample, or of values; here a sample may have several labels"
)


def learn(
    model: nn.Module, head: str, task: Objective, samples: tuple[Samples, Samples], device: torch.device,
    check: Callable[[], None] = lambda: None, temperature: Temperature | None = None,
) -> Sure:  # fmt: skip
    """Learn what the answers of a network are to be judged by.

    Args:
        model: gives scores (B, outputs); is as before when it ends.
        head: name of its head; empty where it has none.
        task: what the scores mean.
        samples: training and validation samples; of the training samples some are enough.
        device: where the model is.
        check: called before each batch; what it raises ends the work.
        temperature: that fits answers out of fold; None to fit the validation samples.

    Raises:
        DataError: there are no validation samples, or the network's scores are not finite.
    """
    train, valid = samples
    kind = kind_of(task)
    reads = _reads(model, head) if kind == "classes" else ""
    try:
        features, scores = features_of(model, reads, valid, device, check)
    except LookupError:  # its head does not run once for each sample
        reads = ""
        features, scores = features_of(model, reads, valid, device, check)
    targets = valid.targets
    if valid.wholes is not None:
        scores, targets = of_wholes(task, scores, targets, valid.wholes)
        features = mean_of_wholes(features, valid.wholes)
    count = len(targets)
    if kind == "values":
        return Sure(kind, count, conformal=Conformal.of_values(scores, targets))
    temperature = temperature or fit_temperature(scores, targets)
    if kind == "labels":
        return Sure(kind, count, temperature)
    conformal, novelty, note = Conformal.of_classes(scores, targets), None, ""
    try:
        some = choose(as_they_are(train), MOST, seed=0)
        learned, _ = features_of(model, reads, some, device, check)
        novelty = fit_novelty(learned, features, scores, targets=some.targets)
    except DataError as trouble:
        note = f"nothing is answered {NONE}: {trouble}"
    return Sure(kind, count, temperature, conformal, novelty, reads, note)


def as_they_are(samples: Samples) -> Samples:
    """Training samples without random changes, or in one view where there is none without."""
    plain = augmented(samples, "none", 0)
    return plain.view(0) if plain.random else plain


def features_of(
    model: nn.Module, reads: str, samples: Samples, device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What enters a module, (N, D), and scores (N, outputs) of all samples: float32 on the CPU, in test mode.

    Args:
        model: is as before when it ends.
        reads: name of the module; empty for the scores.
        samples: of one view.
        device: where the model is.
        check: called before each batch; what it raises ends the work.

    Raises:
        LookupError: the module does not run once for each sample.
    """
    found = []
    with quiet(model):
        for x in samples.stream(torch.arange(len(samples)).split(BATCH)):
            check()
            found.append(watched(model, reads, partial(_scores, model, x.to(device))))
    return torch.cat([features for features, _ in found]), torch.cat([scores for _, scores in found])


def _scores(model: nn.Module, x: Batch) -> Tensor:
    return scores_of(call(model, x))


def _reads(model: nn.Module, head: str) -> str:
    """The first layer of the head."""
    if not head:
        return ""
    inside = model.get_submodule(head).named_modules(prefix=head)
    return next((name for name, module in inside if isinstance(module, nn.Linear | nn.Conv2d)), "")
