"""Write the checkpoint that later versions must still read: ``python -m tests.faults.make_fixture``.

Run once for each format; what it wrote is committed and never written again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from networks import blobs, small

from tlnb.engine.checkpoint.file import FORMAT
from tlnb.session import Session

FOLDER = Path(__file__).with_name("formats")
PLAN = "freeze body epochs 1 lr 0.02\nunfreeze all epochs 3 lr 0.02 keep ewc:20\nunfreeze 2: epochs 1 lr 0.01"


class StopAt:
    """Presses stop after so many batches."""

    def __init__(self, batch: int):
        self.left, self.session = batch, Session([])

    def on_batch(self, step: int, steps: int) -> None:
        """Count a batch."""
        self.left -= 1
        if self.left == 0 and self.session.stop_request is not None:
            self.session.stop_request.ask()


def session(stop_at: int = -1) -> Session:
    """A network that knows two classes, with data of three."""
    listener = StopAt(stop_at)
    listener.session = made = Session([listener])
    made.load(small(2, seed=4), input="1,8,8")
    made.data((blobs(90).inputs, blobs(90).targets), batch=16)
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    stopped = session(12)
    stopped.run(PLAN)
    stopped.save(str(FOLDER / f"format_{FORMAT}.safetensors"))
