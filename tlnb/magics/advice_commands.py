"""The commands that measure how much to transfer, and what is forgotten on the way."""

from __future__ import annotations

from tlnb.magics.command import Argument, Command, Option
from tlnb.magics.training_commands import NO_CACHE
from tlnb.magics.values import number, share, text, whole, word_or_object

ADVISE = Command(
    "tl_advise",
    "advise",
    "Say how much to transfer: data size against similarity, measured, and a plan that can be run.",
    options=(Option("images", whole(10), "how many training images are looked at, at most", "2000"),),
    details="""What it takes is said before it runs, from one timed batch, and the answer says about how long the plan
takes here. One pass through the network gives every layer's features; they stay in the cache for training.
Similarity is read off the BatchNorm layers, which remember means and spreads of the old data; a linear probe,
LogME and H-score say what each layer's features are worth for the new classes. The answer names its evidence,
and says where that is thin.""",
    examples=(
        ("advice = %tl_advise", "advice.cell, advice.kept, advice.plan and advice.figures to go on with"),
        ("%tl_advise --images 500", "sooner, from fewer images"),
    ),
)

SWEEP = Command(
    "tl_sweep",
    "sweep",
    "Measure accuracy against the number of layers kept, frozen and fine-tuned, over seeds.",
    options=(
        Option("epochs", whole(1), "of each run", "5"),
        Option("seeds", whole(1), "runs of each kind", "3"),
        Option("images", whole(10), "training images at most, and as many to measure on", "400"),
        Option("lr", number(0), "learning rate of all runs", "1e-3"),
        Option("blocks", None, "keep all weights and train one block alone, each in turn"),
    ),
    details="""After Yosinski et al. 2014: the first k layers keep their weights, all behind them start at
random; k = 0 is the floor. Everything runs on copies, so the network of the session stays as it is. After the
stop button the same line goes on where it stopped.""",
    examples=(
        ("%tl_sweep", "table and plot"),
        ("%tl_sweep --seeds 1 --epochs 2", "a first look"),
        ("%tl_sweep --blocks", "which block alone is worth training (Lee et al. 2023)"),
    ),
)

CV = Command(
    "tl_cv",
    "cross_validate",
    "Train a plan once for each fold of the samples, and measure it on those that it never saw.",
    arguments=(
        Argument("folds", whole(2), "how many; 5 where nothing is said", required=False),
        Argument(
            "plan",
            text("a plan in quotes, or in the cell", "PLAN"),
            "a stage a line; else what the session trained on this data, the advised plan, or the default one",
            required=False,
        ),
    ),
    options=(
        Option("repeats", whole(1), "how often all samples are dealt into folds anew", "1"),
        Option("keep-best", None, "end each stage with the weights of its best epoch"),
        NO_CACHE,
        Option("continue", None, "go on with the folds that were stopped (in Python: tl.go_on_with_folds())"),
    ),
    switches=(("continue", "go_on_with_folds"),),
    cell="cross_validate",
    body="the plan: a stage a line",
    body_as="plan",
    details="""Training and validation samples take part; the test part stays under seal. Groups and equal samples are
in one fold, and each class is in every fold as far as that goes; with --time each fold is newer than what it learned
from. Each fold starts from the network as it was before training, with a new head, on a copy: the session stays as it
is. A frozen first part runs once over all samples and serves every fold.

The interval of the mean is corrected for the samples that folds share (Nadeau and Bengio 2003). The answer holds each
sample's out-of-fold answer: .positions, .labels, .predictions, .probabilities, .fold, and .frame() as a table of
pandas. After the stop button the same line goes on, or --continue.""",
    examples=(
        ("%tl_cv 5", "the plan that was trained last, over five folds"),
        ("cv = %tl_cv 10 --repeats 3", "cv.mean, cv.spread, cv.interval and cv.frame() to go on with"),
        ('%tl_cv 5 "freeze body  epochs 3  lr 1e-2"', "another plan"),
        ("%%tl_cv 5\nfit head\nunfreeze -3:   epochs 2   init soft", "a plan of several stages"),
        ("%tl_cv --continue", "after the stop button"),
    ),
)

FORGET = Command(
    "tl_forget",
    "forgetting",
    "Measure what the network still knows of its old task, and how far each layer has moved.",
    options=(
        Option(
            "source",
            word_or_object("glyphs, a folder, a CSV or $name", "SOURCE", source="data", files=True),
            "data of the old task; its validation part is measured on",
            "what was named before; glyphs for convnet5",
        ),
    ),
    details="""The head that came with the weights is kept, and answers for the old task on the body as it is
now. Without old data the drift of each layer's features is shown: CKA with the old network, 1 where nothing
moved.""",
    examples=(
        ("%tl_forget --source glyphs", "letters in fonts that convnet5 was not trained on"),
        ("%tl_forget", "the old data that was named, or drift alone"),
    ),
)

BLEND = Command(
    "tl_blend",
    "blend",
    "Set the body between what it was before training (0) and what it is after (1).",
    arguments=(
        Argument("a", share(), "how much of the new; nothing to see the curve alone", required=False),
    ),
    options=(
        Option(
            "between",
            word_or_object("two points of the history, such as 1,2", "N,M"),
            "blend two other points: 0 is before training, k is after stage k",
            "before training and now",
        ),
    ),
    details="""Weights and buffers of the body are averaged (WiSE-FT, Wortsman et al. 2022); the head stays the
new one. The curve shows accuracy on the new task and, where old data is known, on the old one. Every later blend
is between the same two ends, until the body is trained again.""",
    examples=(
        ("%tl_blend 0.5", "halfway"),
        ("%tl_blend 1", "what training gave, bit for bit"),
        ("%tl_blend", "the curve"),
        ("%tl_blend 0.5 --between 1,2", "halfway between what stages 1 and 2 left"),
    ),
)
