"""How much to transfer: advice from measured figures, and the sweep that tries every depth."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from tlnb.engine.advice.advice import Advice
from tlnb.engine.advice.figures import chance_of, measure
from tlnb.engine.advice.rule import decide, write_plan
from tlnb.engine.advice.sweep import Sweep, SweepPlan
from tlnb.engine.advice.trial import TrialGround
from tlnb.engine.arguments import number_between, whole_number
from tlnb.engine.data.chosen import choose
from tlnb.engine.data.load import usual_batch
from tlnb.engine.data.samples import Samples
from tlnb.engine.training.history import Run
from tlnb.engine.training.stopping import Stopped, StopRequest
from tlnb.errors import BadArguments, ModelError, NotReady
from tlnb.session.train import Training


class Advising(Training):
    """Advise, and try every depth.

    Args:
        listeners: see ``State``.
    """

    def __init__(self, listeners: Iterable[object] = ()):
        super().__init__(listeners)
        self._advice: tuple[object, Advice] | None = None
        self._sweep: Sweep | None = None

    def advise(self, *, images: int = 2000) -> Advice:
        """Measure how much data there is and how similar it is, and say what to do about it.

        One pass of the training images through the network gives every layer's features; they stay in the
        cache and serve the training that follows, where all images take part.

        Args:
            images: how many training images are looked at, at most.

        Raises:
            NotReady: no model or no data yet.
            ModelError: the network has random weights or is all head, so that nothing can be transferred.
        """
        whole_number(images, "--images", 2)
        layers, loaded = self._need_ready(), self._need_model()
        if not loaded.trained:
            raise ModelError(
                f"{loaded.name} has random weights: there is nothing to transfer, so train all of it"
            )
        if not layers.body:
            raise ModelError("the network is all head, so there is nothing to keep or to train but that")
        began, samples, stop = time.perf_counter(), self._training_samples(), StopRequest()
        looked = choose(samples, images, seed=0)
        with self._working("advice", stop), stop.on_interrupt():
            try:
                figures = measure(
                    loaded.model, layers, looked, self._routes, self.device, tick=lambda *_: stop.check()
                )
            except Stopped:
                raise NotReady("stopped before everything was measured") from None
        figures = figures.of_all(samples)
        traits = self._network_traits()
        decision = decide(figures, layers, traits)
        note = "" if looked is samples else f"scores are from {len(looked):,} of {len(samples):,} images"
        advice = Advice(
            figures,
            decision,
            write_plan(decision, len(samples), traits),
            len(layers.body),
            time.perf_counter() - began,
            note,
        )
        self._advice = (self._advice_key(), advice)
        return advice

    def train_advised(self, **settings: Any) -> Run:
        """Run the plan of :meth:`advise`, which is asked first where nothing was asked since the last change.

        Args:
            settings: as for :meth:`run`; the plan brings its own epochs, rates and batches.

        Raises:
            NotReady, PlanError, BadArguments: nothing has run then.
            TrainingError: a frozen layer changed.
        """
        own = [name for name in ("epochs", "lr", "batch", "decay") if name in settings]
        if own:
            raise BadArguments(f"the advised plan brings its own {', '.join(own)}; leave that out")
        if self._advice is None or self._advice[0] != self._advice_key():
            self.advise()
        assert self._advice is not None
        advice = self._advice[1]
        self._emit("on_message", f"advised: {advice.procedure}")
        return self.run(advice.plan, **settings)

    def sweep(
        self,
        *,
        epochs: int = 5,
        seeds: int = 3,
        images: int = 400,
        lr: float = 1e-3,
        blocks: bool = False,
    ) -> Sweep:
        """Accuracy against the number of layers kept, frozen and fine-tuned (Yosinski et al. 2014).

        Everything runs on copies: the session's network stays as it is. An interrupt ends it after the step
        under way; the same call goes on where it stopped.

        Args:
            epochs: of each run.
            seeds: runs of each kind.
            images: at most so many training images, and as many to measure on.
            lr: learning rate of all runs; batches are as small as few images need.
            blocks: keep all weights and train one block alone (surgical fine-tuning, Lee et al. 2023).

        Raises:
            NotReady: no model or no data yet.
            ModelError: the network has random weights.
        """
        for name, value in (("--epochs", epochs), ("--seeds", seeds), ("--images", images)):
            whole_number(value, name, 2 if name == "--images" else 1)
        number_between(lr, "--lr", 0, math.inf)
        loaded, layers, source = self._need_model(), self._need_ready(), self._need_data()
        if not loaded.trained:
            raise ModelError(f"{loaded.name} has random weights: every depth would be the floor")
        if not loaded.head:
            raise ModelError(f"{loaded.name} has no head that a sweep could make new")
        train = self._training_samples()
        assert self._samples is not None
        parts = (choose(train, images, seed=0), choose(self._samples[1], images, seed=0))
        batch = usual_batch(len(parts[0]))
        ground = TrialGround(
            loaded.model,
            loaded.head,
            parts,
            len(source.classes),
            source.task,
            batch,
            self.device,
            self._routes,
            loaded.fixed,
        )
        plan = SweepPlan(len(layers.body), epochs, seeds, lr, blocks)
        key = (self._advice_key(), plan, images)
        if self._sweep is None or self._sweep.key != key:
            chance = chance_of(parts[1].targets)
            self._sweep = Sweep(
                plan, source.task.metric, key, tuple(layers.names), chance=chance, measured=len(parts[1])
            )
        stop = StopRequest()
        with self._working("a sweep", stop), stop.on_interrupt():
            self._sweep.go_on(ground, stop, lambda text: self._emit("on_message", text))
        return self._sweep

    def _training_samples(self) -> Samples:
        if self._samples is None:
            raise NotReady("the data is not fitted to the network yet")
        return self._samples[0]

    def _advice_key(self) -> tuple[object, ...]:
        """What advice holds for: this network, this data, nothing trained since."""
        return _The(self._loaded), _The(self._data), len(self._history), _writes(self._need_model().model)


class _The:
    """This very object, held so that no other can come to stand at its address."""

    def __init__(self, thing: object):
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _The) and self._thing is other._thing

    def __hash__(self) -> int:
        return id(self._thing)


def _writes(model: nn.Module) -> Sequence[int]:
    """Counts of writes to the weights: anything that changes them changes these."""
    return tuple(p._version for p in model.parameters())
