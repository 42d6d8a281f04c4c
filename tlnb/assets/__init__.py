"""What ships with tlnb: the weights of ``convnet5`` and their model card, both written by ``train.py``."""

from __future__ import annotations

from pathlib import Path

MODEL_CARD = Path(__file__).with_name("MODEL_CARD.md")
