"""The table of commands: parser, help, completion and the reference page are all made from it.

A new command is an entry in one of the files that are put together here, and a method of the session; it needs no code
of its own.
"""

from __future__ import annotations

from tlnb.magics.advice_commands import ADVISE, BLEND, CV, FORGET, SWEEP
from tlnb.magics.command import Command
from tlnb.magics.layer_commands import ADAPT, FREEZE, HEAD, LAYERS, MERGE, TASKS, UNFREEZE
from tlnb.magics.network_and_data import CHOOSE, CLEAN, DATA, LOAD, MAP
from tlnb.magics.taking_along import TAKING_ALONG
from tlnb.magics.training_commands import (
    CLUSTER,
    HISTORY,
    LR,
    PANEL,
    RESUME,
    SAVE,
    STATUS,
    STEP,
    TRAIN,
    UNDO,
)  # fmt: skip

COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        LOAD,
        DATA,
        HEAD,
        TASKS,
        LAYERS,
        FREEZE,
        UNFREEZE,
        ADAPT,
        MERGE,
        LR,
        TRAIN,
        STEP,
        STATUS,
        HISTORY,
        SAVE,
        RESUME,
        UNDO,
        MAP,
        PANEL,
        ADVISE,
        CHOOSE,
        SWEEP,
        CV,
        CLEAN,
        CLUSTER,
        FORGET,
        BLEND,
        *TAKING_ALONG,
    )
}
