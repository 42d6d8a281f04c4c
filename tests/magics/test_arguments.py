"""Lines and the calls that they make; wrong lines and the one line that they get."""

from __future__ import annotations

from typing import Any

import pytest

from tlnb.errors import TlnbError

CALLS: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("%tl_load convnet5", "load", ("convnet5",), {}),
    ("%tl_load resnet18 --weights none", "load", ("resnet18",), {"weights": "none"}),
    ('%tl_load --weights="my files/a.pth" resnet18', "load", ("resnet18",), {"weights": "my files/a.pth"}),
    (r"%tl_load resnet18 --weights C:\new\a.pth", "load", ("resnet18",), {"weights": r"C:\new\a.pth"}),
    ("%tl_load $name", "load", ("convnet5",), {}),
    ("%tl_data digits", "data", ("digits",), {}),
    ("%tl_data digits --valid 0.3 --seed=4", "data", ("digits",), {"valid": 0.3, "seed": 4}),
    ("%tl_data digits --valid $share", "data", ("digits",), {"valid": 0.25}),
    ("%tl_data digits --per-class 5", "data", ("digits",), {"per_class": 5}),
    ("%tl_data digits --per_class 5", "data", ("digits",), {"per_class": 5}),
    ("%tl_head", "head", (), {}),
    ("%tl_head mlp:512,256", "head", ("mlp:512,256",), {}),
    ("%tl_head mlp:512, 256", "head", ("mlp:512,256",), {}),
    ("%tl_train epochs 2 --no-cache", "train", (), {"epochs": 2, "cache": False}),
    ("%tl_freeze 0:5 # note", "freeze", ("0:5",), {}),
    ("%tl_freeze 2:4, 7", "freeze", ("2:4,7",), {}),
    ("%tl_freeze re:^layer{2}$", "freeze", ("re:^layer{2}$",), {}),
    ("%tl_freeze {share}", "freeze", ("{share}",), {}),
    ("%tl_freeze 'my layer'", "freeze", ("my layer",), {}),
    ("%tl_unfreeze -1:", "unfreeze", ("-1:",), {}),
    ("%tl_unfreeze -1", "unfreeze", ("-1",), {}),
    ("%tl_lr", "find_lr", (), {}),
    ("%tl_lr --rule steepest --stop 1", "find_lr", (), {"rule": "steepest", "stop": 1.0}),
    ("%tl_train", "train", (), {}),
    ("%tl_train epochs 3 lr 1e-3", "train", (), {"epochs": 3, "lr": 1e-3}),
    ("%tl_train epochs=3 --lr auto", "train", (), {"epochs": 3, "lr": "auto"}),
    ("%tl_train --optimizer SGD", "train", (), {"optimizer": "sgd"}),
    ("%tl_train weight-decay 0.1 bn frozen", "train", (), {"weight_decay": 0.1, "bn": "frozen"}),
    ("%tl_train guard off blend none", "train", (), {"guard": False, "blend": "none"}),
    ("%tl_train blend auto keep none", "train", (), {"blend": "auto", "keep": "none"}),
    ("%%tl_train\nfreeze body  epochs 3\n# end", "run", ("freeze body  epochs 3\n# end\n",), {}),
    ("%%tl_train batch 32\nfreeze body", "run", ("freeze body\n",), {"batch": 32}),
    ("%tl_status", "status", (), {}),
]

ERRORS = [
    (
        "%tl_load",
        "%tl_load: model missing: the name of a model, a file of weights or $name; "
        "usage: %tl_load MODEL [--OPTION VALUE ...]",
    ),
    ("%tl_load a b", "%tl_load: 'b' is one word too many; usage: %tl_load MODEL [--OPTION VALUE ...]"),
    (
        "%tl_load resnet18 weights=none",
        "%tl_load: 'weights=none' is one word too many; did you mean '--weights=none'?",
    ),
    ("%tl_load $nam", "%tl_load: there is no variable 'nam'; did you mean 'name'?"),
    ("%tl_load a --weights $net", "%tl_load: --weights takes an entry, a file or none, not a dict"),
    ("%tl_load 'my net", "%tl_load: the quote ' before 'my net' is never closed"),
    ("%tl_load a --weights", "%tl_load: --weights needs a value: an entry, a file or none"),
    ("%tl_load a --weights --weights", "%tl_load: --weights needs a value: an entry, a file or none"),
    ("%tl_data digits --valid 2", "%tl_data: --valid takes a number between 0 and 1, not '2'"),
    ("%tl_data digits --valid nan", "%tl_data: --valid takes a number between 0 and 1, not 'nan'"),
    ("%tl_data digits --valid $net", "%tl_data: --valid takes a number between 0 and 1, not a dict"),
    ("%tl_data digits --vaild 0.2", "%tl_data: there is no option '--vaild'; did you mean '--valid'?"),
    (
        "%tl_data digits --x 0.2",
        "%tl_data: there is no option '--x'; did you mean '--text'?",
    ),
    ("%tl_data digits -valid 0.2", "%tl_data: there is no option '-valid'; did you mean '--valid'?"),
    ("%tl_data digits --seed 1 --seed 2", "%tl_data: --seed is given twice"),
    ("%tl_data digits --batch 0", "%tl_data: --batch takes a whole number from 1 up, not '0'"),
    ("%tl_data digits --batch 1.5", "%tl_data: --batch takes a whole number from 1 up, not '1.5'"),
    (
        "%tl_freeze",
        "%tl_freeze: layers missing: layers such as 0:5, -1:, layer3, features.*, body, head, all or none; "
        "usage: %tl_freeze LAYERS",
    ),
    ("%tl_freeze 0 1", "%tl_freeze: '1' is one word too many; commas join several: 0,1"),
    ("%tl_freeze 0:5 --bn", "%tl_freeze: there is no option '--bn'; usage: %tl_freeze LAYERS"),
    ("%tl_lr --steps ten", "%tl_lr: --steps takes a whole number from 12 up, not 'ten'"),
    ("%tl_train epochs two", "%tl_train: epochs takes a whole number from 1 up, not 'two'"),
    (
        "%tl_train unfreeze head",
        "%tl_train: there is no key 'unfreeze'; did you mean %tl_unfreeze, on a line of its own?",
    ),
    ("%tl_train epcohs 2", "%tl_train: there is no key 'epcohs'; did you mean 'epochs'?"),
    ("%tl_train --epcohs 2", "%tl_train: there is no option '--epcohs'; did you mean '--epochs'?"),
    ("%tl_train epochs", "%tl_train: epochs needs a value: a whole number from 1 up"),
    ("%tl_train epochs 2 epochs=3", "%tl_train: epochs is given twice"),
    (
        "%tl_train optimizer adam",
        "%tl_train: optimizer takes one of adamw, sgd, not 'adam'; did you mean 'adamw'?",
    ),
    ("%tl_train lr -1", "%tl_train: lr takes auto or a number above 0, not '-1'"),
    ("%%tl_train epochs two\nfreeze body", "%%tl_train: epochs takes a whole number from 1 up, not 'two'"),
    ("%tl_status now", "%tl_status: 'now' is one word too many; usage: %tl_status [--OPTION VALUE ...]"),
    ("%tl_step on", "%tl_step: off takes the word off, not 'on'"),
    ("%%tl_step off\nloss = x", "%%tl_step: 'off' is one word too many; usage: %tl_step [OFF]"),
]


@pytest.fixture
def run(shell: Any, tl: Any) -> Any:
    shell.user_ns.update(share=0.25, name="convnet5", net={})
    return shell.run


@pytest.mark.parametrize(("cell", "method", "words", "keywords"), CALLS)
def test_a_line_is_one_call(
    run: Any, tl: Any, cell: str, method: str, words: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    assert run(cell) == f"answer of {method}"
    assert tl.calls == [(method, words, keywords)]


@pytest.mark.parametrize(("cell", "message"), ERRORS)
def test_a_wrong_line_is_one_line(run: Any, tl: Any, cell: str, message: str) -> None:
    with pytest.raises(TlnbError) as caught:
        run(cell)
    assert str(caught.value) == message
    assert "\n" not in message
    assert tl.calls == []
