"""A small network with norms in a session, and stages that are stopped, saved and gone on with."""

from __future__ import annotations

from pathlib import Path

import torch
from networks import blobs
from torch import nn

from tlnb.session import Session


def normed_session(listeners: tuple[object, ...] = ()) -> Session:
    """A session with two convolutions that have norms, and sixty samples."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip
    session = Session(list(listeners))
    session.load(model)
    source = blobs(60)
    session.data((source.inputs, source.targets), batch=16)
    return session


def stop_and_save(session: Session, plan: str, batches: int, place: Path) -> None:
    """Run a plan, stop it after so many batches, and save the session."""
    seen: list[int] = []

    class Stop:
        def on_batch(self, step: int, steps: int) -> None:
            seen.append(step)
            if len(seen) == batches:
                session.stop_request.ask()

    session.listeners = [Stop()]
    assert session.run(plan).stopped
    session.save(str(place))


def goes_on_bit_equal(line: str, folder: Path) -> bool:
    """Whether a stage of ``normed_session`` that is stopped in its second epoch ends as one that is not."""
    whole = normed_session()
    whole.run(line)
    stop_and_save(normed_session(), line, 7, folder / "left")
    late = normed_session()
    late.resume(str(folder / "left.safetensors"))
    late.data((blobs(60).inputs, blobs(60).targets), batch=16)
    late.go_on()
    ours, theirs = late.model.state_dict(), whole.model.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)
