"""The text of the model card, with the figures that a training run measured."""

from __future__ import annotations

from dataclasses import dataclass

from tlnb.engine.data.glyphs import CLASSES, HELD_OUT_FONTS, TRAIN_FONTS


@dataclass(frozen=True)
class Figures:
    """What one training run measured.

    Attributes:
        images: glyphs drawn and trained on, each once.
        epochs: how many lots they were drawn in.
        seconds: wall time of training and drawing.
        threads: of torch, on the CPU.
        seed: that it all follows from.
        seen: accuracy in percent on new glyphs of the training fonts.
        unseen: accuracy in percent on glyphs of the held-out fonts.
        valid: number of glyphs that each accuracy was measured on.
        mean: of pixels between 0 and 1.
        std: of pixels between 0 and 1.
        parameters: numbers that were learnt.
    """

    images: int
    epochs: int
    seconds: float
    threads: int
    seed: int
    seen: float
    unseen: float
    valid: int
    mean: float
    std: float
    parameters: int


_CARD = """\
# Model card: convnet5, version {version}

Written by `python -m tlnb.assets.train`; the figures are those of the run that made the weights beside it.

| | |
|---|---|
| Architecture | five 3×3 convolutions (32, 64, 128, 128, 128 channels) with batch norm and ReLU, max \
pooling after the 1st, 2nd and 4th; three linear layers (256, 256, {count}) with dropout 0.3 between them |
| Parameters | {f.parameters:,} |
| Input | N×1×32×32, one grey channel, bright strokes on a dark ground, the glyph filling the image |
| Normalisation | pixel values 0 to 1, minus {f.mean}, divided by {f.std} |
| Output | {count} logits |
| Classes | {classes} |
| File | safetensors, float32; metadata: `model`, `version`, `classes`, `preprocess`, `licence` |
| Licence | Apache-2.0 |

## Data

Letters A–Z and a–z, drawn when needed by `tlnb.engine.data.glyphs` from fonts that come with matplotlib; no
digits, no photographs, nothing about people. Each is stretched to the image and warped (turn, slant,
narrowing, elastic), drawn as an outline made thinner or fatter or as a pen line, in two cases of three seen
through an 8×8 to 16×16 grid, and changed in contrast, ground and noise. A pair that differs by size alone
(`Cc`, `Oo`, ...) and `Il` are one class each, since every glyph is scaled to its image.

- Training fonts ({train_count}): {train}.
- Held out, whole families ({held_count}): {held}.

## Training

{f.images:,} glyphs in {f.epochs} lots, none seen twice; cross-entropy, AdamW, one-cycle rate, batch 128, seed
{f.seed}. It took {f.seconds:.0f} s on a CPU with torch at {f.threads} thread{plural}.

## Accuracy

{f.valid:,} glyphs each, drawn with seeds that training does not use and as strongly distorted as in training:

| fonts | accuracy |
|---|---|
| of training | {f.seen:.1f} % |
| unseen | {f.unseen:.1f} % |

## Intended use

A small trained network for learning and testing transfer learning: its convolutions have features for
strokes that move well to other handwriting-like pictures, such as scikit-learn's digits, within a minute on a
CPU. It is not meant for reading text in documents. It knows printed Latin letters without accents; other
scripts, dark strokes on a light ground, colour and pictures with several characters are outside what it has
seen.
"""


def write_card(figures: Figures, version: str) -> str:
    """The card as Markdown."""
    return _CARD.format(
        f=figures,
        version=version,
        count=len(CLASSES),
        classes=", ".join(CLASSES),
        train=", ".join(TRAIN_FONTS),
        train_count=len(TRAIN_FONTS),
        held=", ".join(HELD_OUT_FONTS),
        held_count=len(HELD_OUT_FONTS),
        plural="" if figures.threads == 1 else "s",
    )
