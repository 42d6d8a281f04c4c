"""The part of a script that averages weights: the very code that the session did it with."""

from __future__ import annotations

import inspect

from tlnb.engine.export.script.job import Job
from tlnb.engine.training import averages
from tlnb.engine.training.trainer import EVALUATION_BATCH
from tlnb.errors import ExportError


def averages_code(job: Job, imports: set[str]) -> str:
    """``Average`` and ``renew_statistics``; empty where nothing is averaged.

    Args:
        job: what was done.
        imports: more are added.
    """
    if not job.any("average"):
        return ""
    imports |= {
        "from collections.abc import Iterable", "from torch import Tensor", "from typing import Any",
        "from torch.nn.modules.batchnorm import _BatchNorm",
        "from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn",
    }  # fmt: skip
    source = inspect.getsource(averages)
    return source[source.index("DECAY = ") :].rstrip()


def before_lines(job: Job, planned: bool) -> list[str]:
    """Lines of ``train_stage`` before the first epoch.

    Args:
        job: what was done.
        planned: whether a stage may say how many epochs its schedule was made for.
    """
    epochs = "(stage.planned or stage.epochs)" if planned else "stage.epochs"
    return [
        "    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}",
        f"    average = Average(stage.average, weights, {epochs}) if stage.average else None",
    ]


def after_lines(job: Job, in_parts: bool, changed: str, take: str, bfloat16: bool) -> list[str]:
    """Lines of ``train_stage`` behind the last epoch.

    Args:
        job: what was done.
        in_parts: whether stages go on with other data.
        changed: whether pictures change at random: ``none``, ``some`` or ``all``.
        take: the expression for a batch of ``rows``.
        bfloat16: whether a stage computes in that.

    Raises:
        ExportError: an average together with what a script cannot hold beside it.
    """
    for there, what in (
        (in_parts, "other data within a stage"),
        (changed != "none", "pictures that change at random"),
        (bfloat16, "bfloat16"),
    ):
        if there:
            raise ExportError(f"average with {what} cannot be written into a script")
    return [
        "    if average and average.put():",
        "        set_modes(model, stage)",
        "        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]",
        "        norms = [norm for norm in norms if norm.running_mean is not None]",
        "        model.eval()",
        f"        every = torch.arange(len(targets)).split({EVALUATION_BATCH})",
        "        if norms:",
        f"            renew_statistics(norms, rest, ({take} for rows in every))",
    ]
