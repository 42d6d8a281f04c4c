"""The part of a script that trains: the stages as numbers, the order of batches, the loop, the evaluation."""

from __future__ import annotations

import re

from tlnb.engine.core.objectives import Classification, Regression, scored
from tlnb.engine.export.script import averaging, fitting
from tlnb.engine.export.script.chain import Chain
from tlnb.engine.export.script.guard import guard_lines, kinds_of
from tlnb.engine.export.script.heads import numbers_of, places_of
from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.refusals import recipe_of
from tlnb.engine.export.script.sounds import is_cut
from tlnb.engine.export.script.source import Source
from tlnb.engine.export.script.text import Code, literal, source_of
from tlnb.engine.network.head import is_auxiliary
from tlnb.engine.network.reading import is_of_transformers
from tlnb.engine.training import schedules
from tlnb.engine.training.optim import USUAL_MOMENTUM, USUAL_WEIGHT_DECAY
from tlnb.engine.training.schedules import SHAPES, one_cycle
from tlnb.engine.training.trainer import EVALUATION_BATCH
from tlnb.errors import ExportError

_ANSWER = '''def answer(network, batch):
    """The scores of a batch."""
    found = network(**batch) if isinstance(batch, dict) else network(batch)
    return found if isinstance(found, torch.Tensor) else found.logits'''


def called(job: Job, code: str) -> str:
    """Code of the training, where the network takes a dict, or answers with an object that has ``logits``."""
    if not (job.texts or is_of_transformers(job.loaded.model)):
        return code
    code = re.sub(r"\b(rest|forward|old)\((?=take|inputs|batch|laid_out|changed)", r"answer(\1, ", code)
    if job.texts:
        code = code.replace("batches(len(targets), ", "batches_by_length(lengths_of(samples), ")
    return f"{_ANSWER}\n\n\n{code}"


IN_LAYERS = '''def in_layers(name, numbers):
    """Whether the module or weight of this name is in one of these layers."""
    parts = [part for number in numbers for part in LAYERS[number]]
    return any(name == part or name.startswith(part + ".") for part in parts)'''

_FEATURES = '''def split_at(model, cut):
    """The network as a straight line of layers: what comes before a place, and the rest."""
    line = [{line}]
    part = nn.Sequential(*line[:cut])
    part = {prepare}.to(memory_format=torch.channels_last)  # a copy in test mode{folded}
    return part, nn.Sequential(*line[cut:])


@torch.inference_mode()
def features(part, samples<, data>):
    """What the frozen first part makes of each sample: computed once."""
    every = torch.arange(len(samples)).split(32)
    return torch.cat([part(inputs(samples, rows){close}) for rows in every])'''


_CROSSING = '''def crossing(part, batch):
    """What the frozen first part makes of a batch, in a form that can be trained on."""
    with torch.inference_mode():
        batch = part(batch{close})
    return batch.clone()'''


ALWAYS = ("text", "frozen", "epochs", "rate")
FIELDS: dict[str, tuple[str, object, str]] = {
    "text": ("str", None, "the line of the plan"),
    "frozen": ("tuple", None, "numbers of the layers that stay fixed"),
    "epochs": ("int", None, ""),
    "planned": ("int | None", None, "epochs that the schedule was made for, where it ended earlier"),
    "rate": ("float", None, "of the last layer, at its highest"),
    "decay": ("float", 1.0, "each earlier layer learns this many times slower"),
    "batch": ("int", None, "samples in a step"),
    "smoothing": ("float", 0.0, "of labels"),
    "optimizer": ("str", "adamw", ""),
    "schedule": ("str", "one-cycle", ""),
    "momentum": ("float", USUAL_MOMENTUM, ""),
    "weight_decay": ("float", None, ""),
    "frozen_norms": ("bool", False, "whether batch norm keeps its statistics everywhere"),
    "bfloat16": ("bool", False, "whether layers compute in bfloat16"),
    "micro": ("int | None", None, "samples that pass the network at a time"),
    "place": ("int", 0, "how many steps of the line are frozen and run once"),
    "channels_last": ("bool", True, "how the features lie in memory"),
    "data": ("SimpleNamespace", None, "what it learns from"),
    "parts": ("tuple", None, "data sets, each from which epoch to which, and batches of one epoch more"),
    "head": ("int", 0, "which head is on the network"),
    "keep": ("str | None", None, "the guard against forgetting, and its strength"),
    "blend": ("float | None", None, "how much of what it learned the body keeps, before the stage"),
    "init": ("str", "keep", "how the head begins: as it is, softly fitted or at zero"),
    "kind": ("str", "train", "train, or fit for a head that is fitted to convergence"),
    "average": ("str | None", None, "ema, or last:N epochs, whose mean weights it ends with"),
    "contrast": (
        "float | None",
        None,
        "temperature of a loss between the samples of a batch, in place of the task's",
    ),
    "by": ("str", "", "nearest for a head that is fitted to the means of the classes"),
    "adapted": ("tuple", (), "numbers of the layers whose weights stay while what is added to them trains"),
    "adapters": ("dict", {}, "for the names of weights, what is added to each"),
    "merged": ("bool", False, "whether that is added to the weights themselves after the stage"),
    "share": ("float", 1.0, "how much of what it learned the network keeps"),
    "moments": ("bool", False, "whether it begins with the moments of the optimizer before it"),
}
"""What a stage of a script may say: type, usual value, and a remark."""


class Fields:
    """The settings of the stages that are written; those that are usual in all stages are left out."""

    def __init__(self, job: Job, chain: Chain | None):
        self.heads = numbers_of(job.results)
        self.rows = [self._row(job, i, chain) for i in range(len(job.results))]
        known = [row["channels_last"] for row in self.rows if row["channels_last"] is not None]
        for row in self.rows:  # where nothing is a picture, it may be called either way
            row["channels_last"] = row["channels_last"] if row["channels_last"] is not None else all(known)
        self.layout = "mixed" if len(set(known)) > 1 else "last" if all(known) and known else "plain"
        shared = {key: self.rows[0][key] for key in ("batch", "weight_decay")}
        self.usual = {key: usual for key, (_, usual, _) in FIELDS.items()} | shared
        self.in_parts = any(len(parts) > 1 for parts in job.parts)
        left_out = {
            "data": self.in_parts or not job.several,
            "parts": not self.in_parts,
            "channels_last": self.layout != "mixed",
        }
        self.used = [
            key
            for key in FIELDS
            if key in ALWAYS or any(row[key] != self.usual[key] for row in self.rows)
            if not left_out.get(key)
        ]

    def __contains__(self, key: str) -> bool:
        return key in self.used

    def value(self, key: str) -> str:
        """How the code names a setting: the stage's own, or the number that all share."""
        return f"stage.{key}" if key in self.used else literal(self.usual[key])

    def _row(self, job: Job, index: int, chain: Chain | None) -> dict[str, object]:
        result = job.results[index]
        stage, recipe = result.stage, recipe_of(result)
        done = recipe.epochs
        decay = USUAL_WEIGHT_DECAY[stage.optimizer] if stage.weight_decay is None else stage.weight_decay
        return {
            "text": stage.text,
            "frozen": tuple(stage.frozen),
            "epochs": done,
            "planned": None if done == stage.epochs else stage.epochs,
            "rate": result.rate,
            "decay": float(stage.decay),
            "batch": recipe.batch,
            "smoothing": stage.smoothing,
            "optimizer": stage.optimizer,
            "schedule": stage.schedule,
            "momentum": USUAL_MOMENTUM if stage.momentum is None else stage.momentum,
            "weight_decay": decay,
            "frozen_norms": recipe.bn == "frozen",
            "bfloat16": recipe.bfloat16,
            "micro": stage.micro,
            "place": chain.starts[recipe.cut] if chain and recipe.cut else 0,
            "channels_last": recipe.channels_last if _is_picture(job, recipe.cut) else None,
            "data": _name(job.parts[index][0].source),
            "parts": tuple((_name(p.source), p.first, p.last, p.left) for p in job.parts[index]),
            "head": self.heads[index],
            "keep": stage.keep,
            "blend": recipe.blend,
            "init": stage.init,
            "kind": stage.kind,
            "average": stage.average,
            "contrast": stage.contrast,
            "by": stage.by,
            "adapted": tuple(index for index, _ in stage.adapted),
            "adapters": recipe.adapters,
            "merged": recipe.merged,
            "share": result.share,
            "moments": recipe.moments,
        }

    def code(self) -> str:
        """The dataclass and the list of stages."""
        lines = ["@dataclass", "class Stage:"]
        for key in self.used:
            kind, _, remark = FIELDS[key]
            lines.append(f"    {key}: {kind}" + (f"  # {remark}" if remark else ""))
        rows = ["".join(f"        {key}={literal(row[key])},\n" for key in self.used) for row in self.rows]
        return "\n".join([*lines, "", "", "STAGES = [", *(f"    Stage(\n{row}    )," for row in rows), "]"])


def _name(source: Source) -> Code:
    """One of several data sets as the code names it."""
    return Code(f"DATA[{source.place - 1}]")


def _is_picture(job: Job, cut: int) -> bool:
    of_input = job.loaded.input.shape if job.loaded.input else None
    shape = job.layers[cut - 1].shape if cut else of_input
    return shape is not None and len(shape) == 3


def features_code(job: Job, chain: Chain | None, fields: Fields, imports: set[str]) -> str:
    """How the frozen first part is computed once; empty where that cannot be said in plain code."""
    if chain is None or "place" not in fields:
        return ""
    augmented = _how_changed(job) != "none"
    cuts = [recipe.cut for recipe in job.recipes if recipe.cut]
    normed = any(chain.normed(cut) for cut in cuts)
    imports.add("from torch.fx.experimental.optimization import fuse" if normed else "import copy")
    image = len(job.loaded.input.shape) == 3 if job.loaded.input else False
    close = ".contiguous(memory_format=torch.channels_last)" if image else ""
    more = "\n\n\n" + _CROSSING.format(close=close) if augmented else ""
    return (
        _FEATURES.format(
            line=chain.code,
            folded=", batch norm folded in" if normed else "",
            prepare="fuse(part.eval())" if normed else "copy.deepcopy(part).eval()",
            close=close,
        )
        + more
    )


def loss_code(source: Source, fields: Fields) -> str:
    """The loss, and what a figure is."""
    task = source.data.task
    if isinstance(task, Regression):
        return _LOSS_VALUES
    weights = getattr(task, "weights", None)
    before = f"WEIGHTS = torch.tensor({list(weights)})\n\n\n" if weights else ""
    if source.kind == "labels":
        return before + _LOSS_LABELS.format(weights=", pos_weight=WEIGHTS" if weights else "")
    smooth = "smoothing" in fields
    return before + _LOSS_CLASSES.format(
        weights=", weight=WEIGHTS" if weights else "",
        argument=", smoothing=0.0" if smooth else "",
        used=", label_smoothing=smoothing" if smooth else "",
    )


_LOSS_CLASSES = '''def loss_of(scores, targets{argument}):
    return F.cross_entropy(scores, targets{weights}{used})


def figure_of(scores, targets):
    """Accuracy."""
    return (scores.argmax(1) == targets).sum().item() / len(targets)'''
_LOSS_LABELS = '''def loss_of(scores, targets, smoothing=0.0):
    goal = targets * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(scores, goal{weights})


def figure_of(scores, targets):
    """Mean average precision, over the labels that some sample has."""
    there = targets.any(0)
    return average_precision_score(targets[:, there].numpy(), scores[:, there].float().numpy())'''
_LOSS_VALUES = '''def loss_of(scores, targets, smoothing=0.0):
    return F.mse_loss(scores, targets)


def figure_of(scores, targets):
    """R²: the share of the variance that is explained, the mean over the values."""
    error = (scores.double() - targets.double()).square().sum(0)
    spread = targets.double().square().sum(0) - targets.double().sum(0).square() / len(targets)
    return (1 - error[spread > 0] / spread[spread > 0]).mean().item()'''


def training_code(job: Job, chain: Chain | None, fields: Fields) -> str:
    """``train_stage``, ``evaluate`` and ``main``."""
    parts = [_train_stage(job, chain, fields), _evaluate(job, fields), _main(job, fields)]
    if "share" in fields:
        parts.insert(1, fitting.MIX)
    if fitting.fits(job):
        parts.insert(1, _fit_stage(job, chain, fields))
    if fitting.needs_fit(job):
        parts.insert(0, fitting.head_code(job, _batch(fields), _form(fields)))
        parts.insert(0, fitting.solver_code(job))
    return "\n\n\n".join(parts)


def _train_stage(job: Job, chain: Chain | None, fields: Fields) -> str:
    lines = [f"def train_stage({', '.join(_arguments(job, fields))}):"]
    lines += ['    """Train what is not frozen; print a line an epoch."""']
    lines += ["    for name, parameter in model.named_parameters():"]
    learns = "not in_layers(name, stage.frozen)"
    if "adapted" in fields:
        learns = f"{learns} and (is_adapter(name) or not in_layers(name, stage.adapted))"
    lines += [f"        parameter.requires_grad_({learns})"]
    lines += _optimizer(job, fields)
    if "moments" in fields:
        lines += _MOMENTS_IN
    lines += ["    torch.manual_seed(seed_for(SEED, number))  # of dropout"]
    if fields.in_parts:
        lines.append("    for data, begin, end, left in stage.parts:")
    elif job.several:
        lines.append("    data = stage.data")
    body = [*_from_data(job, fields), *guard_lines(job)]
    take = _take(job, chain, fields, body)
    body += fitting.start_lines(job, _how_changed(job), _form(fields))
    if "average" in fields:
        lines += averaging.before_lines(job, "planned" in fields)
    body += _epochs(job, chain, fields, take)
    if "average" in fields:
        body += averaging.after_lines(job, fields.in_parts, _how_changed(job), take, "bfloat16" in fields)
    lines += [f"    {line}" for line in body] if fields.in_parts else body
    if "moments" in fields:
        lines += _MOMENTS_OUT
    norms, held = _NORMS if "frozen_norms" in fields else "", "stage.frozen"
    held += " + stage.adapted" if "adapted" in fields else ""
    return _SET_MODES.format(norms=norms, held=held) + "\n".join(lines)


_MOMENTS_IN = [
    "    for name, parameter in model.named_parameters():",
    "        if stage.moments and parameter.requires_grad and name in moments:",
    "            optimizer.state[parameter] = {key: t.clone() for key, t in moments[name].items()}",
]
_MOMENTS_OUT = [
    "    return {name: optimizer.state[p] for name, p in model.named_parameters() if p in optimizer.state}"
]


def _fit_stage(job: Job, chain: Chain | None, fields: Fields) -> str:
    where = "stage.data.load()" if job.several else "train, valid"
    lines = ["    data = stage.data"] if job.several else []
    lines.append(f"    (samples, targets), (valid_samples, valid_targets) = {where}")
    _take(job, chain, fields, lines, fitted=True)
    more = (", data" if job.several else "") + _more(fields)
    return fitting.stage_code(job, _arguments(job, fields, fitted=True), lines, more, _form(fields))


def _arguments(job: Job, fields: Fields, *, fitted: bool = False) -> list[str]:
    arguments = ["model", "stage", "number"]
    if fitted:
        return arguments if job.several else [*arguments, "train", "valid"]
    if kinds_of(job):
        arguments.append("old")
    if "moments" in fields:
        arguments.append("moments")
    return arguments if job.several else [*arguments, "train", "valid"]


def _from_data(job: Job, fields: Fields) -> list[str]:
    where = "data.load()" if job.several else "train, valid"
    lines = [f"    (samples, targets), (valid_samples, valid_targets) = {where}"]
    if not fields.in_parts:
        return [*lines, "    step = 0"]
    return [*lines, f"    step = begin * len(batches(len(targets), {fields.value('batch')}, 0))"]


def _epochs(job: Job, chain: Chain | None, fields: Fields, take: str) -> list[str]:
    """The loop over epochs."""
    planned = "(stage.planned or stage.epochs)" if "planned" in fields else "stage.epochs"
    ratio, parts = ' * group["ratio"]' if "decay" in fields else "", fields.in_parts
    rows = "order[: left if epoch == end else None]" if parts else "order"
    metric = "{data.metric}" if job.several else scored(job.last.data.task, None).metric
    more = (", data" if job.several else "") + _more(fields)
    return [
        f"    for epoch in range({'begin, end + (left > 0)' if parts else 'stage.epochs'}):",
        "        set_modes(model, stage)",
        "        total = 0.0",
        *_order(job, fields),
        f"        for rows in {rows}:",
        f"            rate = stage.rate * {_schedule(fields)}(step, len(order) * {planned})",
        "            for group in optimizer.param_groups:",
        f'                group["lr"] = rate{ratio}',
        *_batch_lines(job, chain, fields),
        *_step(job, fields, take),
        "            optimizer.step()",
        "            optimizer.zero_grad()",
        "            total += loss.detach() * len(rows)",
        "            step += 1",
        *(["            if average:", "                average.after_step(step)"] if "average" in fields else []),
        *(["        if epoch == end:", "            break  # other data was named here"] if parts else []),
        *(["        if average:", "            average.after_epoch(epoch + 1)"] if "average" in fields else []),
        f"        loss, figure = evaluate(model, rest, take, valid_samples, valid_targets{more})",
        '        print(f"stage {number}, epoch {epoch + 1} of {stage.epochs}: training loss "',
        '              f"{total.item() / len(targets):.4f}, validation loss {loss:.4f}, '
        f'{metric} {{figure:.4f}}")',
    ]  # fmt: skip


def _batch_lines(job: Job, chain: Chain | None, fields: Fields) -> list[str]:
    """Lines that make a batch of changed pictures."""
    how = _how_changed(job)
    if how == "none":
        return []
    lines = ["            batch = changed_inputs(samples, rows, number, epoch)"]
    if chain is not None and "place" in fields:
        lines += ["            if stage.place:", "                batch = crossing(first, batch)"]
    if how == "all":
        return lines
    lines = ["            if changed_inputs:", *(f"    {line}" for line in lines)]
    return [*lines, "            else:", "                batch = take(samples, rows)"]


def _how_changed(job: Job) -> str:
    """Whether ``all``, ``some`` or ``none`` of the data sets are changed at random."""
    changed = [source.changed for source in job.sources]
    return "all" if all(changed) else "some" if any(changed) else "none"


def _form(fields: Fields) -> str:
    return ", form" if fields.layout == "mixed" else ""


def _more(fields: Fields) -> str:
    return _form(fields) + (", stage.bfloat16" if "bfloat16" in fields else "")


_SET_MODES = '''def set_modes(model, stage):
    """Train mode, but test mode for frozen layers: batch norm keeps its statistics, dropout is off."""
    model.train()
    for name, module in model.named_modules():
        if name and in_layers(name, {held}):
            module.eval()
{norms}

'''
_NORMS = """        if stage.frozen_norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
"""


def _optimizer(job: Job, fields: Fields) -> list[str]:
    decay, momentum = fields.value("weight_decay"), fields.value("momentum")
    adamw = f"torch.optim.AdamW(groups, lr=0.0, betas=({momentum}, 0.999), weight_decay={decay}, fused=True)"
    sgd = f"torch.optim.SGD(groups, lr=0.0, momentum={momentum}, weight_decay={decay}, fused=True)"
    if "decay" in fields or kinds_of(job):  # a guard takes weight decay from layers of the body alone
        lines = ["    groups = []",
                 "    for layer in sorted(set(range(len(LAYERS))) - set(stage.frozen)):",
                 "        own = [p for name, p in model.named_parameters() if in_layers(name, [layer])]",
                 "        if own:",
                 '            groups.append({"params": own, "layer": layer})',
                 *(_RATIOS if "decay" in fields else [])]  # fmt: skip
    else:
        lines = ['    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]']
    if "optimizer" not in fields:
        return [*lines, f"    optimizer = {adamw}"]
    kinds = {row["optimizer"] for row in fields.rows}
    if kinds == {"sgd"}:
        return [*lines, f"    optimizer = {sgd}"]
    return [*lines, '    if stage.optimizer == "sgd":', f"        optimizer = {sgd}", "    else:",
            f"        optimizer = {adamw}"]  # fmt: skip


_RATIOS = [
    "    for group in groups:  # discriminative rates (Howard and Ruder 2018)",
    '        group["ratio"] = stage.decay ** (group["layer"] - groups[-1]["layer"])',
]


def _schedule(fields: Fields) -> str:
    kinds = {str(row["schedule"]) for row in fields.rows}
    return SHAPES[kinds.pop()].__name__ if len(kinds) == 1 else "SCHEDULES[stage.schedule]"


def schedules_code(fields: Fields) -> str:
    """The schedules that are used, as the product has them."""
    used = {row["schedule"] for row in fields.rows}
    shapes = {kind: shape for kind, shape in SHAPES.items() if kind in used}
    parts = [source_of(shape) for shape in shapes.values()]
    if one_cycle in shapes.values():
        names = ("WARM_UP", "START_FACTOR", "END_FACTOR")
        parts.insert(0, "\n".join(f"{name} = {getattr(schedules, name)!r}" for name in names))
    if used - {"constant"}:
        parts.append(source_of(schedules.between))
    if len(shapes) > 1:
        rows = ", ".join(f"{kind!r}: {shape.__name__}" for kind, shape in shapes.items())
        parts.append("SCHEDULES = {" + rows + "}")
    return "\n\n\n".join(parts)


_OF_TRAINING = {
    "none": ["        samples = features(first, samples<, data>)"],
    "some": ["        if not changed_inputs:", "            samples = features(first, samples<, data>)"],
    "all": [],
}


def _take(job: Job, chain: Chain | None, fields: Fields, lines: list[str], *, fitted: bool = False) -> str:
    """Add the lines that choose what passes the network; the expression for a batch of it."""
    lines.append("    rest, take = model, inputs")
    how = "none" if fitted else _how_changed(job)
    if chain is not None and "place" in fields:
        lines += [
            "    if stage.place:",
            "        first, rest = split_at(model, stage.place)",
            *_OF_TRAINING[how],
            "        valid_samples = features(first, valid_samples<, data>)",
            "        take = rows_of",
        ]
    if fields.layout == "mixed":
        lines.append("    form = torch.channels_last if stage.channels_last else torch.contiguous_format")
    return _batch(fields, "take(samples, rows)" if how == "none" else "batch")


def _batch(fields: Fields, taken: str = "take(samples, rows)") -> str:
    if not _lays_out(fields):
        return taken
    return f"laid_out({taken}{', form' if fields.layout == 'mixed' else ''})"


_ROWS_OF = '''def rows_of(features, rows):
    """What the frozen first part made of these samples."""
    return features[rows]'''
_LAID_OUT = '''def laid_out(batch{argument}):
    """{how}."""
    return batch.contiguous(memory_format={form}) if batch.dim() == 4 else batch'''
_FORMS = {
    "last": (
        "",
        "Pictures with channels last in memory, which convolutions read fastest",
        "torch.channels_last",
    ),
    "plain": ("", "Pictures in the usual order in memory, in which dropout draws", "torch.contiguous_format"),
    "mixed": (", form", "Pictures in one or the other order in memory; dropout draws in that order", "form"),
}


def layout_code(fields: Fields, with_features: bool) -> str:
    """How a batch lies in memory: it decides about the last bit of a convolution."""
    argument, how, form = _FORMS[fields.layout]
    laid = _LAID_OUT.format(argument=argument, how=how, form=form) if _lays_out(fields) else ""
    return "\n\n\n".join(filter(None, (_ROWS_OF if with_features else "", laid)))


def _lays_out(fields: Fields) -> bool:
    return fields.layout != "plain" or "place" in fields


_AUTOCAST = 'with torch.autocast("cpu", dtype=torch.bfloat16, enabled={}):'


def _order(job: Job, fields: Fields) -> list[str]:
    """Lines that draw the batches of an epoch; texts that are compared go by no length (see ``called``)."""
    order = f"        order = batches(len(targets), {fields.value('batch')}, SEED, number, epoch)"
    if not (job.texts and "contrast" in fields):
        return [order]
    mixed = order.replace("len(targets)", "targets.shape[0]")
    return ["        if stage.contrast:", f"    {mixed}", "        else:", f"    {order}"]


def _step(job: Job, fields: Fields, take: str) -> list[str]:
    smoothing = f", {fields.value('smoothing')}" if "smoothing" in fields else ""
    if "micro" in fields:
        raise ExportError("stages with micro batches cannot be written into a script")
    if job.loaded.side_heads:
        _check_side_heads(job)
    if job.recipe.step:
        return [
            f"            loss = training_step(model, {take}, targets[rows])",
            "            loss.backward()",
        ]
    before = [f"batch = {take}"] if kinds_of(job) else []
    take = "batch" if before else take
    body = [f"output = rest({take})"]
    if job.loaded.side_heads:
        body += ["scores, *others = output if isinstance(output, tuple) else (output,)",
                 f"loss = loss_of(scores, targets[rows]{smoothing})",
                 "for extra in others:  # classifiers that help in training alone (Szegedy et al. 2015)",
                 "    if extra is not None:",
                 f"        loss = loss + 0.3 * loss_of(extra, targets[rows]{smoothing})"]  # fmt: skip
    else:
        body = [f"loss = loss_of(rest({take}), targets[rows]{smoothing})"]
    if "contrast" in fields:
        body = [
            "if stage.contrast:",
            f"    loss = contrast_of(model, rest, {take}, targets[rows], stage.contrast)",
            "else:",
            *(f"    {line}" for line in body),
        ]
    if "bfloat16" in fields:
        body = [
            _AUTOCAST.format("stage.bfloat16"),
            *(f"    {b}" for b in body),
        ]
    if before:
        body = [*before, *body, "if guard:", "    loss = loss + guard(rows, rest, batch)"]
    return [*(f"            {line}" for line in body), "            loss.backward()"]


def _check_side_heads(job: Job) -> None:
    """Auxiliary classifiers that are frozen are left out of the loss, which the script does not do."""
    places = {layer.index for layer in job.layers if any(is_auxiliary(n) for n in layer.parameter_names)}
    if any(places & set(result.stage.frozen) for result in job.results):
        raise ExportError("stages with frozen auxiliary classifiers cannot be written into a script")


def _evaluate(job: Job, fields: Fields) -> str:
    more = (", form" if fields.layout == "mixed" else "") + (", bfloat16" if "bfloat16" in fields else "")
    run = [f"scores.append(rest({_batch(fields)}))"]
    if "bfloat16" in fields:
        run = [_AUTOCAST.format("bfloat16"), f"    {run[0]}"]
    tasks = [source.data.task for source in job.sources]
    weighted = any(isinstance(task, Classification) and task.weights for task in tasks)
    cut = any(map(is_cut, job.sources))
    count = [
        "    scores, targets = of_clips(torch.cat(scores), targets)",
        "    return loss_of(scores, targets).item(), figure_of(scores, targets)",
    ] if cut else [
        "        amount = WEIGHTS[targets[rows]].sum()",
        "        loss += loss_of(scores[-1].float(), targets[rows]) * amount",
        "        amounts += amount",
        "    return (loss / amounts).item(), figure_of(torch.cat(scores), targets)",
    ] if weighted else [
        "        loss += loss_of(scores[-1].float(), targets[rows]) * len(rows)",
        "    return loss.item() / len(targets), figure_of(torch.cat(scores), targets)",
    ]  # fmt: skip
    return "\n".join(
        [
            "@torch.no_grad()",
            f"def evaluate(model, rest, take, samples, targets<, data>{more}):",
            '    """Mean loss and figure, in test mode."""',
            "    model.eval()",
            "    scores = []" if cut else "    loss, scores = torch.zeros(()), []",
            *(
                ["    amounts = torch.zeros(())  # a batch counts by the class weights of its samples"]
                if weighted and not cut
                else []
            ),
            f"    for rows in torch.arange(len(targets)).split({EVALUATION_BATCH}):",
            *(f"        {line}" for line in run),
            *count,
        ]
    )


def _main(job: Job, fields: Fields) -> str:
    heads, moments = len(set(fields.heads)) > 1, "moments" in fields
    places = ", ".join(places_of(job))
    lines = [
        "def main():",
        f"    model{', old' if job.old else ''} = load_network()",
        *([] if job.several else ["    train, valid = load_data()"]),
        *([f"    heads = {{0: [{places}]}}"] if heads else []),
        *(["    moments = {}"] if moments else []),
        "    for number, stage in enumerate(STAGES, start=1):",
        "        print(stage.text)",
        *(["        put_head(model, stage.head, heads)"] if heads else []),
    ]
    if "blend" in fields:
        lines += ["        if stage.blend is not None:", "            blend(model, old, stage.blend)"]
    if job.adapts:
        lines.append("        attach(model, stage.adapters)")
    answer = "moments = " if moments else ""
    call = f"{answer}train_stage({', '.join(_arguments(job, fields))})"
    if "share" in fields:
        lines.append("        start = {name: tensor.clone() for name, tensor in everything(model).items()}")
    if fitting.fits(job):
        fit = f"fit_stage({', '.join(_arguments(job, fields, fitted=True))})"
        lines += [
            '        if stage.kind == "fit":',
            f"            {fit}",
            "        else:",
            f"            {call}",
        ]
    else:
        lines.append(f"        {call}")
    if "share" in fields:
        lines += ["        if stage.share < 1:", "            mix(model, start, stage.share)"]
    if "merged" in fields:
        lines += ["        if stage.merged:", "            merge(model)"]
    if job.blend is not None:
        lines.append(f"    blend(model, old, {job.blend!r})")
    lines += ["    model.eval()",
              f'    save_file(model.state_dict(), HERE / "{job.stem}.trained.safetensors")',
              "", "", 'if __name__ == "__main__":', "    main()"]  # fmt: skip
    return "\n".join(lines)
