"""A script as what a command answers: shown as code, written to a file with what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tlnb.display.tables import printable
from tlnb.engine.checkpoint.file import reason_of, whole_files
from tlnb.engine.export.own_files import SCRIPT, check, check_module_name
from tlnb.errors import ExportError


class Script:
    """A plain PyTorch script.

    Attributes:
        text: the code.
        files: what has to lie beside it: file name to tensors or text.
        path: where it was written; None while it is only shown.
    """

    def __init__(self, text: str, files: Mapping[str, Mapping[str, Tensor] | str]):
        self.text, self.files = text, files
        self.path: Path | None = None

    def write(self, path: Path) -> None:
        """Write the script and the files beside it.

        Raises:
            ExportError: the place cannot be written, something else stands there, or the name is a module's.
        """
        check([path, *(path.with_name(name) for name in self.files)], path, SCRIPT)
        check_module_name(path)
        try:
            with whole_files(path.parent, first=path.name) as place:
                for name, content in self.files.items():
                    if isinstance(content, str):
                        (place / name).write_text(content, encoding="utf-8")
                    else:
                        save_file(dict(content), place / name)
                (place / path.name).write_text(self.text, encoding="utf-8")
        except (OSError, SafetensorError, UnicodeError) as error:
            raise ExportError(f"cannot write {printable(str(path))}: {reason_of(error)}") from None
        self.path = path

    @property
    def summary(self) -> str:
        """One line: where it is, and what lies beside it."""
        count = len(self.text.splitlines())
        if self.path is None:
            return f"{count} lines; %tl_script FILE writes them, with what they read"
        beside = f", beside it {', '.join(sorted(self.files))}" if self.files else ""
        return f"{count} lines in {printable(str(self.path))}{beside}; run: python {self.path.name}"

    def __repr__(self) -> str:
        return self.summary if self.path is not None else self.text

    def _repr_html_(self) -> str:
        code = f"<pre>{escape(self.text)}</pre>"
        return f"<details><summary>{escape(self.summary)}</summary>{code}</details>"
