"""What parts of a data set are called: folders, words in a column, splits and keys."""

from __future__ import annotations

TRAIN = ("train", "training", "trainval", "tr")
VALID = ("val", "valid", "validation", "dev", "eval", "va")
TEST = ("test", "testing", "te")
HELD = (*VALID, *TEST)
EVERY = (*TRAIN, *HELD)
