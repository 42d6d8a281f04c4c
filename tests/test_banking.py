"""A real sentence encoder on real questions: all-MiniLM-L6-v2 on Banking77.

The network lies in ``TLNB_MODELS``, or in ``shared/models`` beside the clone, the questions in ``TLNB_DATA`` or
``shared/data``; where either is not there, these tests are skipped.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared"
MINILM = Path(os.environ.get("TLNB_MODELS") or SHARED / "models") / "minilm"
BANKING = Path(os.environ.get("TLNB_DATA") or SHARED / "data") / "banking77"

pytestmark = [
    pytest.mark.skipif(
        not (MINILM / "config.json").is_file(), reason="all-MiniLM-L6-v2 is not here (TLNB_MODELS)"
    ),
    pytest.mark.skipif(not BANKING.is_dir(), reason="Banking77 is not here (TLNB_DATA)"),
]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """All that there is to learn from, and ten questions of each class to measure on."""
    (tmp_path / "train.csv").symlink_to((BANKING / "train.csv").absolute())
    seen: Counter[str] = Counter()
    with (
        open(BANKING / "test.csv", encoding="utf-8") as old,
        open(tmp_path / "test.csv", "w", encoding="utf-8") as new,
    ):
        table = csv.DictWriter(new, ["text", "category"], extrasaction="ignore")
        table.writeheader()
        for row in csv.DictReader(old):
            seen[row["category"]] += 1
            if seen[row["category"]] <= 10:
                table.writerow(row)
    return tmp_path


def test_ten_questions_a_class_teach_the_head_alone(questions: Path):
    from tlnb import Session

    tl = Session([])
    tl.load(str(MINILM))
    assert [row.name for row in tl.layers][:2] == ["body.embeddings", "body.encoder.layer.0"]
    assert len(tl.layers) == 8
    tl.data(str(questions), text="text", label="category", per_class=10)
    assert (len(tl.view.data.classes), len(tl.view.data.valid)) == (77, 770)
    run = tl.run("fit head")
    assert run.stages[0].digest_before == run.stages[0].digest_after
    assert run.stages[-1].records[-1].accuracy >= 0.82  # 84.5 %


def test_what_is_kept_is_what_the_network_gives_whatever_stands_beside_a_text():
    from tlnb.engine.core.tree import call
    from tlnb.engine.data.load import load_data
    from tlnb.engine.models.catalogue import load_model
    from tlnb.engine.network.layers import find_layers

    loaded = load_model(str(MINILM))
    texts = load_data(str(BANKING / "test.csv"), text="text", label="category").valid.all()[:12]
    layers = find_layers(loaded.model, loaded.input.example(), loaded.head)
    prefix, tail = layers.graph.split(4)
    body, seen = loaded.model.body, []
    torch.manual_seed(0)
    torch.nn.init.normal_(loaded.model.head.weight)
    with torch.no_grad():
        for part in (texts, texts[::-1], texts[3:5]):
            x = loaded.preprocess.inputs(part)
            answers = call(body, x).last_hidden_state[:, 0]
            torch.testing.assert_close(
                call(tail, call(prefix, x)), call(loaded.model, x), rtol=1e-4, atol=1e-5
            )
            seen.append(dict(zip(part, answers, strict=True)))
    for text, answer in seen[1].items():
        torch.testing.assert_close(answer, seen[0][text], rtol=1e-4, atol=1e-4)
    for text, answer in seen[2].items():
        torch.testing.assert_close(answer, seen[0][text], rtol=1e-4, atol=1e-4)
