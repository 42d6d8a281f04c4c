"""The forward plan of a stage: the shortest way from samples to scores, past all that is frozen and known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tlnb.engine.core.tree import Tree
from tlnb.engine.core.workers import Workers
from tlnb.engine.data.joined import JoinedSamples, joined
from tlnb.engine.data.samples import Portion, Samples, with_targets
from tlnb.engine.features import precision, prefix
from tlnb.engine.features.cache import FeatureCache, Slot
from tlnb.engine.features.key import digests, features_key, outputs_match
from tlnb.engine.features.samples import Features, FeatureSamples, Places, show_bytes
from tlnb.engine.features.spread import WORTH_SENDING, spread_pass
from tlnb.engine.models.loaded import Input
from tlnb.engine.network.forms import alike, is_familiar
from tlnb.engine.network.freeze import draws_by_place
from tlnb.engine.network.graph import CHANGED, Graph
from tlnb.engine.network.layers import LayerMap, hears_all
from tlnb.engine.network.parts import Part
from tlnb.engine.network.replay import Replay, ReplayPart
from tlnb.errors import ModelError


@dataclass
class ForwardPlan:
    """What a stage feeds, and through which part of the network.

    Attributes:
        train: samples to learn from.
        valid: samples to measure on.
        forward: from a batch of those samples to class scores.
        device: where it runs.
        note: what it leaves out, in one line; empty where it is the whole way.
        saved: seconds that this has saved so far, what it cost taken off.
    """

    train: Samples
    valid: Samples
    forward: nn.Module
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    note: str = ""
    saved: Callable[[], float] = lambda: 0.0


PlanMaker = Callable[[Callable[[str], None], Callable[[int, int], None]], ForwardPlan]
"""Makes the forward plan: told what it computes in one line, and how far it has come."""

Log = Callable[[str], None]
OTHERWISE = (
    "the network computes otherwise than when it was loaded, so it ran whole; to cut it again, load it again: "
    "%tl_load $net"
)
FEW = 3  # samples on which a form is tried
WORTH_SAYING = 3.0  # seconds; a shorter pass is over before the line about it has been read


@dataclass(frozen=True)
class CacheRequest:
    """What a stage would like to have.

    Attributes:
        frozen: layers that it leaves fixed.
        coming: the same for each stage after it.
        views: keep so many views of random samples; 0 for none.
    """

    frozen: Collection[int]
    coming: Sequence[Collection[int]] = ()
    views: int = 0


class FeaturePlanner:
    """Makes the forward plan of each stage of one session.

    Args:
        cache: where features are kept.
        dtype_policy: number format of the frozen part, one of ``precision.FORMATS``.

    Attributes:
        workers: run long passes, several pieces at once; None to run them here.
    """

    def __init__(self, cache: FeatureCache, dtype_policy: str = "auto"):
        self.cache, self.dtype_policy = cache, dtype_policy
        self.workers: Workers | None = None

    def shortcut(
        self,
        model: nn.Module,
        layers: LayerMap,
        cache_request: CacheRequest,
        samples: tuple[Samples, Samples],
        device: torch.device,
    ) -> PlanMaker:
        """What makes the forward plan of a stage when it begins; the arguments are those of :meth:`forward_plan`."""

        def make(log: Log, on_progress: prefix.OnProgress) -> ForwardPlan:
            return self.forward_plan(
                model, layers, cache_request, samples, device, log=log, on_progress=on_progress
            )

        return make

    def forward_plan(
        self,
        model: nn.Module,
        layers: LayerMap,
        cache_request: CacheRequest,
        samples: tuple[Samples, Samples],
        device: torch.device,
        *,
        log: Log = lambda text: None,
        on_progress: prefix.OnProgress = lambda done, total: None,
    ) -> ForwardPlan:
        """Where features are wanted that are not known yet, they are computed now.

        Args:
            model: in which ``cache_request.frozen`` has been applied.
            layers: its layers.
            cache_request: what the stage and those after it leave fixed.
            samples: to learn from, and to measure on.
            device: where the model is.
            log: told in one line what is computed.
            on_progress: called as ``on_progress(done, total)`` while it is; what it raises ends the work.
        """
        cut = prefix.cut_for(layers, cache_request.frozen)
        if (
            not cut or layers.graph is None or hears_all(model)
        ):  # the head of another task than the layers are of
            return _whole(model, samples, device)
        outdated = layers.graph.outdated()
        if outdated:
            again = "; to cut it again, load it again: %tl_load $net" if outdated == CHANGED else ""
            return _whole(model, samples, device, note=f"{outdated}, so it ran whole{again}")
        try:
            for _ in range(2):  # what is not trusted is computed anew
                forward_plan, work = self._short(
                    model, layers, cache_request, samples, device, log, on_progress
                )
                if work.trusted(model, forward_plan, samples):
                    return forward_plan
        except ModelError as error:
            return _whole(model, samples, device, note=f"{error}, so it ran whole")
        return _whole(model, samples, device, note=OTHERWISE)

    def measuring(
        self,
        model: nn.Module,
        layers: LayerMap,
        frozen: Collection[int],
        samples: Samples,
        device: torch.device,
        *,
        on_progress: prefix.OnProgress = lambda done, total: None,
    ) -> ForwardPlan:
        """The forward plan by which samples are measured alone: past the frozen layers, whose features are kept.

        Args:
            model, layers, device, on_progress: as for :meth:`forward_plan`.
            frozen: layers that are fixed now.
            samples: to measure on; ``valid`` of the answer.
        """
        return self.forward_plan(
            model, layers, CacheRequest(frozen), (samples, samples), device, on_progress=on_progress
        )

    def _short(
        self, model: nn.Module, layers: LayerMap, cache_request: CacheRequest, samples: tuple[Samples, Samples],
        device: torch.device, log: Log, on_progress: prefix.OnProgress,
    ) -> tuple[ForwardPlan, _FeatureBuilder]:  # fmt: skip
        """The forward plan from the last clean cut on."""
        cuts, cut = (
            prefix.cuts_ahead(layers, cache_request.frozen, cache_request.coming),
            prefix.cut_for(layers, cache_request.frozen),
        )
        assert layers.graph is not None
        tail = layers.graph.tail(cut, frozen=layers.held(cache_request.frozen))
        work = _FeatureBuilder(self, layers.graph, cuts, cut, device, log, on_progress)
        if not isinstance(tail, ReplayPart):
            shape = layers[cut - 1].shape or ()
            work.channels_last = convolves(tail, Input(shape).example(device), model)
        before = self.cache.saved - self.cache.spent
        train, valid = (work.behind_cut(part, cache_request.views) for part in samples)
        forward_plan = ForwardPlan(
            train, valid, tail, device, work.note(train, layers),
            saved=lambda: self.cache.saved - self.cache.spent - before,
        )  # fmt: skip
        return forward_plan, work


class _FeatureBuilder:
    """Finds or computes features for one forward plan."""

    def __init__(
        self, planner: FeaturePlanner, graph: Graph | Replay, cuts: Sequence[int], cut: int, device: torch.device,
        log: Log, on_progress: prefix.OnProgress,
    ):  # fmt: skip
        self.cache, self.dtype_policy, self.graph, self.device = (
            planner.cache,
            planner.dtype_policy,
            graph,
            device,
        )
        self.workers = planner.workers
        self.cuts, self.cut, self.log, self.on_progress = cuts, cut, log, on_progress
        native = precision.native_bfloat16(device)
        self._policy_key = f"{planner.dtype_policy} {native} {device.type}"
        self._digests = digests(graph, [k for k in graph.cuts if 0 < k <= cuts[-1]])
        self._dtype: torch.dtype | None = None
        self._used: set[str] = set()
        self._trials: dict[tuple[int, ...], prefix.Trial] = {}
        self.channels_last = True

    def behind_cut(self, samples: Samples, views: int) -> Samples:
        """The samples as they are at the cut."""
        if samples.random and views:
            return ViewSamples([self._kept(samples.view(k)) for k in range(views)])
        if samples.random:
            trial = prefix.try_out(self.graph, 0, [self.cut], samples, self.device, self.dtype_policy)
            return self._passing(samples, trial.dtype)
        return self._kept(samples)

    def trusted(self, model: nn.Module, forward_plan: ForwardPlan, samples: tuple[Samples, Samples]) -> bool:
        """Whether the forward plan leads where the whole network does; if not, nothing of it is kept any more."""
        for source, kept in zip(samples, (forward_plan.train, forward_plan.valid), strict=True):
            if source.random and not isinstance(kept, ViewSamples):
                continue  # each batch is another one
            first, dtype = (source.view(0) if source.random else source), self._dtype or torch.float32
            if not outputs_match(model, forward_plan.forward, first, kept, dtype, self.device):
                for key in self._used:
                    self.cache.forget(key)
                return False
        return True

    def _passing(self, samples: Samples, dtype: torch.dtype) -> Samples:
        part = prefix.fast_part(self.graph.segment(0, self.cut), dtype)
        return prefix.PassingSamples(samples, part, self.device, channels_last=self.channels_last)

    def _samples_at(
        self, cut: int, features: Features, samples: Samples, *, channels_last: bool = True
    ) -> Samples:
        """The samples as they are at a cut, out of what is kept there."""
        tree = isinstance(self.graph, Replay) and self.graph.recording.takes_tree
        return FeatureSamples(
            features, samples.targets, self.device, channels_last=channels_last,
            source=samples if tree else None, places=self._places(cut, samples), wholes=samples.wholes,
        )  # fmt: skip

    def _places(self, cut: int, samples: Samples) -> Places | None:
        return Places(samples.lengths) if samples.lengths is not None and self.graph.ragged(cut) else None

    def _kept(self, samples: Samples) -> Samples:
        if isinstance(samples, Portion):  # of a set that is computed once as a whole
            return self._portion(samples.source, samples.rows, samples)
        if samples.origin is not None:
            return self._portion(*samples.origin, samples)
        if isinstance(samples, JoinedSamples):
            return joined([self._kept(part) for part in samples.parts])
        if samples.lengths is None and not samples.at_hand and any(map(self.graph.ragged, self.cuts)):
            # How long each sample is shows when it is read: there is no place to keep it at.
            return self._passing(samples, torch.float32)
        fingerprint = samples.fingerprint()
        keys = {k: features_key(part, fingerprint, self._policy_key, k) for k, part in self._digests.items()}
        self._used.update(keys.values())
        if self.cache.find(keys[self.cut]) is None:
            self._compute(samples, keys)
        features = self.cache.find(keys[self.cut])
        if features is not None:
            self._dtype = features.rows.dtype
            return self._samples_at(self.cut, features, samples, channels_last=self.channels_last)
        return self._passing(samples, self._dtype or torch.float32)

    def _portion(self, source: Samples, rows: Tensor, of: Samples) -> Samples:
        """What is kept of a set, for some of its samples under their own targets."""
        found = with_targets(self._kept(source).portion(rows), of.targets)
        found.wholes = of.wholes
        return found

    def _compute(self, samples: Samples, keys: dict[int, str]) -> None:
        """Run the samples, or their features at an earlier cut, up to the last cut that is missing."""
        missing = [k for k in self.cuts if self.cache.find(keys[k]) is None]
        keep = {keys[k] for k in self.cuts}
        start, known = self._nearest(missing[0], keys)
        if known and not self._compute_from(start, known, missing, samples, keys, keep | {known.key}):
            known = None  # both do not fit at once: from the images then
        if known is None:
            self._compute_from(0, None, missing, samples, keys, keep)

    def _compute_from(
        self, start: int, known: Features | None, missing: list[int], samples: Samples, keys: dict[int, str],
        keep: set[str],
    ) -> bool:  # fmt: skip
        """Go on from ``known`` at the cut ``start``, or from the images; False where there is no room."""
        source = self._samples_at(start, known, samples) if known else samples
        trial = self._trial(start, missing, source, known.rows.dtype if known else self._dtype)
        self._dtype = trial.dtype
        before = known.seconds if known else 0.0
        places = [self._places(k, samples) for k in missing]
        counts = [place.total if place else len(samples) for place in places]
        slots = self._slots(counts, len(samples), missing, trial, before, frozenset(keep))
        if slots[missing.index(self.cut)] is None:
            return False
        if trial.seconds[-1] * len(samples) > WORTH_SAYING:
            self.log(self._announcement(start, missing, len(samples)))
        rows = [slot.rows if slot else None for slot in slots]
        try:
            if self.workers is not None and start == 0 and trial.seconds[-1] * len(samples) > WORTH_SENDING:
                shards = self.cache.shards(
                    [keys[k] for k, row in zip(missing, rows, strict=True) if row is not None]
                )
                seconds = spread_pass(
                    self.workers,
                    trial.parts,
                    source,
                    rows,
                    trial.seconds[-1],
                    self.on_progress,
                    places,
                    shards,
                )
            else:
                seconds = prefix.run_pass(trial.parts, source, rows, self.device, self.on_progress, places)
        except BaseException:
            for slot in slots:
                if slot is not None:
                    self.cache.discard(slot)
            raise
        self.cache.spent += seconds[-1]
        for k, slot, took in zip(missing, slots, seconds, strict=True):
            if slot is not None:
                plain = isinstance(self.graph, Replay)
                self.cache.add(keys[k], slot, before + took, channels_last=not plain)
        return True

    def _nearest(self, cut: int, keys: dict[int, str]) -> tuple[int, Features | None]:
        """The last cut before this one whose features are known, and they; the images if there is none."""
        for k in sorted((k for k in keys if k < cut), reverse=True):
            known = self.cache.find(keys[k])
            if known is not None:
                return k, known
        return 0, None

    def _trial(
        self, start: int, cuts: Sequence[int], samples: Samples, dtype: torch.dtype | None
    ) -> prefix.Trial:
        """The parts to run; made once where validation follows training from the same place."""
        place = (start, *cuts)
        if place not in self._trials:
            # What is known already is gone on with in its own format.
            dtype_policy = (
                {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(dtype, self.dtype_policy)
                if dtype
                else self.dtype_policy
            )
            self._trials[place] = prefix.try_out(self.graph, start, cuts, samples, self.device, dtype_policy)
        return self._trials[place]

    def _slots(
        self, counts: Sequence[int], samples: int, cuts: Sequence[int], trial: prefix.Trial, before: float,
        keep: frozenset[str],
    ) -> list[Slot | None]:  # fmt: skip
        """Room at each cut: for this stage first, then for the next ones."""
        slots: dict[int, Slot | None] = {}
        for k in sorted(cuts, key=lambda k: k != self.cut):
            i = cuts.index(k)
            shape, exact = trial.shapes[i], trial.dtypes[i]
            images = len(shape) == 3 and not isinstance(self.graph, Replay)
            packed = (shape[1], shape[2], shape[0]) if images else shape
            dtype = trial.dtype if exact.is_floating_point else exact
            cost = before + trial.seconds[i] * samples
            slots[k] = self.cache.slot((counts[i], *packed), dtype, cost, self.device, keep)
            if slots[self.cut] is None:
                break  # what this stage itself needs has no room
        return [slots.get(k) for k in cuts]

    def _announcement(self, start: int, cuts: Sequence[int], count: int) -> str:
        layers = f"layers {start}–{cuts[-1] - 1}" if cuts[-1] - start > 1 else f"layer {start}"
        return f"running the frozen {layers} once over {count:,} samples"

    def note(self, train: Samples, layers: LayerMap) -> str:
        """In one line how the frozen part takes part in the stage."""
        frozen = layers.describe(range(self.cut))
        parts = _parts_of(train)
        kept = [part.features for part in parts if isinstance(part, FeatureSamples)]
        if len(kept) == len(parts):
            kind = str(kept[0].rows.dtype).removeprefix("torch.")
            size = show_bytes(sum(features.bytes for features in kept))
            return f"{frozen} ran once: features in {kept[0].place}, {size}, {kind}"
        if isinstance(train, ViewSamples):
            return f"{frozen} ran once for each of {len(train.views)} views"
        return f"{frozen} run each epoch, as inference"


def _parts_of(samples: Samples) -> list[Samples]:
    """The sets that samples are taken from."""
    if isinstance(samples, Portion):
        return _parts_of(samples.source)
    return list(samples.parts) if isinstance(samples, JoinedSamples) else [samples]


def _whole(
    model: nn.Module, samples: tuple[Samples, Samples], device: torch.device, note: str = ""
) -> ForwardPlan:
    """The forward plan through the whole network."""
    x = samples[0].batch(torch.arange(min(FEW, len(samples[0])))).to(device)
    if not convolves(model, x, model):
        return ForwardPlan(*samples, model, device, note)
    return ForwardPlan(ChannelsLast(samples[0]), ChannelsLast(samples[1]), model, device, note)


def convolves(part: nn.Module, x: Tensor, model: nn.Module) -> bool:
    """Whether images should enter a part with channels last: convolutions read them faster so.

    Not where elementwise dropout acts on images: it would draw other numbers. Nor where code that nobody here knows
    does not take them, or trains otherwise on them.

    Args:
        part: of the model.
        x: a batch of what enters it.
        model: the whole; its modes are put back.
    """
    if isinstance(x, Tree):
        return False
    modules = part.shared_modules().values() if isinstance(part, Part) else [part]
    convolutions = any(isinstance(m, nn.Conv2d) for module in modules for m in module.modules())
    if x.dim() != 4 or not convolutions:
        return False
    if is_familiar(model):
        return not draws_by_place(part, x, model)

    def channels_last(x: Tensor) -> Any:
        return part(x.contiguous(memory_format=torch.channels_last))

    return alike(model, part, channels_last, x) and not draws_by_place(part, x, model)


class ChannelsLast(Samples):
    """Images with channels last in memory.

    Args:
        source: the images (B, C, H, W).
    """

    def __init__(self, source: Samples):
        self.source, self.targets, self.random = source, source.targets, source.random
        self.at_hand = source.at_hand

    def batch(self, indices: Tensor) -> Tensor:
        """These images."""
        return self.source.batch(indices).contiguous(memory_format=torch.channels_last)

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """These images, batch by batch."""
        return (x.contiguous(memory_format=torch.channels_last) for x in self.source.stream(batches))

    def view(self, *numbers: int) -> Samples:
        """The images as a certain stage and epoch see them."""
        return ChannelsLast(self.source.view(*numbers))

    def fingerprint(self) -> str:
        """Of the source."""
        return self.source.fingerprint()


class ViewSamples(Samples):
    """A few views of random samples, taken in turn.

    Args:
        views: the same samples under different random changes.
    """

    def __init__(self, views: Sequence[Samples]):
        self.views, self.targets = list(views), views[0].targets
        self.at_hand = all(view.at_hand for view in views)
        self._now = self.views[0]

    def view(self, *numbers: int) -> Samples:
        """The view whose turn it is in the epoch that ``numbers`` end with."""
        return self.views[numbers[-1] % len(self.views)] if numbers else self._now

    def batch(self, indices: Tensor) -> Tensor:
        """The first view of these samples."""
        return self._now.batch(indices)

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The first view, batch by batch."""
        return self._now.stream(batches)

    def fingerprint(self) -> str:
        """Of all views."""
        return " ".join(view.fingerprint() for view in self.views)
