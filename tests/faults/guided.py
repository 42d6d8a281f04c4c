"""Fuzzing that follows the branches of the code: ``pip install atheris``, then ``python -m tests.faults.guided``.

It is for a developer's machine, as it finds more the longer it runs (``-max_total_time=600`` seconds); the tests
themselves use hypothesis (``test_fuzz.py``). It stops at the first input that ends in anything but an answer or one
line, and writes that input to a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

FOLLOWED = [
    "tlnb.magics", "tlnb.engine.data.images", "tlnb.engine.training.stage", "tlnb.engine.training.plan",
    "tlnb.engine.network.address", "tlnb.engine.core.structure",
]  # fmt: skip
with atheris.instrument_imports(include=FOLLOWED):
    from tlnb.engine.core.structure import Unfit, structure
    from tlnb.engine.data.images import headers
    from tlnb.engine.network.address import select
    from tlnb.engine.training.plan import parse_plan
    from tlnb.magics.arguments import parse
    from tlnb.magics.commands import COMMANDS

import torch  # noqa: E402
from networks import small  # noqa: E402

from tlnb.engine.network.layers import find_layers  # noqa: E402
from tlnb.engine.training.records import PlanProgress, StageResult  # noqa: E402
from tlnb.errors import TlnbError  # noqa: E402

LAYERS = find_layers(small(), torch.zeros(1, 1, 8, 8))


def picture(data: atheris.FuzzedDataProvider) -> None:
    """The first and last bytes of a picture."""
    content = data.ConsumeBytes(400)
    kind = headers.kind_of(content)
    if kind == "JPEG":
        headers.check_jpeg(content, content)
    elif kind == "PNG":
        headers.check_png(content)
        headers.check_png_ends(content, content)


def plan(data: atheris.FuzzedDataProvider) -> None:
    """A plan of stages."""
    parse_plan(data.ConsumeUnicodeNoSurrogates(80), LAYERS, ())


def address(data: atheris.FuzzedDataProvider) -> None:
    """An address of layers."""
    select(data.ConsumeUnicodeNoSurrogates(30), LAYERS)


def magic(data: atheris.FuzzedDataProvider) -> None:
    """A magic line."""
    command = COMMANDS[data.PickValueInList(sorted(COMMANDS))]
    parse(command, data.ConsumeUnicodeNoSurrogates(80), {"x": 3}, cell=data.ConsumeBool())


def checkpoint(data: atheris.FuzzedDataProvider) -> None:
    """What a checkpoint says of a stage and of a plan."""
    kind = StageResult if data.ConsumeBool() else PlanProgress
    try:
        structure(kind, json.loads(data.ConsumeUnicodeNoSurrogates(400)))
    except (Unfit, ValueError, RecursionError):  # from_checkpoint makes one line of these
        return


DOORS = [picture, plan, address, magic, checkpoint]


def one_input(content: bytes) -> None:
    """Try one input at one door."""
    data = atheris.FuzzedDataProvider(content)
    try:
        data.PickValueInList(DOORS)(data)
    except headers.BadPicture as error:
        said = str(error)
    except TlnbError as error:
        said = str(error)
    else:
        return
    assert "\n" not in said, said


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
