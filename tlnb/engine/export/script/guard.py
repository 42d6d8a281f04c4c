"""The part of a script that holds a network near to what it was: guards against forgetting, and blends."""

from __future__ import annotations

from tlnb.engine.export.script.job import Job
from tlnb.engine.export.script.text import literal
from tlnb.errors import ExportError

_HEAD = '''HEAD = {head}  # what is not of the body


def body_of(network):
    """Weights and buffers outside the head, by name."""
    return {{n: t for n, t in network.state_dict().items() if not n.startswith(HEAD + ".")}}'''

_ANCHOR = '''def anchor(strength, model, old, optimizer{argument}):
    """{what}, in place of weight decay."""
    start, pairs = body_of(old), []
    for name, now in model.named_parameters():
        if now.requires_grad and name in start:
            pairs.append((now, start[name]{each}))
    held = {{id(pair[0]) for pair in pairs}}
    for group in optimizer.param_groups:
        if all(id(parameter) in held for parameter in group["params"]):
            group["weight_decay"] = 0.0

    def pull(rows, forward, batch):
        parts = [{term} for {names} in pairs]
        return strength / 2 * torch.stack(parts).sum() if parts else 0.0

    return pull'''
_L2SP = {
    "argument": "",
    "what": "L2-SP: strength / 2 times the squared distance from the old weights (Li et al. 2018)",
    "each": "",
    "names": "now, before",
    "term": "(now - before).square().sum()",
}
_EWC = {
    "argument": ", importance",
    "what": "EWC: the squared distance from the old weights, each by its importance (Kirkpatrick et al. 2017)",
    "each": ", importance[name]",
    "names": "now, before, c",
    "term": "(c * (now - before).square()).sum()",
}

_DISTILLATION = '''def distillation(strength, model, old, samples<, data>):
    """Learning without forgetting: what the old head says shall stay as it was (Li and Hoiem 2016)."""
    with torch.no_grad():
        every = torch.arange(len(samples)).split(128)
        goal = (torch.cat([old({inputs}).float() for rows in every]) / 2).softmax(1)
    head = old.get_submodule(HEAD)
    first = next(m for m in model.get_submodule(HEAD).modules() if not list(m.children()))

    def pull(rows, forward, batch):
        seen, modes = [], [(m, m.training) for m in (*model.modules(), *forward.modules())]
        for module, _ in modes:
            module.training = False
        hook = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        forward(batch)
        hook.remove()
        for module, training in modes:
            module.training = training
        now = (head(seen[0]).float() / 2).log_softmax(1)
        return strength * 4.0 * F.kl_div(now, goal[rows], reduction="batchmean")

    return pull'''

_BLEND = '''@torch.no_grad()
def blend(model, old, share):
    """Set the body between what it was (0) and what it is (1) (WiSE-FT, Wortsman et al. 2022)."""
    start = body_of(old)
    for name, now in body_of(model).items():
        if now.is_floating_point():
            now.copy_(torch.lerp(start[name], now, share))'''

_MAKE = {
    "l2sp": "anchor(strength, model, old, optimizer)",
    "ewc": "anchor(strength, model, old, optimizer, IMPORTANCE)",
    "lwf": "distillation(strength, model, old, samples<, data>)",
}


def kinds_of(job: Job) -> list[str]:
    """The guards that stages have."""
    found = {str(result.stage.keep).partition(":")[0] for result in job.results if result.stage.keep}
    return [kind for kind in _MAKE if kind in found]


def guard_code(job: Job, imports: set[str]) -> str:
    """What guards and blends need; empty where there are none.

    Raises:
        ExportError: guards that one script cannot hold.
    """
    if not job.old:
        return ""
    kinds = kinds_of(job)
    _check(job, kinds)
    parts = [_HEAD.format(head=literal(job.loaded.head))]
    if "l2sp" in kinds:
        parts.append(_ANCHOR.format(**_L2SP))
    if "ewc" in kinds:
        name = f"{job.stem}.importance.safetensors"
        job.files[name] = {n: t.cpu().contiguous() for n, t in job.importance().items()}
        imports.add("from safetensors.torch import load_file")
        parts += [f"IMPORTANCE = load_file(HERE / {literal(name)})", _ANCHOR.format(**_EWC)]
    if "lwf" in kinds:
        changed = job.sources[0].changed
        inputs = "changed_inputs(samples, rows, 0, 0)" if changed else "inputs(samples, rows)"
        parts.append(_DISTILLATION.format(inputs=inputs))
    return "\n\n\n".join([*parts, *([_BLEND] if job.blends else [])])


def _check(job: Job, kinds: list[str]) -> None:
    for result, parts in zip(job.results, job.parts, strict=True):
        if result.stage.keep and len(parts) > 1:
            raise ExportError(
                f"stage {result.number} went on with other data under a guard, which a script cannot hold"
            )
    if {"l2sp", "ewc"} <= set(kinds):
        raise ExportError("stages with l2sp and with ewc cannot be written into one script")
    if "lwf" in kinds and len({source.changed for source in job.sources}) > 1:
        raise ExportError("stages with and without random changes, one with lwf, are not one script")


def guard_lines(job: Job) -> list[str]:
    """Lines that make the guard of a stage, before what it learns from becomes features."""
    kinds = kinds_of(job)
    if not kinds:
        return []
    lines = ["    guard = None"]
    for kind in kinds:
        lines += [f'    if stage.keep and stage.keep.startswith("{kind}:"):',
                  '        strength = float(stage.keep.partition(":")[2])',
                  f"        guard = {_MAKE[kind]}"]  # fmt: skip
    return lines
