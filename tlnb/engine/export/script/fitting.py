"""The part of a script that fits a head: the very code that the session fitted it with."""

from __future__ import annotations

import inspect
from textwrap import dedent

from tlnb.engine.core.objectives import scored
from tlnb.engine.export.script.chain import expression
from tlnb.engine.export.script.heads import hears
from tlnb.engine.export.script.job import Job
from tlnb.engine.training import contrast, fit_head, layer_fit, linear_fit
from tlnb.engine.training.stage import FIT
from tlnb.errors import ExportError

_HEAD = '''def fit_head(model, rest, take, samples, targets{form}, strength=None{by}):
    """Fit the last layer of the head to convergence on what enters it; how, in words."""
    layer = [m for m in {head}.modules() if isinstance(m, ({kinds}))][-1]
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, entering: seen.append(as_vectors(entering[0], layer)))
    model.eval()
    with torch.no_grad():
        for rows in torch.arange(len(targets)).split({size}):
            rest({batch})
    handle.remove()
{cases}    found = fit_linear(torch.cat(seen), targets{kind}, len(layer.bias), {weights}, strength)
    with torch.no_grad():
        layer.weight.copy_(found["weight"].reshape(layer.weight.shape))
        layer.bias.copy_(found["bias"])
    return f"fitted with strength {{found['strength']:g}}"'''
_REMEMBER = """    if isinstance(layer, Neighbours):
        layer.remember(torch.cat(seen), targets)
        return f"fitted by keeping {len(targets)} samples"
"""
_ALL_LAYERS = """    if isinstance({head}, AllLayers):
        found = fit_layers(torch.cat(seen), {head}.features, targets{kind}, len(layer.bias), {weights}, strength)
        with torch.no_grad():
            layer.weight.copy_(found["weight"])
            layer.bias.copy_(found["bias"])
        count, layers = len(found["kept"]), len({head}.taps) + 1
        return f"fitted to {{count:,}} of {{layer.in_features:,}} features of {{layers}} layers"
"""
_NEAREST = """    if by == "nearest":
        found = fit_nearest(torch.cat(seen), targets, len(layer.bias))
        with torch.no_grad():
            layer.weight.copy_(found["weight"].reshape(layer.weight.shape))
            layer.bias.copy_(found["bias"])
        return "fitted to the means of the classes"
"""
_FIT = '''def fit_stage({arguments}):
    """Fit the head, with all else as it is; print what comes of it."""
{data}
    how = fit_head(model, rest, take, samples, targets{form}{by})
    loss, figure = evaluate(model, rest, take, valid_samples, valid_targets{more})
    print(f"stage {{number}}, {{how}}: validation loss {{loss:.4f}}, "
          f"{metric} {{figure:.4f}}")'''


def needs_fit(job: Job) -> bool:
    """Whether a head is fitted, as a stage of its own or before one."""
    return fits(job) or any(result.stage.init == "soft" for result in job.results)


def fits(job: Job) -> bool:
    """Whether a stage fitted a head."""
    return any(result.stage.kind == FIT for result in job.results)


def solver_code(job: Job) -> str:
    """``fit_linear`` and what it needs, ``fit_layers`` too where a head of all layers is fitted."""
    source = inspect.getsource(linear_fit)
    return (
        source[source.index("STRENGTHS = ") :].rstrip()
        + "\n\n\n"
        + inspect.getsource(fit_head.as_vectors).rstrip()
        + (_layer_code() if hears_all(job) else "")
    )


def hears_all(job: Job) -> bool:
    """Whether a stage had a head of all layers."""
    return any(map(hears, _codes(job)))


def _layer_code() -> str:
    source = inspect.getsource(layer_fit)
    return "\n\n\n" + source[source.index("SHARES = ") :].rstrip()


def head_code(job: Job, batch: str, form: str) -> str:
    """``fit_head``.

    Args:
        job: what was done.
        batch: what takes a batch of rows.
        form: a further argument, for how pictures lie in memory.

    Raises:
        ExportError: class weights with several data sets, or targets of several kinds.
    """
    weighted = [source for source in job.sources if getattr(source.data.task, "weights", None)]
    if weighted and job.several:
        raise ExportError(
            "a head that was fitted with class weights, and several data sets, are not one script"
        )
    kinds = {source.kind for source in job.sources}
    if len(kinds) > 1:
        raise ExportError("heads for targets of several kinds cannot be fitted in one script")
    neighbours = _remembers(job)
    head = expression(job.loaded.head, job.loaded.model)
    kind = ".to(torch.uint8)" if kinds == {"labels"} else ""
    weights = "WEIGHTS" if weighted else "None"
    layers = _ALL_LAYERS.format(head=head, kind=kind, weights=weights) if hears_all(job) else ""
    return _HEAD.format(
        by=', by=""' if job.any("by") else "",
        kinds=_kinds(job),
        cases=(_REMEMBER if neighbours else "") + (_NEAREST if job.any("by") else "") + layers,
        head=head,
        size=fit_head.BATCH,
        batch=batch,
        form=form,
        kind=kind,
        weights=weights,
    )


def stage_code(job: Job, arguments: list[str], data: list[str], more: str, form: str) -> str:
    """``fit_stage``.

    Args:
        job: what was done.
        arguments: of the function.
        data: lines that read the data and set ``rest`` and ``take``.
        more: further arguments of ``evaluate``.
        form: see :func:`head_code`.
    """
    metric = "{data.metric}" if job.several else scored(job.last.data.task, None).metric
    return _FIT.format(
        arguments=", ".join(arguments), data="\n".join(data), more=more, metric=metric, form=form,
        by=", by=stage.by" if job.any("by") else "",
    )  # fmt: skip


def contrast_code(job: Job) -> str:
    """``contrastive_loss``, and what gives it the features; empty where no stage compares samples."""
    if not job.any("contrast"):
        return ""
    head = expression(job.loaded.head, job.loaded.model)
    vectors = "" if needs_fit(job) else inspect.getsource(fit_head.as_vectors).rstrip() + "\n\n\n"
    return (
        vectors
        + inspect.getsource(contrast.contrastive_loss).rstrip()
        + "\n\n\n"
        + _CONTRAST.format(head=head, kinds=_kinds(job))
    )


_CONTRAST = '''def contrast_of(model, rest, batch, targets, temperature):
    """The contrastive loss of what enters the last layer of the head."""
    layer = [m for m in {head}.modules() if isinstance(m, ({kinds}))][-1]
    seen = []
    handle = layer.register_forward_pre_hook(lambda module, entering: seen.append(entering[0]))
    rest(batch)
    handle.remove()
    return contrastive_loss(as_vectors(seen[0], layer), targets, temperature)'''


def _remembers(job: Job) -> bool:
    """Whether a head keeps samples."""
    return any("Neighbours(" in str(head) for head in _codes(job))


def _kinds(job: Job) -> str:
    """The classes that the last layer of a head may have."""
    return "nn.Linear, nn.Conv2d" + (", Neighbours" if _remembers(job) else "")


def _codes(job: Job) -> list[str | None]:
    """The code that makes each head."""
    return [code for recipe in job.recipes if recipe.head is not None for code in recipe.head.code]


def start_lines(job: Job, changed: str, form: str) -> list[str]:
    """Lines of ``train_stage`` that give the head its start, behind those that set ``rest`` and ``take``.

    Raises:
        ExportError: pictures that change at random in a stage whose head is fitted before it.
    """
    inits = {result.stage.init for result in job.results}
    lines = []
    if "soft" in inits:
        if changed != "none":
            raise ExportError("init soft with pictures that change at random cannot be written into a script")
        lines += ['    if stage.init == "soft":',
                  f"        fit_head(model, rest, take, samples, targets{form}, strength={fit_head.SOFT})"]  # fmt: skip
    if "zero" in inits:
        head = expression(job.loaded.head, job.loaded.model)
        lines += ['    if stage.init == "zero":', "        with torch.no_grad():",
                  f"            layer = [m for m in {head}.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]",
                  "            layer.weight.zero_()", "            layer.bias.zero_()"]  # fmt: skip
    return lines


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
