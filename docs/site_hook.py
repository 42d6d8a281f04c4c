"""A hook of MkDocs: pages that stand elsewhere in the repository are pages of the site, and links fit both places.

Every link is written as it holds in the repository, from the file that it stands in; so it works on the page of a code
host. On the site, what stands in ``docs/`` comes to the top, and all the rest keeps its path.

The project knows no address of its own. Where ``extra: repository`` of ``mkdocs.yml`` names a public repository on
GitHub, each tutorial has a link that opens it in Colab, and the foot of each page one to the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:  # the hook is loaded by a test where there may be no MkDocs
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
ELSEWHERE = (
    "CHANGELOG.md", "COMING_FROM.md", "CONTRIBUTING.md", "REFERENCE.md", "notebooks/*.ipynb",
    "tests/benchmarks/*/RESULTS.md", "tlnb/assets/MODEL_CARD.md",
)  # fmt: skip
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
# Code in a row of a table: a code host wants its bars escaped, MkDocs would show the backslash.
_ROW = re.compile(r"`[^`\n]*`(?=.*\|$)", re.MULTILINE)
_GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
COLAB = "https://colab.research.google.com/github"


def on_config(config: Any) -> Any:
    """Put the repository's address at the foot of each page, where it is known."""
    if address := config["extra"].get("repository"):
        config["extra"]["social"] = [
            {"icon": "fontawesome/brands/git-alt", "link": address, "name": "Repository"}
        ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Take in what stands elsewhere."""
    from mkdocs.structure.files import File

    for pattern in ELSEWHERE:
        for path in sorted(ROOT.glob(pattern)):
            place = path.relative_to(ROOT).as_posix()
            files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


on_files.mkdocs_priority = 100  # type: ignore[attr-defined]  # before the plugin that turns notebooks into pages


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the links of the repository into those of the site."""
    own = page.file.src_uri
    here = posixpath.join("docs", own) if Path(page.file.src_dir or "") != ROOT else own
    parts = _CODE.split(_ROW.sub(lambda row: row[0].replace("\\|", "|"), markdown))
    for number in range(0, len(parts), 2):  # the others are code
        parts[number] = _LINK.sub(lambda match: _link(match, here, own, files), parts[number])
    return "".join(parts)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Turn links from a notebook to other pages into those of the site, and begin with one to Colab."""
    own = page.file.src_uri
    if not own.endswith(".ipynb"):
        return html

    def link(match: re.Match[str]) -> str:
        found = files.get_file_from_path(posixpath.normpath(posixpath.join(posixpath.dirname(own), match[1])))
        return (
            match[0] if found is None or found is page.file else f'href="{found.url_relative_to(page.file)}"'
        )

    html = re.sub(r'href="([^":#]+\.(?:ipynb|md))"', link, html)
    head, end, rest = html.partition("</h1>")
    return head + end + colab(own, config["extra"].get("repository")) + rest


def colab(place: str, address: str | None) -> str:
    """A line with a link that opens a notebook in Colab; nothing where no repository on GitHub is named.

    Args:
        place: the notebook's path in the repository.
        address: of the repository, or None.
    """
    found = _GITHUB.fullmatch(address or "")
    if found is None:
        return ""
    return (
        f'<p class="colab"><a href="{COLAB}/{found[1]}/blob/main/{quote(place)}" target="_blank" rel="noopener">'
        "Open in Colab</a>, and run <code>%pip install tlnb</code> there first</p>"
    )


def _link(match: re.Match[str], here: str, own: str, files: Files) -> str:
    sign, words, target, anchor = match.groups()
    if "://" in target or target.startswith(("mailto:", "/")):
        return match[0]
    place = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    wanted = place.removeprefix("docs/")
    if files.get_file_from_path(wanted) is None and (ROOT / place).exists():
        return f"{words} (`{place}`)" if words.strip("`") != place else words  # a file that is no page
    return f"{sign}[{words}]({posixpath.relpath(wanted, posixpath.dirname(own) or '.')}{anchor or ''})"
