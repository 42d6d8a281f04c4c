"""The part of a script that changes training pictures at random, in the way that a seed says."""

from __future__ import annotations

from tlnb.engine.data.augment import NONE
from tlnb.engine.export.script.job import Job
from tlnb.errors import ExportError

_CODE = {
    "light": """    v2.RandomAffine(
        8, translate=(0.06, 0.06), scale=(0.92, 1.08), interpolation=v2.InterpolationMode.BILINEAR
    ),
    v2.CenterCrop({size}),
""",
    "standard": """    v2.RandomResizedCrop({size}, scale=(0.35, 1.0), antialias=True),
    v2.RandomHorizontalFlip(),
    v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
""",
    "strong": """    v2.RandomResizedCrop({size}, scale=(0.2, 1.0), antialias=True),
    v2.RandomHorizontalFlip(),
    v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR),
    v2.RandomErasing(p=0.25),
""",
}
_CHANGED = '''CHANGES = v2.Compose([
{transforms}])


def changed_inputs(samples, indices, stage, epoch):
    """Network input for training: pictures under changes that follow from seed, stage, epoch and picture."""
    pictures = []
    for index in indices.tolist():
        with torch.random.fork_rng(devices=[]):  # dropout has a stream of its own
            torch.manual_seed(seed_for(SEED, stage, epoch, index))
            pictures.append(CHANGES({picture}))
    return normalised(torch.stack(pictures))'''


def preset_of(job: Job) -> str:
    """The preset that all stages train under; ``none`` for the pictures as they are.

    Raises:
        ExportError: stages under different ones, kept views, or a transform of the user's own.
    """
    presets = {str(result.setup["augment"]) for result in job.results}
    if len(presets) > 1:
        raise ExportError(f"stages under different changes ({', '.join(sorted(presets))}) are not one script")
    preset = presets.pop()
    if preset != NONE and preset not in _CODE:
        raise ExportError(f"{preset} cannot be written into a script; a preset can: {', '.join(_CODE)}")
    if preset != NONE and any(result.stage.views for result in job.results):
        raise ExportError("views that are kept cannot be written into a script")
    return preset


def augment_code(job: Job, preset: str, imports: set[str], *, files: bool) -> str:
    """``changed_inputs``; empty for no changes.

    Args:
        job: what was done.
        preset: see :func:`preset_of`.
        imports: what the code needs is added.
        files: whether samples are files.
    """
    if preset == NONE:
        return ""
    imports.add("from torchvision.transforms import v2")
    picture = "read_picture(samples[index], whole=True)" if files else "samples[index]"
    return _CHANGED.format(transforms=_CODE[preset].format(size=tuple(job.preprocess.size)), picture=picture)
