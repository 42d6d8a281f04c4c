"""A cluster of Ray that a session is connected to: begun, checked, watched and left.

Nothing is imported from Ray before a cluster is named. Its usage statistics are off, it starts no dashboard, a cluster
that is started here listens on the loopback interface alone, and every connection asks for a token.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tlnb.engine.core.arguments import whole_number
from tlnb.errors import BadArguments, NotReady
from tlnb.version import __version__

LOCAL, OFF, AUTO = "local", "off", "auto"
KNOCK = 5.0  # seconds in which the head of a cluster has to answer
HELLO = 120.0  # seconds in which each node has to start a process that loads torch and tlnb
TRIES = 4  # of starting a cluster
WATCH = 3.0  # seconds between two looks whether the head is still there
GONE = (
    4  # looks in a row without an answer, from which on it is not; Ray itself would end the kernel after 60 s
)
LET_GO = 20.0  # seconds that are waited for a question which Ray has not answered
POLL = 0.2  # seconds of waiting for an answer, after which it is seen whether Ray is still there
LOOPBACK = "127.0.0.1"
GET_RAY = 'a cluster needs Ray: pip install "tlnb[ray]" here and on each of its machines'
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]+):(?P<port>\d{1,5})")

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread that still asks would start a cluster after the end of one
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more; a machine that is taken away is one that dies
    "RAY_worker_niceness": "0",  # of a cluster that is started here: as urgent as the notebook would be itself
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass
class Connection:
    """A cluster, and how much of it is used.

    Attributes:
        address: of its head, ``host:port``.
        count: workers.
        cpus: of each worker.
        gpus: of each worker.
        threads: that each computes with.
        own: whether it was started here, and ends with the connection.
        nodes: how many machines it has.
        lost: why it is gone, in words; empty while it is there.
        board: of a stage that has ended, for the next one, as a process takes seconds to start; None for none.
    """

    address: str
    count: int
    cpus: int
    gpus: float
    threads: int
    own: bool
    nodes: int
    lost: str = ""
    board: Any = field(default=None, repr=False)
    _before: dict[str, str | None] = field(default_factory=dict, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)
    _busy: Any = field(default_factory=threading.RLock, repr=False)

    def __str__(self) -> str:
        each = (
            f"{self.gpus:g} GPU{'s' * (self.gpus != 1)}"
            if self.gpus
            else f"{self.cpus} CPU{'s' * (self.cpus > 1)}"
        )
        where = (
            "on this machine"
            if self.own
            else f"at {self.address}, {self.nodes} machine{'s' * (self.nodes != 1)}"
        )
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        text = f"{self.count} worker{'s' * (self.count > 1)} {where}, each with {each} and {threads}"
        return f"{text}; GONE: {self.lost}" if self.lost else text

    def check(self) -> None:
        """See that it is there.

        Raises:
            NotReady: it is gone.
        """
        if self.lost:
            raise NotReady(
                f"the cluster is gone ({self.lost}); %tl_cluster off, and the same line runs in this notebook"
            )

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Inside, Ray is asked something that takes a moment; nobody ends it meanwhile, which would end the kernel.

        Raises:
            NotReady: it is gone.
        """
        with self._busy:
            self.check()
            yield

    def get(self, ref: Any) -> Any:
        """What a reference of Ray stands for, as soon as it is there.

        Raises:
            NotReady: the cluster is gone.
            RayError: what it stands for was lost, or failed.
        """
        import ray

        while True:
            with self.asking():
                if ray.wait([ref], timeout=POLL)[0]:
                    return ray.get(ref)

    def close(self) -> None:
        """Leave it, and end it where it was started here. A second time does nothing."""
        self._over.set()
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            with _own_sigterm(), self._busy:
                ray.shutdown()
        if ray is not None:
            _let_it_speak(True)
        _restore(self._before)

    def watch(self) -> None:
        """Look now and then whether the head is there, in a thread; where it is not, the connection is let go.

        Ray ends a process, and so the kernel, whose head has not answered for a minute.
        """

        def look() -> None:
            silent = 0
            while not self._over.wait(WATCH):
                silent = 0 if _answers(self.address) else silent + 1
                if silent >= GONE:
                    self.lost = f"its head at {self.address} does not answer"
                    self._over.set()
                    held = self._busy.acquire(timeout=LET_GO)
                    with contextlib.suppress(Exception):
                        sys.modules["ray"].shutdown()
                    if held:
                        self._busy.release()

        threading.Thread(target=look, name="tlnb-cluster", daemon=True).start()


def connect(
    address: str, workers: int | None, gpus_per_worker: float, check: Callable[[], None] = lambda: None
) -> Connection:
    """Connect to a cluster, or start one.

    Args:
        address: ``local`` to start one on this machine, ``auto`` for the one that this machine is a node of, or
            ``host:port`` of the head.
        workers: processes that work at once; None for as many as there are CPUs, or GPUs where they take some.
        gpus_per_worker: of each; 0 for none.
        check: called between the steps; what it raises undoes them.

    Raises:
        BadArguments: no such address, or more workers than there is room for.
        NotReady: Ray is not installed, or in use by somebody else in this process; nothing answers there, it does not
            take this user's token, or a machine lacks tlnb. Nothing has changed then.
    """
    where = _read(address)
    if workers is not None:
        whole_number(workers, "--workers", 1)
    if not 0 <= gpus_per_worker < 1e6:
        raise BadArguments(f"--gpus-per-worker takes a number from 0 up, not {gpus_per_worker:g}")
    if not _installed():
        raise NotReady(GET_RAY)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if where == LOCAL and workers is not None and workers > cpus:
        raise BadArguments(f"--workers {workers} is more than this machine has CPUs ({cpus})")
    if where not in (LOCAL, AUTO) and not _answers(where):
        raise NotReady(f"nothing answers at {where}; on its head, this starts one: ray start --head")
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        raise NotReady("Ray is connected in this kernel already, and not by tlnb; ray.shutdown() first")
    before = _set(where == LOCAL or _only_here(where))
    found: Connection | None = None
    try:
        found = _begun(where, cpus, before)
        check()
        _share_out(found, workers, gpus_per_worker)
        _greet(found, check)
        found.watch()
        return found
    except BaseException:
        if found is not None:
            found.close()
        _restore(before)
        raise


def _installed() -> bool:
    """Whether Ray is there with what its training needs; it is not imported yet, as it reads its settings then."""
    return all(importlib.util.find_spec(name) is not None for name in ("ray", "pyarrow"))


def _read(address: object) -> str:
    """The address as it is used.

    Raises:
        BadArguments: it is none.
    """
    if isinstance(address, str) and address in (LOCAL, AUTO):
        return address
    match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if match is None or not 0 < int(match["port"]) < 65536:
        raise BadArguments(
            f"{address!r} is no address of a cluster: local, auto, or HOST:PORT of its head, such as 10.0.0.1:6379"
        )
    return match.group()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), KNOCK):
            return True
    except OSError:
        return False


def _only_here(address: str) -> bool:
    """Whether a cluster listens on the loopback interface alone; Ray would look for it elsewhere."""
    host, _, port = address.rpartition(":")
    if not (host == "localhost" or host.startswith("127.")):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("10.255.255.255", 1))  # nothing is sent; it says by which address one would go out
        return not _answers(f"{probe.getsockname()[0]}:{port}")
    return True


_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # an odd name for: no other machine takes part


def _set(local: bool) -> dict[str, str | None]:
    """Give Ray the settings that tlnb needs; what the environment was before.

    Args:
        local: whether everything stays on this machine.
    """
    before = {name: os.environ.get(name) for name in (*_SETTINGS, _LOOPBACK_ONLY)}
    os.environ.update(_SETTINGS)
    if local:
        os.environ[_LOOPBACK_ONLY] = "0"
        _token()
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined,unused-ignore]

    # Read from the environment once, when Ray is imported; a kernel may go from its own cluster to another one.
    ray_constants.ENABLE_RAY_CLUSTER = not local
    Config.initialize("")  # likewise
    return before


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def train_settings() -> dict[str, str]:
    """The settings for Ray Train, for a process that another machine's environment may have started."""
    return {name: value for name, value in _SETTINGS.items() if name.startswith("RAY_TRAIN_")}


@contextmanager
def own_settings(*, local: bool) -> Iterator[None]:
    """Inside, Ray has the settings that tlnb gives it, for a cluster that is started by hand.

    Args:
        local: whether everything stays on this machine.
    """
    before = _set(local)
    try:
        yield
    finally:
        _restore(before)


def _begun(where: str, cpus: int, before: dict[str, str | None]) -> Connection:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if where == LOCAL:
        options |= {"num_cpus": cpus, "include_dashboard": False, "_node_ip_address": LOOPBACK}
    context = _initialised(where, options)
    _let_it_speak(False)
    found = str(context.address_info["gcs_address"])
    return Connection(found, 0, 1, 0.0, 1, where == LOCAL, 0, _before=before)


def _initialised(where: str, options: dict[str, Any]) -> Any:
    """Connect, or start a cluster; a machine that is busy may need longer than Ray gives it, so that is tried again.

    Raises:
        NotReady: why there is no connection.
    """
    import ray

    for left in reversed(range(TRIES if where == LOCAL else 1)):
        with _own_sigterm(), _own_breakpoint(), _quiet(), quick_start():
            try:
                return ray.init(address=where, **options)
            except Exception as error:  # by whatever class: the sentence says what to do
                ray.shutdown()
                first = next(iter(str(error).splitlines()), type(error).__name__)
                if not (left and "timed out" in first):
                    hint = _HINTS.get(where, _HINT)
                    raise NotReady(f"no connection to the cluster {where}: {first[:160]}{hint}") from None
    raise AssertionError("the last try returns or raises")


def _let_it_speak(whether: bool) -> None:
    """Let Ray print what dies where; it prints pages of a process's inside, whatever level of its log is asked for."""
    sys.modules["ray._private.worker"]._worker_logs_enabled = whether  # type: ignore[attr-defined]


_HINTS = {LOCAL: "", AUTO: "; no cluster runs on this machine; %tl_cluster local starts one"}
_HINT = (
    "; this machine must be a node of it (ray start --address), with the same Python and Ray, and its token in "
    "~/.ray/auth_token"
)


def _token() -> None:
    """Make the token that Ray asks for, readable by this user alone; Ray itself would let everybody read it."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        with contextlib.suppress(OSError):
            path.chmod(0o600)
        return
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))


def _share_out(found: Connection, workers: int | None, gpus: float) -> None:
    """How many workers there are, and what each of them has.

    Raises:
        BadArguments: there is no room for so many.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # A machine without CPUs, such as one with the notebook alone, takes no work.
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
    cpus, have = int(sum(node["CPU"] for node in nodes)), sum(node.get("GPU", 0) for node in nodes)
    most = int(sum(node.get("GPU", 0) // gpus for node in nodes)) if gpus else cpus
    if not most or (workers or 0) > most:
        what = f"{have:g} GPUs, {gpus:g} for each" if gpus else f"{cpus} CPUs"
        raise BadArguments(f"the cluster has {what}: room for {most} workers, not {workers or 1}")
    count = workers or most
    each = max(cpus // count, 1)
    while each > 1 and sum(_room(node, each, gpus) for node in nodes) < count:
        each -= 1
    found.count, found.cpus, found.gpus, found.nodes = count, each, gpus, len(nodes)
    found.threads = min(torch.get_num_threads(), each)


def _room(node: dict[str, float], cpus: int, gpus: float) -> int:
    return int(min(node["CPU"] // cpus, node.get("GPU", 0) // gpus if gpus else node["CPU"]))


def _greet(found: Connection, check: Callable[[], None]) -> None:
    """See that each machine can load what the work needs, in the versions of here.

    Raises:
        NotReady: one cannot.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    hello = ray.remote(_hello)
    asked = {
        hello.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            max_retries=1,
            num_cpus=1,
        ).remote(): str(node["NodeManagerAddress"])
        for node in nodes
    }
    here, end = _versions(), time.monotonic() + HELLO
    while asked:
        check()
        ready, _ = ray.wait(list(asked), timeout=0.2)
        if not ready and time.monotonic() > end:
            raise NotReady(f"the machine {next(iter(asked.values()))} did not answer for {HELLO:.0f} s")
        for ref in ready:
            name = asked.pop(ref)
            try:
                there = ray.get(ref)
            except _lost():
                raise NotReady(
                    f"the machine {name} was lost just now; the same line goes without it"
                ) from None
            except Exception:  # the function cannot even be unpickled where tlnb is missing
                raise NotReady(f'tlnb is not there on the machine {name}: pip install "tlnb[ray]"') from None
            if there != here:
                other = [
                    f"{what} {there[what]} (here {here[what]})" for what in here if there[what] != here[what]
                ]
                raise NotReady(f"the machine {name} has other versions: {', '.join(other)}")


def _lost() -> tuple[type[Exception], ...]:
    from ray import exceptions as of

    return of.WorkerCrashedError, of.NodeDiedError, of.LocalRayletDiedError, of.TaskUnschedulableError


def _hello() -> dict[str, str]:
    return _versions()


def _versions() -> dict[str, str]:
    return {"tlnb": __version__, "torch": str(torch.__version__)}


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray sets, as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_breakpoint() -> Iterator[None]:
    """Keep what ``breakpoint()`` does, which Ray sets to a debugger of its own, as it was."""
    before = {"PYTHONBREAKPOINT": os.environ.get("PYTHONBREAKPOINT")}
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def quick_start() -> Iterator[None]:
    """Let processes of Ray that are started inside leave out what they do not need, see ``cluster/quick``."""
    with first_on_the_path(Path(__file__).with_name("quick")):
        yield


@contextmanager
def first_on_the_path(folder: Path) -> Iterator[None]:
    """Let processes of Python that are started inside look for modules in this folder first."""
    before, here = os.environ.get("PYTHONPATH"), str(folder)
    os.environ["PYTHONPATH"] = here if before is None else os.pathsep.join([here, before])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's own logger from writing into the notebook."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
