"""The part of a script that fits a head: the very code that the session fitted it with."""

from __future__ import annotations

import inspect
from textwrap import dedent

from tlnb.engine.export.script.chain import expression
from tlnb.engine.export.script.job import Job
from tlnb.engine.training import fit_head, linear_fit
from tlnb.engine.training.stage import FIT
from tlnb.errors import ExportError

_FIT = '''def fit_stage({arguments}):
    """Fit the last layer of the head to convergence, with all else as it is; print what comes of it."""
{data}
    layer = [m for m in {head}.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, entering: seen.append(as_vectors(entering[0], layer)))
    model.eval()
    with torch.no_grad():
        for rows in torch.arange(len(targets)).split({size}):
            rest({batch})
    handle.remove()
    found = fit_linear(torch.cat(seen), targets{kind}, len(layer.bias), {weights})
    with torch.no_grad():
        layer.weight.copy_(found["weight"].reshape(layer.weight.shape))
        layer.bias.copy_(found["bias"])
    loss, figure = evaluate(model, rest, take, valid_samples, valid_targets{more})
    print(f"stage {{number}}, fitted with strength {{found['strength']:g}}: validation loss {{loss:.4f}}, "
          f"{metric} {{figure:.4f}}")'''


def fits(job: Job) -> bool:
    """Whether a stage fitted a head."""
    return any(result.stage.kind == FIT for result in job.results)


def solver_code() -> str:
    """``fit_linear`` and what it needs."""
    source = inspect.getsource(linear_fit)
    return (
        source[source.index("STRENGTHS = ") :].rstrip()
        + "\n\n\n"
        + inspect.getsource(fit_head.as_vectors).rstrip()
    )


def fit_code(job: Job, arguments: list[str], data: list[str], batch: str, more: str) -> str:
    """``fit_stage``.

    Args:
        job: what was done.
        arguments: of the function.
        data: lines that read the data and set ``rest`` and ``take``.
        batch: what takes a batch of rows.
        more: further arguments of ``evaluate``.

    Raises:
        ExportError: class weights with several data sets.
    """
    weighted = [source for source in job.sources if getattr(source.data.task, "weights", None)]
    if weighted and job.several:
        raise ExportError(
            "a head that was fitted with class weights, and several data sets, are not one script"
        )
    kinds = {source.kind for source in job.sources}
    if len(kinds) > 1:
        raise ExportError("heads for targets of several kinds cannot be fitted in one script")
    return _FIT.format(
        arguments=", ".join(arguments),
        data="\n".join(data),
        head=expression(job.loaded.head, job.loaded.model),
        size=fit_head.BATCH,
        batch=batch,
        kind=".to(torch.uint8)" if kinds == {"labels"} else "",
        weights="WEIGHTS" if weighted else "None",
        more=more,
        metric="{data.metric}" if job.several else job.last.data.task.metric,
    )


MIX = dedent('''
    def mix(model, start, share):
        """Keep a share of what a stage learned; none of it where it was worse than what was there before."""
        with torch.no_grad():
            for name, tensor in everything(model).items():
                if tensor.is_floating_point() or not share:
                    tensor.copy_(torch.lerp(start[name], tensor, share) if share else start[name])


    def everything(model):
        """Weights and buffers, by name."""
        return dict(model.named_parameters()) | dict(model.named_buffers())
''').strip()
