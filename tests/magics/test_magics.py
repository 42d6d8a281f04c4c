"""Loading, the session behind ``tl``, and what comes back from a magic."""

from __future__ import annotations

import builtins
import subprocess
import sys
from typing import Any

import pytest

import tlnb
from tlnb.display.progress import LineProgress
from tlnb.errors import NotReady
from tlnb.magics.commands import COMMANDS
from tlnb.session import Session


@pytest.fixture
def loaded(shell: Any) -> Any:
    tlnb.load_ipython_extension(shell)
    return shell


def registered(shell: Any) -> set[str]:
    lines = shell.magics_manager.lsmagic()["line"]
    return {name for name in lines if name.startswith("tl_")}


HEAVY = ("torch", "torchvision", "matplotlib", "sklearn", "scipy", "PIL", "pandas", "ipywidgets", "anywidget")
HEAVY += ("transformers", "soundfile", "timm", "onnx", "tensorboard", "mlflow")


def test_loading_imports_nothing_heavy() -> None:
    code = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
before = set(sys.modules)
shell.run_cell("%load_ext tlnb").raise_error()
print("loaded", sorted(set({HEAVY}) & (set(sys.modules) - before)))
shell.run_cell("type(tl), tl.__class__, isinstance(tl, int), callable(tl)").raise_error()
shell.complete("t"), shell.run_cell("%who")
print("used", "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "loaded []" in lines
    assert lines[-1] == "used False"


def test_tl_is_a_session_before_and_after_its_first_use(loaded: Any) -> None:
    before = loaded.user_ns["tl"]
    assert isinstance(before, Session)
    assert before.frozen == ()
    assert "find_lr" in dir(before)
    after = loaded.user_ns["tl"]
    assert type(after) is Session
    before.step = len
    assert after.step is len
    assert repr(before) == repr(after)


def test_a_magic_acts_on_tl(loaded: Any) -> None:
    loaded.run("%%tl_step\nloss = x")
    assert loaded.user_ns["tl"].step.source == "loss = x"


def test_loading_again_keeps_the_session(loaded: Any) -> None:
    session = loaded.run("tl.frozen\n%tl_history\ntl")
    tlnb.load_ipython_extension(loaded)
    loaded.run("%reload_ext tlnb")
    assert loaded.run("%tl_step\ntl") is session
    loaded.run("tl.step = len")
    assert loaded.run("%tl_step") is len


def test_unload_takes_all_away_but_the_session(loaded: Any) -> None:
    matchers = list(loaded.Completer.custom_matchers)
    assert registered(loaded) == set(COMMANDS)
    session = loaded.run("tl.frozen\ntl")
    tlnb.unload_ipython_extension(loaded)
    assert registered(loaded) == set()
    assert not set(loaded.magics_manager.lsmagic()["cell"]) & set(COMMANDS)
    assert loaded.Completer.custom_matchers == matchers[:-1]
    assert loaded.user_ns["tl"] is session
    del loaded.user_ns["tl"]
    tlnb.load_ipython_extension(loaded)
    assert loaded.user_ns["tl"] is session
    tlnb.load_ipython_extension(loaded)
    assert len(loaded.Completer.custom_matchers) == len(matchers)


def test_unload_before_load_does_nothing(shell: Any) -> None:
    tlnb.unload_ipython_extension(shell)
    assert "tl" not in shell.user_ns


def test_two_shells_have_two_sessions(shell: Any) -> None:
    other = type(shell)(config=shell.config)
    for one in (shell, other):
        tlnb.load_ipython_extension(one)
        one.run("%tl_history")
    assert shell.user_ns["tl"] is not other.user_ns["tl"]


def test_a_variable_tl_of_the_user_stays(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.user_ns["tl"] = 3
    tlnb.load_ipython_extension(shell)
    said = capsys.readouterr().out
    assert said.startswith("tlnb: tl is a variable of yours (int) and stays so;")
    assert said.count("\n") == 1
    shell.run("%tl_history")
    assert shell.user_ns["tl"] == 3
    shell.run("del tl")
    shell.run("%tl_history")
    assert isinstance(shell.user_ns["tl"], Session)


def test_a_session_that_the_user_makes_is_used(loaded: Any) -> None:
    loaded.run("%tl_history")
    loaded.run("import tlnb\ntl = tlnb.Session()\n%tl_step off")
    mine = loaded.user_ns["tl"]
    mine.step = len
    assert loaded.run("%tl_step") is len
    assert len(mine.listeners) == 1


def test_only_plain_lines_give_way_to_the_shells_listener(loaded: Any) -> None:
    said: list[str] = []
    own, plain = LineProgress(write=said.append), LineProgress()
    mine = loaded.user_ns["tl"] = Session([own, plain])
    loaded.run("%tl_step")
    kept, other = mine.listeners
    assert kept is own
    assert other is not plain
    silent = loaded.user_ns["tl"] = Session([])
    loaded.run("%tl_step")
    assert silent.listeners == []


def test_plain_lines_give_way_where_another_library_has_replaced_print(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "print", lambda *words: None)  # as Ray does
    plain = LineProgress()
    mine = loaded.user_ns["tl"] = Session([plain])
    loaded.run("%tl_step")
    assert mine.listeners != [plain]


def test_what_a_magic_returns_can_be_kept(shell: Any, tl: Any) -> None:
    shell.run("curve = %tl_lr\nrun = %tl_train epochs 2")
    assert (shell.user_ns["curve"], shell.user_ns["run"]) == ("answer of find_lr", "answer of train")


def test_a_semicolon_hides_the_answer(shell: Any, tl: Any) -> None:
    assert shell.run("%tl_freeze 0:5;") is None
    assert shell.run("%tl_freeze 'a;'") == "answer of freeze"
    assert tl.calls == [("freeze", ("0:5",), {}), ("freeze", ("a;",), {})]


def test_an_error_is_one_line_and_fails_the_cell(loaded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    done = loaded.run_cell("%tl_freeze 0:5\nreached = True")
    assert isinstance(done.error_in_exec, NotReady)
    assert "reached" not in loaded.user_ns
    assert capsys.readouterr().out == "NotReady: no model yet; load one first, such as: %tl_load convnet5\n"


def test_an_unexpected_error_keeps_its_traceback(
    loaded: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "status", lambda self: 1 / 0)
    loaded.run_cell("%tl_status")
    shown = capsys.readouterr().out
    assert "ZeroDivisionError" in shown
    assert "test_magics.py" in shown
