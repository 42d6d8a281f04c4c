"""The package from outside: its public names, its version, its papers, and what it carries."""

from __future__ import annotations

import importlib.metadata
import re
import types
from importlib import resources
from pathlib import Path

import pytest

import tlnb

ROOT = Path(__file__).parents[1]


def test_public_names_are_those_exported() -> None:
    own = {
        name
        for name, value in vars(tlnb).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", "").startswith("tlnb")
    }
    assert own | {"Session", "__version__"} == set(tlnb.__all__)
    assert tlnb.__all__ == sorted(tlnb.__all__)


@pytest.mark.parametrize("name", tlnb.__all__)
def test_each_exported_name_is_there(name: str) -> None:
    assert getattr(tlnb, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'tlnb' has no attribute 'Sesion'"):
        tlnb.Sesion  # noqa: B018


def test_version_is_semantic_and_the_one_installed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", tlnb.__version__)
    assert importlib.metadata.version("tlnb") == tlnb.__version__


def test_changelog_has_this_version_with_its_date_and_before_it_only_what_is_not_released() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    newest, *_ = [heading for heading in headings if heading != "Unreleased"]
    found = re.fullmatch(rf"{re.escape(tlnb.__version__)} – (\d{{4}}-\d\d-\d\d)", newest)
    assert found is not None
    assert f"\ndate-released: {found[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "Unreleased" not in headings[1:]


def test_who_cites_it_cites_this_version() -> None:
    told = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert told is not None
    assert told[1] == tlnb.__version__


def test_licence_is_the_one_declared() -> None:
    assert importlib.metadata.metadata("tlnb")["License-Expression"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8").splitlines()[1]


def test_carries_the_default_model_and_its_card() -> None:
    assets = resources.files("tlnb") / "assets"
    weights = (assets / "convnet5.safetensors").read_bytes()
    assert 1e6 < len(weights) <= 5e6
    card = (assets / "MODEL_CARD.md").read_text(encoding="utf-8")
    for topic in ("Data", "Training", "Accuracy"):
        assert f"\n## {topic}\n" in card
