"""Run notebooks and store them clean: ``python nbs_tests/refresh.py NOTEBOOK...``

Each gets a fresh kernel of this Python, in the notebook's own folder, as under nbval. Metadata that changes
with every run (times, versions, the state of widgets) is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

CHECK = "check"  # tag of a cell that tests and does not teach: a page shows it folded away
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def refresh(path: Path) -> None:
    """Run one notebook and write it back. An error that no tag expects is raised, and nothing is written."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    NotebookClient(
        notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": path.parent}}
    ).execute()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        if CHECK in cell.metadata.get("tags", []):
            cell.metadata.jupyter = NotebookNode(source_hidden=True)
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        refresh(Path(argument).resolve())
