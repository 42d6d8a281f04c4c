"""Every block of code in the README and on the pages of the site that says ``python`` or ``ipython`` runs.

The blocks of a page run in one shell, in their order, in a folder that holds what the pages speak of. Blocks that
speak of something else (a network to be downloaded, a kernel that has died) say ``text``.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import struct
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import nbformat
import pytest
from PIL import Image
from texts import network_folder, rows, table

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "COMING_FROM.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = {"large.md": "transformers", "sound.md": "soundfile", "text.md": "transformers"}
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "ipython", "sh", "text", "toml", ""}


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and code of each block of a page."""
    return _BLOCK.findall(path.read_text(encoding="utf-8"))


def running(path: Path) -> list[str]:
    """The blocks that run."""
    return [code for language, code in blocks(path) if language in ("python", "ipython")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos of three colours, three tones as sounds, and texts with a network for them."""
    for number, (name, colour) in enumerate({"dahlia": "red", "leaves": "green", "sky": "blue"}.items()):
        for folder in (tmp_path / "photos" / name, tmp_path / "calls" / name):
            folder.mkdir(parents=True)
        for i in range(10):
            picture = Image.new("RGB", (40, 40), colour)
            picture.paste("white", (2 * i, 3 * i, 2 * i + 9, 3 * i + 9))
            picture.save(tmp_path / "photos" / name / f"{i:02}.png")
            tone = [math.sin(0.2 * (number + 1) * t + i) for t in range(4000)]
            with wave.open(str(tmp_path / "calls" / name / f"{i:02}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(struct.pack("<4000h", *(int(9000 * x) for x in tone)))
    table(tmp_path / "reviews.csv", rows(), ("review", "opinion"))
    if importlib.util.find_spec("transformers") is not None:
        network_folder(tmp_path / "net", pooling="pooling_mode_mean_tokens")
    (tmp_path / "new photos").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), ("red", "green", "blue")[i]).save(tmp_path / "new photos" / f"{i}.png")
    monkeypatch.setenv("TLNB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if running(p) and p != README], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path, place: Path, shell: Any) -> None:
    pytest.importorskip(NEEDS.get(page.name, "torch"))
    for code in running(page):
        shell.run(code)


def test_the_blocks_of_the_readme_are_cells_of_the_quickstart() -> None:
    """That notebook is run, so they are."""
    notebook = nbformat.read(ROOT / "notebooks" / "01_quickstart.ipynb", as_version=4)
    cells = {cell.source for cell in notebook.cells}
    assert {code.rstrip("\n") for code in running(README)} <= cells


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    unknown = {language for language, _ in blocks(page)} - LANGUAGES
    assert not unknown
    silent = [code for language, code in blocks(page) if not language and "tl_" in code]
    assert not silent, "a block with magics says ipython where it runs, and text where it does not"


def test_the_site_names_every_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = set(re.findall(r"[\w/.-]+\.(?:md|ipynb)\b", nav))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    pages |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/*.ipynb")}
    assert pages <= named


def described(path: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """A class or function that a page of the reference shows, and its public methods."""
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    yield path, found
    if isinstance(found, type):
        for own, value in vars(found).items():
            if not own.startswith("_") and isinstance(value, FunctionType):
                yield f"{path}.{own}", value


def test_the_reference_describes_arguments_that_there_are() -> None:
    """What the strict build would refuse."""
    paths = [
        path
        for page in sorted((ROOT / "docs" / "reference").glob("*.md"))
        for path in re.findall(r"^::: (\S+\.[A-Z]\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(paths) > 10
    for name, call in (pair for path in paths for pair in described(path)):
        said = re.search(r"^Args:\n((?: .*\n?)+)", inspect.getdoc(call) or "", re.MULTILINE)
        told = set(re.findall(r"^    (\S[^:]*):", said[1], re.MULTILINE)) if said else set()
        assert told <= set(inspect.signature(call).parameters), name


def script(name: str) -> Any:
    """A Python file of the site, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("tutorial", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_tutorial_opens_in_colab_where_the_repository_is_known(tutorial: Path) -> None:
    place = tutorial.relative_to(ROOT).as_posix()
    page = SimpleNamespace(file=SimpleNamespace(src_uri=place))
    hook, files = script("site_hook"), SimpleNamespace(get_file_from_path=lambda path: None)

    def shown(address: str) -> str:
        return hook.on_page_content("<h1>Title</h1>", page, {"extra": {"repository": address}}, files)

    wanted = f'href="https://colab.research.google.com/github/me/net-1.0/blob/main/{place}"'
    for address in ("https://github.com/me/net-1.0", "https://github.com/me/net-1.0.git"):
        assert shown(address).count(wanted) == 1
        assert shown(address).startswith("<h1>Title</h1>")
    for address in ("", "https://example.org/me/net", 'https://github.com/me/"><script>'):
        assert shown(address) == "<h1>Title</h1>"


def test_bars_in_the_code_of_a_table_lose_their_backslash() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="REFERENCE.md", src_dir=str(ROOT)))
    row, code = "| `--to a\\|b` | one of `a\\|b` |", r"`re.split('a\|b')`"
    shown = script("site_hook").on_page_markdown(f"{row}\n\n{code}\n", page, {}, SimpleNamespace())
    assert shown == f"| `--to a|b` | one of `a|b` |\n\n{code}\n"


def test_the_drawings_are_those_that_are_drawn() -> None:
    draw = script("draw")
    for name, made in (("main-job", draw.main_job()), ("cut", draw.cut()), ("advice", draw.advice())):
        assert (ROOT / "docs" / "pictures" / f"{name}.svg").read_text(encoding="utf-8") == made
