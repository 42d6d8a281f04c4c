"""Processes of Python for tests without the seconds that importing torch takes: forks of one that has imported it.

A test process has one such server. It computes nothing, so a fork of it is as good as a new interpreter: it gets the
arguments, the environment, the folder and the files that are open for it from the request, and its own session. Two
lines of forks stand ready: in one torch and torchvision are imported and tlnb is not, in the other tlnb and what it
imports for a usual job too. What must be seen of an interpreter that starts (which modules it imports, a variable that
Python reads at its start) stays with :mod:`subprocess`.

As a script this file is the server, and a kernel: Jupyter starts the second, which asks for a fork and lives as long.
It imports nothing but the standard library until the server does.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = "TLNB_TEST_FORKS"
"""The variable that names the folder of the server's sockets, for kernels that this process starts."""
NUMBER = struct.Struct("!i")
_servers: list[subprocess.Popen[bytes]] = []  # kept, as their input ends with them

# ---------------------------------------------------------------- asking for a fork


def run(
    command: Sequence[str],
    *,
    tlnb: bool = True,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run(command, capture_output=True, text=True)`` gives, from a fork.

    Args:
        command: of Python: its executable, then ``-c CODE``, ``-m MODULE`` or a script, and the arguments; options
            before that are left out.
        tlnb: whether tlnb stands imported; else it can be imported, and was not yet.
        cwd: the folder it starts in.
        env: its whole environment; this process's by default.
        timeout: seconds; a process that takes longer is killed.
    """
    start()
    with (
        tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as none,
        _asked(command[1:], tlnb, cwd or os.getcwd(), env or os.environ,
               [file.fileno() for file in (none, out, err)]) as line,
    ):  # fmt: skip
        line.settimeout(timeout)
        try:
            status = NUMBER.unpack(_read(line, NUMBER.size))[0]
        except TimeoutError:
            raise subprocess.TimeoutExpired(list(command), timeout) from None
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(
            list(command), status, out.read().decode(errors="replace"), err.read().decode(errors="replace")
        )


def start() -> None:
    """Start a server, where neither this process nor the one that started it has one; it ends with this process."""
    if _there():
        return
    folder = tempfile.mkdtemp(prefix="tlnb-forks-")
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    server = subprocess.Popen(
        [sys.executable, __file__, "server", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=environment, start_new_session=True,
    )  # fmt: skip
    assert server.stdout is not None
    server.stdout.readline()  # the sockets are there; who connects waits until the rest is
    _servers.append(server)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[SERVER] = folder


def _there() -> bool:
    return SERVER in os.environ and os.path.exists(os.path.join(os.environ[SERVER], "tlnb"))


def _asked(
    arguments: Sequence[str], tlnb: bool, cwd: str | Path, env: Mapping[str, str], files: Sequence[int]
) -> socket.socket:
    """A line to the server, which tells the exit status of the process that it was asked for."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.path.join(os.environ[SERVER], "tlnb" if tlnb else "torch"))
    request = json.dumps({"arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}).encode()
    socket.send_fds(line, [NUMBER.pack(len(request))], files)
    line.sendall(request)
    return line


def _read(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = line.recv(size - len(found))
        if not more:
            raise EOFError("the server of forks has gone")
        found += more
    return found


# ---------------------------------------------------------------- a kernel


def kernel_folder(place: Path) -> None:
    """Write a kernel ``python3`` into a folder of data for Jupyter that is a fork."""
    folder = place / "kernels" / "python3"
    folder.mkdir(parents=True)
    about = {
        "argv": [sys.executable, "-S", "-E", __file__, "kernel", "-f", "{connection_file}"],
        "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(about))


def _kernel(arguments: Sequence[str]) -> None:
    """Ask for a kernel, hand it the signals that come, and end as it ends; when this is killed, it is killed."""
    module = ["-m", "ipykernel_launcher", *arguments]
    if not _there():
        os.execv(sys.executable, [sys.executable, *module])
    line = _asked(module, True, os.getcwd(), os.environ, [0, 1, 2])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: line.sendall(NUMBER.pack(number)))
    status = NUMBER.unpack(_read(line, NUMBER.size))[0]
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


# ---------------------------------------------------------------- the server


def _serve(folder: str) -> dict[str, Any]:
    """Fork for each request; in a fork, return what it was asked to be."""
    import gc

    listeners = {}
    for name in ("torch", "tlnb"):
        listeners[name] = socket.socket(socket.AF_UNIX)
        listeners[name].bind(os.path.join(folder, name))
        listeners[name].listen(64)
    os.write(1, b"ready\n")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    import numpy  # noqa: F401
    import torchvision.transforms.v2  # noqa: F401

    name = "tlnb" if os.fork() == 0 else "torch"
    if name == "tlnb":
        import sklearn.datasets  # noqa: F401

        import tlnb.magics
        import tlnb.session
        import tlnb.widgets  # noqa: F401
    else:
        sys.meta_path.insert(0, _Blocked())
    gc.collect()
    gc.freeze()
    return _loop(listeners[name])


class _Blocked:
    """Finds nothing, and tlnb not at all."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == "tlnb":
            raise ImportError("tlnb is not there")


def _loop(listener: socket.socket) -> dict[str, Any]:
    lines: dict[socket.socket, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        ready = select.select([0, woken, listener, *lines], [], [])[0]
        if 0 in ready:  # the test process has ended
            for pid in lines.values():
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        if woken in ready:
            os.read(woken, 4096)
        for line in [line for line in ready if line in lines]:
            told = line.recv(NUMBER.size)
            os.kill(lines[line], NUMBER.unpack(told)[0] if len(told) == NUMBER.size else signal.SIGKILL)
            if not told:
                ended = lines.pop(line)
                os.waitpid(ended, 0)
                line.close()
        for line, pid in list(lines.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del lines[line]
                with contextlib.suppress(OSError):  # who asked may have gone
                    line.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
                line.close()
        if listener in ready:
            line, _ = listener.accept()
            size, files, _, _ = socket.recv_fds(line, NUMBER.size, 3)
            request = json.loads(_read(line, NUMBER.unpack(size)[0]))
            pid = os.fork()
            if pid == 0:
                for other in (listener, line, *lines):
                    other.close()
                os.close(woken)
                signal.set_wakeup_fd(-1)
                os.close(wake)
                return request | {"files": files}
            lines[line] = pid
            for file in files:
                os.close(file)


def _become(request: dict[str, Any]) -> None:
    """Turn this fork into the process that was asked for, and run it."""
    import runpy
    import types
    import warnings

    import numpy as np

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for at, file in enumerate(request["files"]):
        os.dup2(file, at)
        os.close(file)
    ours = set(os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ.clear()
    os.environ.update(request["env"])
    if "JPY_PARENT_PID" in os.environ:  # a kernel ends with its parent, which is the server
        os.environ["JPY_PARENT_PID"] = str(os.getppid())
    os.chdir(request["cwd"])
    np.random.seed()
    arguments = request["arguments"]
    while arguments and arguments[0] not in ("-c", "-m") and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "-W":
            warnings.simplefilter(arguments.pop(0))  # type: ignore[arg-type]
    theirs = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = theirs + [place for place in sys.path[1:] if place not in ours and place not in theirs]
    if arguments[0] == "-c":
        sys.argv[:] = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(arguments[1], "<string>", "exec"), module.__dict__)
    elif arguments[0] == "-m":
        sys.argv[:] = [arguments[1], *arguments[2:]]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "kernel":
        _kernel(sys.argv[2:])
    else:
        _become(_serve(sys.argv[2]))
