"""What Tab offers, asked through IPython's completer as a terminal and a kernel ask it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter

import tlnb
from tlnb.engine.data.sources.published import NAMES
from tlnb.magics.training_commands import TRAIN

OPTIONS = [
    "--valid", "--size", "--batch", "--per-class", "--augment", "--balance", "--target",
    "--label", "--text", "--length", "--path", "--split", "--delimiter", "--folder", "--suffix",
    "--links", "--range", "--bands", "--window", "--rate",
    "--test", "--groups", "--time", "--score", "--marks", "--strict",
    "--show", "--seed",
]  # fmt: skip
DATA = ["digits", "glyphs", *(f"torchvision/{name}" for name in NAMES)]
KEYS = [option.name for option in TRAIN.options]
LAYERS = ["body", "head", "all", "none"]

OFFERS = [
    ("%tl_load convnet", ["convnet5"]),
    ("%tl_load resnet1", ["resnet101", "resnet152", "resnet18"]),
    ("%tl_load resnet18 --w", ["--weights"]),
    ("%tl_load resnet18 --weights n", ["none"]),
    ("%tl_load resnet18 --weights=n", ["none"]),
    ("%tl_load resnet50 --weights ", ["DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2", "none"]),
    ("%tl_load --weights=IMAGENET1K_S", []),
    (
        "%tl_load vit_b_16 --layers-from 0:3 --weights=IMAGENET1K_S",
        ["IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1"],
    ),
    ("%tl_load convnet5 --weights ", ["DEFAULT", "none"]),
    ("%tl_load --weights ", ["none"]),
    ("%tl_data ", DATA),
    ("%tl_data di", ["digits"]),
    ("%tl_data torchvision/CIFAR", ["torchvision/CIFAR10", "torchvision/CIFAR100"]),
    ("%tl_data digits --augment st", ["standard", "strong"]),
    ("%tl_data digits --balance ", ["weights", "samples"]),
    ("%tl_data digits --", OPTIONS),
    ("%tl_data digits --valid 0.2 --", OPTIONS[1:]),
    ("%tl_data --valid 0.2 gl", ["glyphs"]),
    ("%tl_data digits --valid $sh", ["$share", "$shape"]),
    ("%tl_head m", ["mlp:"]),
    ("%tl_freeze ", LAYERS),
    ("%tl_freeze b", ["body"]),
    ("%tl_freeze 0:2,he", ["head"]),
    ("tl_freeze h", ["head"]),
    ("%tl_step o", ["off"]),
    ("curve = %tl_lr --rule v", ["valley"]),
    ("%tl_train ", KEYS),
    ("%tl_train epochs 3 l", ["lr"]),
    ("%tl_train epochs=3 p", ["patience", "precision"]),
    ("%tl_train optimizer ", ["adamw", "sgd"]),
    ("%tl_train optimizer=s", ["sgd"]),
    ("%tl_train schedule ", ["one-cycle", "cosine", "constant"]),
    ("%tl_train schedule co", ["cosine", "constant"]),
    ("%tl_train --op", ["--optimizer"]),
    ("%tl_train lr ", ["auto"]),
    ("%%tl_train ba", ["batch"]),
    ("%tl_head linear --init ", ["zero", "he", "fit"]),
    ("%tl_train blend ", ["none", "auto"]),
    ("%tl_train guard o", ["on", "off"]),
    ("%%tl_train\n", ["freeze", "unfreeze", "train", "fit", "adapt"]),
    ("%%tl_train\nfit ", ["head"]),
    ("%%tl_train\nfit head ", ["augment", "guard", "views"]),
    ("%%tl_train\nfreeze b", ["body"]),
    ("%%tl_train\nfreeze body epochs 3\nun", ["unfreeze"]),
    ("%%tl_train\nfreeze 0:3, he", ["head"]),
    ("%%tl_train batch 32\nunfreeze all  epochs 2  sch", ["schedule"]),
    ("%%tl_train\nunfreeze all epochs=2 schedule=c", ["cosine", "constant"]),
]


@pytest.fixture(scope="module", params=[True, False], ids=["jedi", "plain"])
def shell(request: pytest.FixtureRequest) -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    one = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    one.Completer.use_jedi = request.param
    one.Completer.jedi_compute_type_timeout = 2000
    tlnb.load_ipython_extension(one)
    one.user_ns.update(share=0.2, shape=(1, 2))
    return one


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, since names of files are offered too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(shell: Any, text: str) -> list[tuple[str, str]]:
    """(text before the cursor that stays, offered word) pairs, as a front end shows them."""
    with provisionalcompleter():
        return [(text[: found.start], found.text) for found in shell.Completer.completions(text, len(text))]


@pytest.mark.parametrize(("text", "words"), OFFERS)
def test_offers(shell: Any, text: str, words: list[str]) -> None:
    found = offered(shell, text)
    assert [word for _, word in found] == words
    # What stays and what is offered make a text that goes on from what was typed.
    assert all((kept + word).startswith(text) for kept, word in found)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(("text", "words"), OFFERS)
def test_the_older_interface_offers_the_same(shell: Any, text: str, words: list[str]) -> None:
    if "\n" not in text:
        kept, found = shell.complete("", text, len(text))
        assert found == words
        assert text.endswith(kept)


@pytest.mark.parametrize(
    "text", ["%tl_data 'my pic", "%tl_status ", "%tl_data digits gl", "%tl_lr x", "x = 3 # %tl"]
)
def test_nothing_of_ours_is_offered(shell: Any, text: str) -> None:
    words = {word for _, word in offered(shell, text)}
    ours = {"body", "head", *OPTIONS, *KEYS, "digits", "glyphs", "convnet5"} - {
        "continue"
    }  # a word of Python
    assert not words & ours


def test_python_is_completed_as_before(shell: Any) -> None:
    assert ("", "share") in offered(shell, "sha")
    assert ("", "%tl_freeze") in offered(shell, "%tl_fr")


def test_a_file_can_be_completed_as_weights(shell: Any, folder: Path) -> None:
    (folder / "net.safetensors").touch()
    assert ("%tl_load resnet18 --weights ", "net.safetensors") in offered(
        shell, "%tl_load resnet18 --weights ne"
    )
    assert {word for _, word in offered(shell, "%tl_load resnet18 --weights n")} == {
        "none",
        "net.safetensors",
    }


def test_tl_is_completed_before_its_first_use(shell: Any) -> None:
    names = {word.rpartition(".")[2] for _, word in offered(shell, "tl.")}  # IPython 8 offers tl.train
    assert {"find_lr", "freeze", "train"} <= names


def test_layers_are_offered_by_name_once_there_is_a_network(shell: Any) -> None:
    shell.run_cell("%tl_load convnet5").raise_error()
    names = [row.name for row in shell.user_ns["tl"].layers]
    assert [word for _, word in offered(shell, "%tl_freeze ")] == LAYERS + names
    start = names[0][:2]
    expected = [name for name in names if name.startswith(start)]
    assert [word for _, word in offered(shell, f"%%tl_train\ntrain {start}")] == expected


def test_networks_are_offered_before_torch_is_imported() -> None:
    code = (
        "import sys; from tlnb.engine.models.listed import listed_names; said = listed_names(); "
        "assert 'torch' not in sys.modules; from tlnb.engine.models.catalogue import names; "
        "known = names(); assert said[:len(known)] == known == listed_names.__wrapped__()[:len(known)], said"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
