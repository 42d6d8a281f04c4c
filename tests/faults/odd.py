"""Odd arguments and odd files for every command and every call: one line each, and nothing has changed.

``python -m tests.faults.odd --count 5000`` draws so many of them; the tests take the first few of each call.
"""

from __future__ import annotations

import argparse
import inspect
import io
import os
import pickle
import random
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from torch import nn
from traitlets.config import Config

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.calls import facts, pair, plain_net
from tlnb.errors import Interrupted, TlnbError
from tlnb.magics.commands import COMMANDS
from tlnb.session import Session

SECONDS = 60  # that one of them may take
NUMBERS = (
    "0",
    "-1",
    "1",
    "3",
    "1e400",
    "nan",
    "-inf",
    "1" + "0" * 30,
    "9" * 5000,
    "0.5",
    "-0.0",
    "1e-320",
    "0x10",
    "1_0",
    "²",
    "٣",
    "+",
    "1,2,3",
    "1;2",
    "1:0",
    "::0",
    "5:5",
    "-99:",
    ":" * 30,
    "0,,1",
    "True",
    "None",
)
WORDS = (
    "",
    " ",
    "''",
    '""',
    "'",
    '"',
    "'a",
    "$",
    "$nothing",
    "$1",
    "\\$x",
    "--",
    "---",
    "--x",
    "-h",
    "--help",
    "=",
    "a=b",
    "==",
    "{1+1}",
    "{",
    "}",
    "%tl_status",
    "!ls",
    "`ls`",
    "$(ls)",
    ";",
    ";;",
    "#",
    "#x",
    "\\",
    "/",
    "//",
    ".",
    "..",
    "~",
    "~nobody/x",
    "none",
    "all",
    "body",
    "head",
    "auto",
    "off",
    "digits",
    "glyphs",
    "convnet5",
    "torchvision/",
    "torchvision/Nothing",
    "timm/",
    "timm/nothing",
    "hf/",
    "x" * 5000,
    "ä\u0301",
    "\u202e",
    "\x1b[2J",
    "<img src=x>",
    "数字",
    "\ud800",
    "\x00",
    "\x7f",
    "a\tb",
    "mlp:",
    "mlp:0",
    "mlp:1e9",
    "mlp:" + "9" * 40,
    "lwf:",
    "lwf:nan",
    "ewc:-1",
    "l2sp:1e999",
    "l2sp",
    ":",
    "a.*",
    "[",
    "[!",
    "*" * 50,
)
FILES = (
    "missing.pth",
    "folder",
    "empty.pth",
    "empty.csv",
    "empty.png",
    "pipe",
    "binary.csv",
    "binary.pth",
    "cut.png",
    "huge.png",
    "pickle.pth",
    "plain.pth",
    "numbers.pth",
    "nan.pth",
    "lists.pth",
    "half.safetensors",
    "long.safetensors",
    "text.pth",
    "photo.png",
    "photo.png/x",
    "photos",
    "photos/a",
    "one.csv",
    "wide.csv",
    "ragged.csv",
    "names.csv",
    "loop",
    "photo.zip",
    "saved.safetensors",
    "cut.safetensors",
    "/dev/null",
    "/proc/self/mem",
    "/",
    "./photos/../photos",
    "notebook.ipynb",
    "UPPER.PTH",
    "photo.onnx",
    "job.py",
    "net.safetensors",
    "net.onnx",
    "net.pt2",
    "torch.safetensors",
    "no/such/place.safetensors",
    "photos/out.safetensors",
)


class Raises:
    """An object one of whose ways to be looked at raises."""

    def __init__(self, *names: str):
        self.names = names


def _raiser(name: str) -> type:
    def fail(self: object, *_: object, **__: object) -> Any:
        raise ZeroDivisionError(f"{name} of mine\nsecond line")

    return type(f"Raises{name.strip('_').title()}", (), {name: fail})


def objects() -> dict[str, Any]:
    """Values of every kind that a call may be given, by a name."""
    torch.manual_seed(0)
    x, y = torch.randn(12, 1, 8, 8), torch.arange(12) % 3
    failing = (
        "__str__",
        "__repr__",
        "__array__",
        "__len__",
        "__getitem__",
        "__iter__",
        "__bool__",
        "__eq__",
        "__hash__",
        "__index__",
        "__float__",
        "__int__",
        "__fspath__",
        "__getattr__",
        "__call__",
        "__format__",
    )
    made: dict[str, Any] = {name: _raiser(name)() for name in failing}
    both = type("Both", (), {"__getitem__": _raiser("__getitem__").__getitem__, "__len__": lambda self: 9})  # type: ignore[attr-defined]
    texts = {f"word {word[:20]!r}": word for word in (*WORDS[:8], *WORDS[20:], *NUMBERS)}
    return (
        made
        | texts
        | {
            "none": None,
            "true": True,
            "zero": 0,
            "minus": -1,
            "many": 10**30,
            "digits": 10**5000,
            "nan": float("nan"),
            "inf": float("inf"),
            "complex": 1j,
            "bytes": b"abc",
            "bytearray": bytearray(b"x"),
            "lambda": lambda *a, **k: None,
            "class": int,
            "module": os,
            "list": [],
            "dict": {},
            "tuple": (),
            "set": set(),
            "range": range(3),
            "generator": (i for i in range(3)),
            "slice": slice(0, 2),
            "nested": [[[]]],
            "own": _own_list(),
            "ellipsis": ...,
            "type": type,
            "exception": ValueError("x"),
            "iterator": iter([1]),
            "file": io.BytesIO(b"x"),
            "text file": io.StringIO("x"),
            "path": Path("missing"),
            "bytes path": os.fsencode("photos"),
            "items that fail": both(),
            "array": np.zeros(3),
            "0-d": np.array(1),
            "object array": np.array([None, "a"], object),
            "empty array": np.zeros((0, 1, 8, 8)),
            "strings": np.array(["a"]),
            "dates": np.array(["2020-01-01"], "datetime64"),
            "structured": np.zeros(2, [("a", int)]),
            "masked": np.ma.masked_array([1.0, 2.0], [0, 1]),
            "scalar": torch.tensor(1.0),
            "nan tensor": torch.full((12, 1, 8, 8), float("nan")),
            "bool tensor": torch.zeros(3, dtype=torch.bool),
            "complex tensor": torch.zeros(3, dtype=torch.complex64),
            "sparse": torch.eye(3).to_sparse(),
            "meta": torch.zeros(3, device="meta"),
            "stride 0": torch.zeros(1).expand(10**12),
            "X alone": x,
            "X, y": (x, y),
            "X, y of other lengths": (x, y[:5]),
            "y of floats": (x, y.float() / 7),
            "y of nan": (x, torch.full((12,), float("nan"))),
            "y of words": (x, list("abcabcabcabc")),
            "y of one class": (x, y * 0),
            "y of each its own": (x, torch.arange(12)),
            "y of huge": (x, y * 10**15),
            "y 3-d": (x, torch.zeros(12, 2, 2)),
            "X of objects": (np.array([None] * 12), y),
            "three": (x, y, y),
            "pair of pairs": ((x, y), (x, y)),
            "pair of others": ((x, y), (torch.randn(12, 3), y)),
            "lists": ([1, 2], [3]),
            "words": (["a", "b"], [0, 1]),
            "dict of nothing": {"train": None},
            "dict of numbers": {"a": 1},
            "X of inf": (torch.full((12, 1, 8, 8), float("inf")), y),
            "picture": Image.new("L", (8, 8)),
            "picture of 1": Image.new("1", (8, 8)),
            "picture of nothing": Image.new("RGB", (0, 0)),
            "pictures": [Image.new("L", (8, 8))] * 3,
            "net": plain_net(),
            "net without weights": nn.Flatten(),
            "net that fails": _Fails(),
            "net of complex": nn.Linear(2, 2).to(torch.complex64),
            "net of halves": nn.Linear(64, 3).half(),
            "net on meta": nn.Linear(64, 3, device="meta"),
            "lazy net": nn.LazyLinear(3),
            "class of net": nn.Linear,
            "session": Session([]),
            "dataset": torch.utils.data.TensorDataset(x),
            "dataset of one": torch.utils.data.TensorDataset(x[:1], y[:1]),
            "dataset that fails": _BadSet(),
            "loader": torch.utils.data.DataLoader(_BadSet()),
            "iterable": torch.utils.data.ChainDataset([]),
            "optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1),
        }
    )


def _own_list() -> list[Any]:
    own: list[Any] = []
    own.append(own)
    return own


class _Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Any) -> Any:
        raise KeyError("mine\nof two lines")


class _BadSet(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, number: int) -> Any:
        raise OSError("the disk has gone")


def make_files(place: Path) -> None:
    """The files of ``FILES`` that are there, in a folder."""
    (place / "folder").mkdir()
    for name in ("empty.pth", "empty.csv", "empty.png"):
        (place / name).touch()
    os.mkfifo(place / "pipe")
    noise = random.Random(0).randbytes(3000)
    for name in ("binary.csv", "binary.pth", "UPPER.PTH", "photo.onnx"):
        (place / name).write_bytes(noise)
    picture = io.BytesIO()
    Image.effect_noise((32, 32), 90).save(picture, "png")
    (place / "photo.png").write_bytes(picture.getvalue())
    (place / "cut.png").write_bytes(picture.getvalue()[:300])
    (place / "huge.png").write_bytes(
        picture.getvalue()[:16] + struct.pack(">II", 90_000, 90_000) + picture.getvalue()[24:]
    )
    for kind in ("a", "b"):
        (place / "photos" / kind).mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((16, 16), 10 + 60 * (kind == "a") + number).save(
                place / "photos" / kind / f"{number}.png"
            )
    (place / "pickle.pth").write_bytes(pickle.dumps({"w": print}))
    torch.save(plain_net().state_dict(), place / "plain.pth")
    torch.save({"w": 1, "v": [2]}, place / "numbers.pth")
    torch.save({"fc.weight": torch.full((3, 4), float("nan"))}, place / "nan.pth")
    torch.save([torch.zeros(2)], place / "lists.pth")
    (place / "half.safetensors").write_bytes(struct.pack("<Q", 50) + b'{"a":{"dtype":"F32"')
    (place / "long.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    (place / "text.pth").write_text("no weights\n")
    (place / "one.csv").write_text("path\nphotos/a/0.png\n")
    (place / "wide.csv").write_text(",".join("abcdefgh") + "\n" + ",".join("12345678") + "\n")
    (place / "ragged.csv").write_text("path,label\nphotos/a/0.png\n,,\n")
    (place / "names.csv").write_text("path,label\nnothing.png,a\n\x00.png,b\n")
    (place / "loop").symlink_to(place / "loop")
    with zipfile.ZipFile(place / "photo.zip", "w") as file:
        file.writestr("../x.png", b"")
    (place / "notebook.ipynb").write_text("{}")
    (place / "job.py").write_text("print('mine')\n")
    (place / "net.onnx").write_text("mine")


# ---------------------------------------------------------------- what is tried


class Hurry:
    """A listener that asks for a stop as soon as anything takes long."""

    def __init__(self, session: Callable[[], Session]):
        self._session = session

    def _stop(self, *_: object) -> None:
        request = self._session().stop_request
        if request is not None:
            request.ask()

    on_batch = on_test = on_point = on_run = on_epoch = _stop


def prepared() -> Session:
    """A small session on which every call has something to do."""
    tl = Session([])
    tl.load(plain_net(), input="1,8,8")
    tl.data(pair(24), batch=12)
    tl.train(1, 0.01)
    tl.listeners = [Hurry(lambda: tl)]
    return tl


def lines(rng: random.Random) -> Iterator[str]:
    """Lines of magics, each command with odd words by place and for each of its options, then words at random."""
    for command in COMMANDS.values():
        for word in (*WORDS, *NUMBERS, *FILES):
            yield f"%{command.name} {word}"
        for option in command.options:
            for word in (*rng.sample(WORDS, 6), *rng.sample(NUMBERS, 5), *rng.sample(FILES, 4)):
                yield f"%{command.name} --{option.name} {word}"
        for name in OBJECTS:
            yield f"%{command.name} ${name}"


def drawn_lines(rng: random.Random) -> Iterator[str]:
    """Lines without end, of several odd words."""
    commands = list(COMMANDS.values())
    while True:
        command = rng.choice(commands)
        words: list[str] = []
        for _ in range(rng.randint(0, 3)):
            option = (
                f"--{rng.choice(command.options).name} " if command.options and rng.random() < 0.6 else ""
            )
            words.append(
                option + rng.choice(rng.choice((WORDS, NUMBERS, FILES, [f"${name}" for name in OBJECTS])))
            )
        double = "%" if command.cell and rng.random() < 0.2 else ""
        body = "\n" + rng.choice((*WORDS, *NUMBERS)) if double else ""
        yield f"{double}%{command.name} {' '.join(words)}{body}"


OBJECTS = ("o_lambda", "o_tensor", "o_str", "o_len", "o_net", "o_nan", "o_path", "o_none", "o_pair", "o_big")
METHODS = (
    "load",
    "data",
    "show_batch",
    "head",
    "tasks",
    "freeze",
    "unfreeze",
    "find_lr",
    "train",
    "run",
    "go_on",
    "undo",
    "advise",
    "train_advised",
    "adapt",
    "merge",
    "choose",
    "cross_validate",
    "go_on_with_folds",
    "clean",
    "map",
    "cluster",
    "track",
    "sweep",
    "forgetting",
    "blend",
    "save",
    "resume",
    "results",
    "test",
    "predict",
    "compare",
    "script",
    "export",
    "status",
    "panel",
)
SETTINGS = ("step", "device", "frozen", "listeners")


def calls(rng: random.Random) -> Iterator[tuple[str, Callable[[Session], Any]]]:
    """Calls in Python: each method with an odd value for each of its arguments, by name and by place."""
    made = objects()
    for method in METHODS:
        parameters = inspect.signature(getattr(Session, method)).parameters
        names = [name for name, p in parameters.items() if name != "self" and p.kind not in (p.VAR_KEYWORD,)]
        given = [
            name for name, p in parameters.items() if name != "self" and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        needed = {name for name, p in parameters.items() if p.default is p.empty} - {"self"}
        for name in names:
            for label, value in made.items():
                if name in given and needed <= {name}:
                    yield (
                        f"{method}({name}={label})",
                        lambda tl, m=method, n=name, v=value: getattr(tl, m)(**{n: v}),
                    )
                elif needed or given:
                    first = {"data": "digits", "predict": torch.zeros(2, 1, 8, 8)}.get(method)
                    named = {given[0]: first} if first is not None else {}
                    yield (
                        f"{method}({name}={label})",
                        lambda tl, m=method, n=name, v=value, k=named: getattr(tl, m)(**{**k, n: v}),
                    )
        for label, value in rng.sample(list(made.items()), 12):
            yield f"{method}(nothing={label})", lambda tl, m=method, v=value: getattr(tl, m)(nothing=v)
    keys = (
        "epochs",
        "lr",
        "decay",
        "batch",
        "micro",
        "optimizer",
        "schedule",
        "momentum",
        "weight_decay",
        "smoothing",
        "patience",
        "augment",
        "keep",
        "bn",
        "init",
        "blend",
        "guard",
        "precision",
        "views",
    )
    for key in keys:
        for label, value in made.items():
            yield f"train({key}={label})", lambda tl, k=key, v=value: tl.train(**{k: v})
    for name in SETTINGS[:3]:
        for label, value in made.items():
            yield f"{name} = {label}", lambda tl, n=name, v=value: setattr(tl, n, v)


# A wrong number or name of arguments is Python's own to refuse, before tlnb sees anything.
def _is_signature(error: BaseException) -> bool:
    words = (
        "unexpected keyword argument",
        "positional argument",
        "missing a required argument",
        "keyword-only",
    )
    return isinstance(error, TypeError) and any(word in str(error) for word in words)


class Trial:
    """Tries one after the other on a session that is as new.

    Args:
        shell: for magics.
    """

    def __init__(self, shell: InteractiveShell):
        self.shell = shell
        self.counts: Counter[str] = Counter()
        self.raw: list[str] = []
        self._renew()

    def _renew(self) -> None:
        self.session = prepared()
        self.before = facts(self.session, identity=True)
        self.shell.user_ns["tl"] = self.session
        made = objects()
        self.shell.user_ns |= {
            "o_lambda": made["lambda"],
            "o_tensor": made["stride 0"],
            "o_str": made["__str__"],
            "o_len": made["__len__"],
            "o_net": made["net that fails"],
            "o_nan": made["nan"],
            "o_path": made["path"],
            "o_none": None,
            "o_pair": made["X, y"],
            "o_big": 10**30,
        }

    def magic(self, line: str) -> None:
        """One cell of a notebook."""

        def work(tl: Session) -> None:
            outcome = self.shell.run_cell(line, store_history=False)
            error = outcome.error_in_exec or outcome.error_before_exec
            if error is not None:
                raise error

        self.call(line, work)

    def call(self, label: str, work: Callable[[Session], Any]) -> None:
        """One call; what is raw or has changed something is noted."""
        error: BaseException | None = None
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
        here = os.getcwd()
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                work(self.session)
        except BaseException as trouble:
            error = trouble
        finally:
            signal.alarm(0)
            os.chdir(here)
        shown = repr(label[:140])
        if error is None or isinstance(error, Interrupted):
            self.counts["done"] += 1
        elif isinstance(error, TlnbError):
            self.counts["one line"] += 1
            said = str(error)
            if "\n" in said or len(said) > 1500:
                self._note(f"{shown}: a long line: {said[:200]!r}")
        elif _is_signature(error):
            self.counts["refused by Python"] += 1
        else:
            place = [f for f in traceback.extract_tb(error.__traceback__) if "/tlnb/" in f.filename][-2:]
            where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(place))
            self._note(f"{shown}: {type(error).__name__}: {str(error).splitlines()[:1]} at {where}")
        try:
            now = facts(self.session, identity=True)
        except Exception as trouble:
            self._note(f"{shown}: the session is broken: {trouble!r}")
            self._renew()
            return
        if now != self.before:
            if error is not None and not isinstance(error, Interrupted):
                self._note(f"{shown}: has changed something: {_difference(self.before, now)}")
            self._renew()

    def _note(self, line: str) -> None:
        self.counts["faults"] += 1
        self.raw.append(line)
        print(line, file=sys.__stderr__, flush=True)


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    return ", ".join(key for key in one if one[key] != other.get(key))


class TooLong(BaseException):
    """A call took too long."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


def new_shell() -> InteractiveShell:
    """A shell with the magics."""
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    shell.run_cell("%load_ext tlnb")
    return shell


def campaign(count: int, seed: int, say: bool = False, only: str = "") -> Trial:
    """``count`` odd lines and calls: those of each kind in turn, drawn from all."""
    rng = random.Random(seed)
    trial = Trial(new_shell())
    every: list[tuple[str, Callable[[Session], Any] | None]] = [(line, None) for line in lines(rng)]
    every += [(line, None) for line in islice(drawn_lines(rng), len(every))]
    every += list(calls(rng))
    if only:
        every = [pair for pair in every if only in pair[0]]
    rng.shuffle(every)
    for number, (label, work) in enumerate(every[:count]):
        if work is None:
            trial.magic(label)
        else:
            trial.call(label, work)
        if say and number % 100 == 99:
            print(number + 1, dict(trial.counts), flush=True)
    return trial


def at_work(count: int, seed: int, say: bool = False, only: str = "") -> Trial:
    """A campaign in a folder of its own."""
    before, home = Path.cwd(), os.environ.get("TLNB_HOME")
    with tempfile.TemporaryDirectory() as place:
        make_files(Path(place))
        os.chdir(place)
        os.environ["TLNB_HOME"], os.environ["TLNB_AUTOSAVE"] = str(Path(place) / ".home"), "0"
        try:
            tl = prepared()
            tl.save("saved")
            whole = Path("saved.safetensors").read_bytes()
            Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
            return campaign(count, seed, say, only)
        finally:
            os.chdir(before)
            if home is None:
                del os.environ["TLNB_HOME"]
            else:
                os.environ["TLNB_HOME"] = home


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="those with this in their line or call")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = at_work(asked.count, asked.seed, say=True, only=asked.only)
    print(dict(found.counts))
    sys.exit(bool(found.raw))
