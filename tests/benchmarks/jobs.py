"""One job by one contestant in a process of its own: python -m tests.benchmarks.jobs CONTESTANT JOB SETTINGS.

It prints one line of JSON: seconds of the work alone (imports and building the network are not counted),
and processor seconds with those of loader workers: on a machine that others use as well, the steadier figure.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Settings:
    """What is the same for all.

    Attributes:
        data: folder with ``train`` and ``val``, each with a folder of photos for a class.
        epochs: of a head job.
        batch: photos in a step.
        size: side of a photo in pixels.
        frozen: layers that stay fixed, for the plot; 9 is all but the head of ResNet-18.
        workers: of a loader.
    """

    data: str
    epochs: int = 5
    batch: int = 32
    size: int = 224
    frozen: int = 9
    workers: int = 2


def run(contestant: str, job: str, settings: Settings) -> dict[str, float]:
    """Do the job in this process; seconds and processor seconds."""
    module = importlib.import_module(f"tests.benchmarks.with_{contestant}")
    before = sum(os.times()[:4])
    seconds = getattr(module, job)(settings)
    return {"seconds": seconds, "processor": sum(os.times()[:4]) - before}


def command(contestant: str, job: str, settings: Settings) -> list[str]:
    """The command that runs a job in a process of its own."""
    return [sys.executable, "-m", "tests.benchmarks.jobs", contestant, job, json.dumps(asdict(settings))]


if __name__ == "__main__":
    answer = run(sys.argv[1], sys.argv[2], Settings(**json.loads(sys.argv[3])))
    print(json.dumps(answer))
