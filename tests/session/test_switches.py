"""A notebook's own switches of torch, paths of pathlib, and data that is dropped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from torch import nn
from traitlets.config import Config

from tlnb.engine.models.published import build
from tlnb.errors import ModelError, NotReady
from tlnb.session import Session


def default_dtype(stack: ExitStack) -> None:
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float64)


def deterministic(stack: ExitStack) -> None:
    stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
    torch.use_deterministic_algorithms(True)


def entered(context: Callable[[], AbstractContextManager[object]]) -> Callable[[ExitStack], None]:
    return lambda stack: stack.enter_context(context()) and None


SWITCHES: dict[str, Callable[[ExitStack], None]] = {
    "nothing": lambda stack: None,
    "float64 by default": default_dtype,
    "no gradients": entered(torch.no_grad),
    "inference mode": entered(torch.inference_mode),
    "autocast": entered(lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "deterministic algorithms": deterministic,
    "tensors on meta by default": entered(lambda: torch.device("meta")),
}


def trained() -> torch.Tensor:
    tl = Session([])
    tl.load("convnet5")
    tl.data("digits", per_class=4)
    tl.freeze("body")
    tl.train(epochs=1, lr=1e-3)
    tl.unfreeze("-2:")
    tl.find_lr(steps=12)
    tl.train(epochs=1, lr=1e-3, cache=False)
    tl.results(worst=0)
    return next(reversed(list(tl.model.parameters()))).detach().clone()


@pytest.fixture(scope="module")
def usual() -> torch.Tensor:
    return trained()


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_notebooks_switches_do_not_reach_the_session(switch: str, usual: torch.Tensor) -> None:
    with ExitStack() as stack:
        SWITCHES[switch](stack)
        state = (
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"), torch.get_default_device(),
        )  # fmt: skip
        weights = trained()
        assert state == (
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"), torch.get_default_device(),
        )  # fmt: skip
    assert weights.dtype == torch.float32
    assert torch.equal(weights, usual)


def test_a_module_of_another_precision_is_one_line_with_the_cure() -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        net = nn.Sequential(nn.Linear(4, 2)).to(dtype)
        with pytest.raises(ModelError, match=r"come in float32; make them float32 first: net\.float\(\)"):
            Session([]).load(net)
    assert Session([]).load(nn.Sequential(nn.Linear(4, 2)))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    monkeypatch.chdir(tmp_path)
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    shell.run_cell("%load_ext tlnb").raise_error()
    return shell


def test_paths_of_pathlib_wherever_a_path_is(shell: InteractiveShell, tmp_path: Path) -> None:
    torch.save(build("convnet5", classes=4).state_dict(), tmp_path / "r.pth")
    tl = Session([])
    assert tl.load(tmp_path / "r.pth").weights == str(tmp_path / "r.pth")
    assert tl.load("convnet5", weights=tmp_path / "r.pth").outputs == 4  # type: ignore[arg-type]
    shell.user_ns |= {"p": Path("r.pth"), "s": Path("s.safetensors"), "e": Path("net.onnx")}
    for line in ("%tl_load $p", "%tl_load convnet5 --weights $p", "%tl_save $s", "%tl_resume $s"):
        shell.run_cell(line).raise_error()
    tl.resume(Path("s.safetensors"))  # type: ignore[arg-type]
    tl.save(Path("other"))  # type: ignore[arg-type]
    assert Path("other.safetensors").is_file()


def test_a_variable_is_looked_up_in_the_function_that_runs_the_magic(shell: InteractiveShell) -> None:
    shell.run_cell(
        "from torch import nn\n"
        "net = nn.Linear(9, 2)\n"
        "def load(net):\n"
        "    inner = '4'\n"
        "    %tl_load $net --input $inner\n"
        "    return tl.model is net\n"
        "found = load(nn.Linear(4, 2))\n"
        "%tl_load $net --input 9\n"
    ).raise_error()
    assert shell.user_ns["found"] is True
    assert shell.user_ns["tl"].model is shell.user_ns["net"]
    assert shell.run_cell("%tl_load $inner").error_in_exec is not None


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.fc = nn.Embedding(50, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.e(x).mean(1))


def test_data_is_dropped_and_a_network_of_another_kind_comes() -> None:
    tl = Session([])
    with pytest.raises(NotReady):
        tl.data("none")
    tl.load("convnet5")
    tl.data("digits", per_class=5)
    tl.train(epochs=1, lr=1e-3)
    revision = tl.revision
    assert "digits is dropped, and no data is named; convnet5 stays" in repr(tl.data("none"))
    assert tl.revision == revision + 1
    with pytest.raises(NotReady, match="no data yet"):
        tl.train(epochs=1, lr=1e-3)
    with pytest.raises(NotReady, match="no data yet"):
        tl.results()
    tl.load(Words(), input="12")
    tl.data((torch.randint(0, 50, (40, 12)), torch.arange(40) % 2))
    assert tl.train(epochs=1, lr=1e-3).stages[0].records
    assert "Words is dropped, with its history; the data (Tensor, Tensor) stays" in repr(tl.load("none"))
    assert (len(tl.history), tl.frozen, tl.heads) == (0, (), {})
    with pytest.raises(NotReady, match="no model yet"):
        tl.load("none")
    tl.load(Words(), input="12")
    assert tl.train(epochs=1, lr=1e-3).stages[0].records
