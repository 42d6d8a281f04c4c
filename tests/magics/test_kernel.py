"""What a front end gets from a real kernel: errors, completions, progress, curves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

QUICK = "%tl_load convnet5\n%tl_data digits --per-class 8 --seed 1\n%tl_train epochs 2 lr 1e-3"


class Kernel:
    """A kernel and what it publishes."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client

    def run(self, code: str, **metadata: str) -> list[dict[str, Any]]:
        """Execute a cell as a front end that sends ``metadata`` does; the messages it publishes."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": False, "stop_on_error": True,
        }  # fmt: skip
        request = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(request)
        published = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            if message["content"].get("execution_state") == "idle":
                return published
            published.append(message)

    def complete(self, code: str) -> list[str]:
        """The whole texts that Tab offers at the end of ``code``."""
        reply = self.client.complete(code, reply=True, timeout=60)["content"]
        return [code[: reply["cursor_start"]] + match for match in reply["matches"]]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    # A test run says so in the environment, and a kernel inherits it; somebody shall look here.
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(
        env={key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    )
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        kernel = Kernel(client)
        kernel.run("%load_ext tlnb")
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def of_kind(messages: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [message["content"] for message in messages if message["msg_type"] == kind]


def text_of(messages: list[dict[str, Any]]) -> str:
    return "".join(content["text"] for content in of_kind(messages, "stream"))


@pytest.mark.parametrize(
    ("cell", "name", "line"),
    [
        ("%tl_freeze 0:5", "NotReady", "no model yet; load one first, such as: %tl_load convnet5"),
        (
            "%tl_train epochs two",
            "BadArguments",
            "%tl_train: epochs takes a whole number from 1 up, not 'two'",
        ),
        ("tl.freeze('0:5')", "NotReady", "no model yet; load one first, such as: %tl_load convnet5"),
        ("%%tl_step\nloss = (", "BadArguments", "%%tl_step: line 1: '(' was never closed: 'loss = ('"),
    ],
)
def test_an_error_is_one_line_in_an_error_message(kernel: Kernel, cell: str, name: str, line: str) -> None:
    published = kernel.run(cell)
    (error,) = of_kind(published, "error")
    assert error["ename"] == name
    assert error["evalue"] == line
    assert error["traceback"] == [f"{name}: {line}"]
    assert text_of(published) == ""


def test_completion(kernel: Kernel) -> None:
    assert kernel.complete("%tl_data gl") == ["%tl_data glyphs"]
    assert kernel.complete("x = 1\n%tl_freeze 0:2,bo") == ["x = 1\n%tl_freeze 0:2,body"]
    assert kernel.complete("%%tl_train\nfreeze body epochs 3\nunf") == [
        "%%tl_train\nfreeze body epochs 3\nunfreeze"
    ]
    assert "tl.find_lr" in kernel.complete("tl.find")


def test_help(kernel: Kernel) -> None:
    reply = kernel.client.inspect("%tl_freeze", reply=True, timeout=60)["content"]
    assert "%tl_freeze 0:5                            layers 0 to 4" in reply["data"]["text/plain"]


def epochs(seen: str) -> list[str]:
    return [line.split()[0] for line in seen.splitlines() if line.split()[:1] in (["1/2"], ["2/2"])]


def test_where_nobody_looks_a_run_leaves_its_twin(kernel: Kernel) -> None:
    published = kernel.run(QUICK)
    assert of_kind(published, "error") == []
    assert "\r" not in text_of(published)
    assert of_kind(published, "display_data") + of_kind(published, "update_display_data") == []
    (result,) = of_kind(published, "execute_result")
    assert result["data"]["text/plain"].startswith("done: accuracy")
    assert result["data"]["text/html"].count("<polyline") == 3, "curves of losses and accuracy"
    assert "<summary>every epoch</summary>" in result["data"]["text/html"]


@pytest.mark.parametrize("cell", ["run = %tl_train epochs 2 lr 1e-3", "%tl_train epochs 2 lr 1e-3;"])
def test_where_nobody_looks_a_run_that_is_no_answer_is_shown_once(kernel: Kernel, cell: str) -> None:
    published = kernel.run(cell)
    assert of_kind(published, "execute_result") == []
    (shown,) = of_kind(published, "display_data")
    assert shown["data"]["text/plain"].startswith("done: accuracy")
    assert epochs(shown["data"]["text/plain"]) == []  # its table of stages comes first; the epochs follow
    assert shown["data"]["text/plain"].count("2/2") == 2
    assert of_kind(kernel.run("1 + 1"), "display_data") == []


def test_where_nobody_looks_layers_are_a_strip(kernel: Kernel) -> None:
    (result,) = of_kind(kernel.run("%tl_freeze 0:5"), "execute_result")
    assert result["data"]["text/html"].count("❄") == 6, "five layers and the legend"
    assert "froze layers 0–4" in result["data"]["text/html"].replace("0-4", "0–4")


def test_what_fails_in_a_run_that_nobody_looks_at_leaves_the_epochs_before(kernel: Kernel) -> None:
    published = kernel.run(
        "class Fails:\n    def on_epoch(self, record):\n        if record.epoch == 2: raise RuntimeError('full')\n"
        "tl.listeners.append(Fails())\n%tl_train epochs 3 lr 1e-3"
    )
    kernel.run("tl.listeners.pop()")
    (shown,) = of_kind(published, "display_data")
    assert shown["data"]["text/plain"].startswith("ended by an error")
    assert len(of_kind(published, "error")) == 1


def test_bars_where_somebody_looks_leave_the_lines(kernel: Kernel) -> None:
    kernel.run("import tlnb\ntl = tlnb.Session()")
    published = kernel.run(QUICK, cellId="a")
    text = text_of(published)
    assert "█" in text
    assert of_kind(published, "display_data") + of_kind(published, "update_display_data") == []
    seen = [line.rpartition("\r")[2] for line in text.split("\n")]  # each line is as long as what it covers
    assert [line.split()[0] for line in seen if line] == ["the", "stage", "epoch", "1/2", "2/2"], (
        "first of the head"
    )


def test_a_curve_is_a_picture_with_text(kernel: Kernel) -> None:
    published = kernel.run(
        "%tl_load convnet5\n%tl_data digits\ncurve = %tl_lr --steps 12\ntl.listeners[0].on_curve(curve)"
    )
    (shown,) = of_kind(published, "display_data")
    assert {"image/png", "text/plain"} <= set(shown["data"])
    assert "learning-rate range test" in shown["data"]["text/plain"]
