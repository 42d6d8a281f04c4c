"""What a session tells, as notes to a tracker: stages, rates, curves, digests, scores, mistakes, plan and script."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tlnb.display.figures import as_png
from tlnb.display.progress import Listener
from tlnb.tracking.post import Post


def _quietly(event: Callable[..., None]) -> Callable[..., None]:
    """An event whose notes cannot be written down costs that event alone, and what went wrong is said once."""

    @functools.wraps(event)
    def told(self: Tracking, *what: Any) -> None:
        try:
            event(self, *what)
        except Exception as error:
            self.post.trouble = self.post.trouble or f"{self.post.name}: {type(error).__name__}: {error}"
        self.say_trouble()

    return told


class Tracking(Listener):
    """Writes notes, and gives them to the post; nothing here waits for a tracker.

    A step is an epoch that was told, counted on over stages. What the session keeps (``%tl_history``) and what the
    tracker gets are the same numbers.

    Args:
        post: takes the notes.
        log: tells the user a line.
        script: the session as a plain script, or a line that says why there is none.
        about: settings that hold for all of it, by name.
    """

    def __init__(
        self,
        post: Post,
        log: Callable[[str], None],
        script: Callable[[], str],
        about: Callable[[], dict[str, str]],
    ):
        self.post = post
        self._log, self._script, self._about = log, script, about
        self._said = False
        self._stages = 0
        self._records: list[dict[str, Any]] = []
        self._known: set[str] = set()

    @property
    def step(self) -> int:
        """Epochs that were told."""
        return len(self._records)

    def catch_up(self, stages: Iterable[Any]) -> None:
        """Tell what was trained already."""
        for result in stages:
            if result.curve is not None:
                self.on_curve(result.curve)
            for record in result.records:
                self.on_epoch(record)
            self.on_stage_end(result)

    def say_trouble(self) -> None:
        """Tell the user once that something does not arrive; everything else goes on."""
        if self.post.trouble and not self._said:
            self._said = True
            self._log(f"tracking: {self.post.trouble}; training goes on without it")

    # ---------------------------------------------------------------- what happens

    @_quietly
    def on_curve(self, curve: Any) -> None:
        """The range test of a stage: a picture, and its numbers."""
        self._curve(f"rates-{self._stages + 1}", curve)

    @_quietly
    def on_asked_curve(self, curve: Any) -> None:
        """The same of a range test that was asked for by itself."""
        self._curve("rates", curve)

    def _curve(self, name: str, curve: Any) -> None:
        held = {
            "rates": curve.rates, "losses": curve.losses, "rule": curve.rule, "suggestions": curve.suggestions,
        }  # fmt: skip
        self._text(f"{name}.json", json.dumps(held, indent=1))
        if curve.rates:
            self._picture(name, curve._repr_png_())

    @_quietly
    def on_epoch(self, record: Any) -> None:
        """The figures of an epoch."""
        self._records.append(record.to_dict())
        self._numbers({
            "stage": record.stage, "rate": record.rate, "train_loss": record.train_loss,
            "valid_loss": record.valid_loss, record.metric_name: record.accuracy, "seconds": record.seconds,
        })  # fmt: skip

    @_quietly
    def on_stage_end(self, result: Any) -> None:
        """How the stage was set up, the digests of its frozen layers, and the score that it left."""
        self._stages += 1
        told = {
            "line": result.stage.text, "trains": ", ".join(map(str, result.trained)), "rate": f"{result.rate:.6g}",
            "frozen": result.proof, "digest_before": result.digest_before, "digest_after": result.digest_after,
            "note": result.note, "fitted": result.fitted,
        }  # fmt: skip
        facts = {name: value for name, value in self._about().items() if name not in self._known}
        self._known |= set(facts)
        facts |= {f"stage_{self._stages}.{name}": value for name, value in told.items() if value}
        self.post.put(lambda tracker: tracker.facts(facts))
        if result.final is not None:
            kept = result.final
            self._numbers({
                "kept/valid_loss": kept.valid_loss, f"kept/{kept.metric_name}": kept.accuracy,
                "kept/share": result.share,
            })  # fmt: skip

    @_quietly
    def on_run_end(self, run: Any) -> None:
        """The plan, every epoch in full, and the session as a script."""
        self._text("plan.txt", "\n".join([*(stage.stage.text for stage in run.stages), "", repr(run)]))
        self._text("history.json", json.dumps(self._records, indent=1))
        self._text("train.py", self._script())

    @_quietly
    def on_results(self, results: Any) -> None:
        """Scores on the validation samples, the worst mistakes as pictures, the confusion matrix."""
        self._numbers({"results/loss": results.loss, f"results/{results.metric}": results.figure_value})
        self._text("results.txt", repr(results))
        for what in ("mistakes", "confusion"):
            figure = results.plot(what)
            if figure is not None:
                self._picture(what, as_png(figure, 85))

    @_quietly
    def on_test_part(self, result: Any) -> None:
        """The score on the test part, and which look at it this was."""
        self._numbers({f"test/{result.score.name}": result.value, "test/look": result.look})
        self._text("test.txt", repr(result))

    # ---------------------------------------------------------------- notes

    # Each holds values of its own: what the session changes later must not change what is told.

    def _numbers(self, values: Mapping[str, float]) -> None:
        held, step = {name.replace(" ", "_"): float(value) for name, value in values.items()}, self.step
        self.post.put(lambda tracker: tracker.numbers(held, step))

    def _text(self, name: str, text: str) -> None:
        self.post.put(lambda tracker: tracker.text(name, text))

    def _picture(self, name: str, png: bytes) -> None:
        step = self.step
        self.post.put(lambda tracker: tracker.picture(name, png, step))
