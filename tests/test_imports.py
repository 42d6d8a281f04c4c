"""Imports go one way (magics, widgets → session → engine), and what is imported is what is declared."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tlnb"
FRONT_ENDS = {
    "IPython", "anywidget", "ipykernel", "ipywidgets", "fastprogress", "tlnb.magics", "tlnb.widgets",
}  # fmt: skip
# What the files of one part never import. The part is a folder or a file.
FORBIDDEN = {
    "errors.py": {"tlnb", "torch", *FRONT_ENDS},
    "engine": {"tlnb.session", "tlnb.display.progress", "traitlets", *FRONT_ENDS},
    "assets": {"tlnb.session", "tlnb.display.progress", *FRONT_ENDS},
    "tracking": {"tlnb.session", *FRONT_ENDS},
    "cluster": {"tlnb.session", *FRONT_ENDS},
    "session": FRONT_ENDS,
    "display/progress.py": {"tlnb.session", "tlnb.magics", "tlnb.widgets", "ipywidgets"},
}
NEVER_PRINT = ("engine", "tracking", "cluster", "session", "magics", "errors.py")
# The name that is imported -> the name that is installed.
DEPENDENCIES = {
    "IPython": "ipython",
    "PIL": "pillow",
    "anywidget": "anywidget",
    "fastprogress": "fastprogress",
    "fsspec": "fsspec",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "torchvision": "torchvision",
    "traitlets": "traitlets",
}
# Imported inside a function that says in words what to install, or does without.
OPTIONAL = {
    "timm",
    "transformers",
    "tokenizers",
    "pyarrow",
    "soundfile",
    "huggingface_hub",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "litert_torch",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "pandas",
    "mlflow",
    "trackio",
    "umap",
    "ray",
    "wandb",
}


def files(part: str) -> list[Path]:
    path = PACKAGE / part
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert found, f"{part} is empty"
    return found


def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """Dotted names that a file imports; with ``everywhere=False`` only those that run when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def within(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_go_one_way(part: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(part)
        for name in imports(path)
        if within(name, FORBIDDEN[part])
    }
    assert not wrong


@pytest.mark.parametrize("part", NEVER_PRINT)
def test_never_prints(part: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files(part)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong


def test_dependencies_are_those_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=!~ \[;]", line)[0] for line in project["dependencies"]}
    assert declared == set(DEPENDENCIES.values())


def test_dependencies_are_those_imported() -> None:
    imported = {name.split(".")[0] for path in PACKAGE.rglob("*.py") for name in imports(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"tlnb"} - OPTIONAL
    assert foreign == set(DEPENDENCIES)


@pytest.mark.parametrize("module", ["tlnb", "tlnb.errors", "tlnb.magics"])
def test_import_is_quick_without_torch(module: str) -> None:
    heavy = {"torch", "torchvision", "sklearn", "matplotlib"}
    code = f"import sys, {module}; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_first_command_waits_for_nothing_that_few_need() -> None:
    """What only some commands need is imported by these: it takes seconds."""
    heavy = {"scipy", "sklearn", "matplotlib", "pandas", *OPTIONAL}
    code = f"import sys, tlnb.session, tlnb.magics.magics; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").glob("benchmarks/**/*.py")), ids=lambda path: path.stem
)
def test_benchmarks_use_what_is_there(path: Path) -> None:
    """They run on demand only, so a name that has moved would go unnoticed."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tlnb"):
            module = importlib.import_module(str(node.module))
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), name
