"""On an accelerator the session does what it does on the CPU: the same weights, and every tensor where it belongs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import device_features
import device_jobs
import pytest


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessPoolExecutor]:
    """A process with the stand-in accelerator, which a process keeps for good."""
    folder = str(tmp_path_factory.mktemp("device"))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, device_jobs.begin, (folder,)) as pool:
        yield pool


def test_the_stand_in_refuses_what_an_accelerator_refuses(apart: ProcessPoolExecutor) -> None:
    *mixed, trained, unknown, empty, device = apart.submit(device_jobs.refusals).result()
    assert len(mixed) == 4
    assert all("all tensors have to be on one device" in said for said in (*mixed, trained))
    assert [unknown, empty] == [f"no device {name} here; cpu is always one" for name in ("gpu", "meta")]
    assert device == "sim:0"


@pytest.mark.parametrize("job", device_features.JOBS)
def test_a_job_ends_as_on_the_cpu(apart: ProcessPoolExecutor, job: str) -> None:
    cpu, sim = (apart.submit(device_features.run, job, device).result() for device in ("cpu", "sim:0"))
    assert cpu.keys() == sim.keys()
    assert [name for name, value in cpu.items() if sim[name] != value] == []
