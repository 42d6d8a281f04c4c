"""What is tried in environments of its own: ``nox -l`` lists it, and the workflows call the same.

The lowest versions are those that ``pyproject.toml`` names; they are read from there.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests-3.13", "docs", "dist"]
nox.options.default_venv_backend = "venv"

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
LOWEST_PYTHON, NEWEST_PYTHON = PYTHONS[0], PYTHONS[-2]  # the newest for which every library has wheels
PINNED = ("hf", "lab", "onnx", "sound", "timm")  # extras whose lowest versions are tried too
BESIDE = ("datasets",)  # of the tests' own libraries: newer ones want newer versions of those above
FAST = ("-m", "not slow", "-q")
MOST_BYTES = 6_000_000  # of the wheel


def lowest() -> list[str]:
    """A constraint a line: each library that tlnb needs or offers, at the lowest version that it admits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in PINNED for line in extras.get(extra, ()))]
    wanted += [line for line in extras["test"] if line.startswith(BESIDE)]
    found = {}
    for line in wanted:
        name, version = re.fullmatch(r"([\w.-]+)>=([\d.]+)", line).groups()  # type: ignore[union-attr]
        found[name] = f"{name}=={version}" if version.count(".") > 1 else f"{name}=={version}.*"
    return sorted(found.values())


@nox.session(python=NEWEST_PYTHON)
def lint(session: nox.Session) -> None:
    """Style and types."""
    session.install(".[test]")
    session.run("ruff", "check", "--no-cache", ".")
    session.run("ruff", "format", "--no-cache", "--check", ".")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The lane for daily work; ``nox -s tests-3.13 -- -m ''`` runs everything."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", *(session.posargs or FAST))


@nox.session(name="lowest", python=LOWEST_PYTHON)
def lowest_versions(session: nox.Session) -> None:
    """The lane for daily work on the lowest versions of everything."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lowest()) + "\n", encoding="utf-8")
    session.install(".[test]", "--constraint", str(constraints))
    session.run("python", "-m", "pytest", *(session.posargs or FAST))


@nox.session(python=NEWEST_PYTHON)
def newest(session: nox.Session) -> None:
    """Everything on the newest versions of everything; ``-- --pre`` takes releases to come too."""
    early = ["--pre"] if "--pre" in session.posargs else []
    session.install("--upgrade", "--upgrade-strategy", "eager", *early, ".[test]")
    session.run("python", "-m", "pytest", *(arg for arg in session.posargs if arg != "--pre"))


@nox.session(python=NEWEST_PYTHON)
def trackers(session: nox.Session) -> None:
    """A real run of each tracker of experiments, and the numbers that it gives back."""
    session.install(".[test,mlflow,tensorboard,trackio,wandb]")
    session.run("python", "-m", "pytest", "-n0", "-q", "tests/session/test_tracking.py")


@nox.session(python=NEWEST_PYTHON)
def docs(session: nox.Session) -> None:
    """The site, strictly, and every link on it."""
    session.install("mkdocs-jupyter>=0.26", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0")
    place = Path(session.create_tmp()) / "site"
    session.run("mkdocs", "build", "--strict", "--site-dir", str(place), env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "docs/check_links.py", str(place))


@nox.session(python=NEWEST_PYTHON)
def dist(session: nox.Session) -> None:
    """Wheel and source, as they would be released; posargs name the folder."""
    session.install("build", "twine", "check-wheel-contents")
    place = Path(session.posargs[0] if session.posargs else session.create_tmp()) / "dist"
    for old in place.glob("tlnb-*"):
        old.unlink()
    session.run("python", "-m", "build", "--outdir", str(place))
    files = sorted(map(str, place.glob("tlnb-*")))
    session.run("twine", "check", "--strict", *files)
    [wheel] = place.glob("*.whl")
    session.run("check-wheel-contents", str(wheel))
    if wheel.stat().st_size > MOST_BYTES:
        session.error(f"the wheel has {wheel.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
