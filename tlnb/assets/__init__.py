"""What ships with tlnb: the weights of ``convnet5`` and their model card, both written by ``train.py``."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).with_name("convnet5.safetensors")
MODEL_CARD = Path(__file__).with_name("MODEL_CARD.md")
