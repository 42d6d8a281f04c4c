"""The part of a script that changes training pictures at random, in the way that a seed says."""

from __future__ import annotations

from tlnb.engine.export.script.source import Source

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


def augment_code(source: Source, imports: set[str], *, files: bool) -> str:
    """``changed_inputs``; empty for no changes.

    Args:
        source: whose training pictures are changed.
        imports: what the code needs is added.
        files: whether samples are files.
    """
    if not source.changed:
        return ""
    imports.add("from torchvision.transforms import v2")
    picture = "read_picture(samples[index], whole=True)" if files else "samples[index]"
    transforms = _CODE[source.preset].format(size=tuple(source.preprocess.size))
    return _CHANGED.format(transforms=transforms, picture=picture)
