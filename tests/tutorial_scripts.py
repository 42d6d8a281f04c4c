"""Write the session of each tutorial as a script, run it where there is no tlnb, and compare.

    python -m tests.tutorial_scripts [NOTEBOOK...]

Each notebook runs in a process of its own. Whenever one of its sessions loads another network, and at the end, what
the session has trained is written with ``%tl_script`` and run. A line says whether the figures of all epochs and the
final weights are the same; the exit status is 1 where they are not, or a script was refused. This takes about twice
as long as the notebooks do.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from session_scripts import run_without_tlnb

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
CLEANS_UP = ("cleanup()", "rmtree(")


class Comparison:
    """Compares each session of a notebook with its script.

    Args:
        title: of the notebook.
    """

    def __init__(self, title: str):
        self.title, self.count, self.failed = title, 0, False
        self.sessions: list[Any] = []

    def watch(self) -> None:
        """From now on, look at a session before it loads another network."""
        from tlnb.session import Session

        load, comparison = Session.load, self

        def loads(session: Any, *arguments: Any, **options: Any) -> Any:
            comparison.compare(session)
            if all(known is not session for known in comparison.sessions):
                comparison.sessions.append(session)
            return load(session, *arguments, **options)

        Session.load = loads  # type: ignore[method-assign]

    def compare(self, session: Any) -> None:
        """Write and run the script of what a session has trained so far."""
        if session._loaded is None or not len(session.history):
            return
        self.count += 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.py"
            try:
                session.script(str(path))
                shown = run_without_tlnb(path)
                verdict = self._verdict(session, shown, Path(folder) / "train.trained.safetensors")
            except Exception as error:
                verdict = f"FAILED: {error}"
        self.failed = self.failed or "FAILED" in verdict
        stages, accuracy = len(session.history.stages), session.history[-1].accuracy
        print(
            f"{self.title}, session {self.count}: {stages} stages, {accuracy:.4f}; {verdict}", file=sys.stderr
        )

    @staticmethod
    def _verdict(session: Any, shown: str, path: Path) -> str:
        import torch
        from safetensors.torch import load_file

        # Epochs that were not kept are not in the script; "of 4" may be "of 2" there.
        found = [re.sub(r" of \d+:", ":", line) for line in shown.splitlines() if line.startswith("stage ")]
        known = [
            f"stage {r.stage}, epoch {r.epoch}: training loss {r.train_loss:.4f}, "
            f"validation loss {r.valid_loss:.4f}, {r.metric_name} {r.accuracy:.4f}"
            for r in session.history
        ]
        if not found or [line for line in known if line in found] != found:
            return f"FAILED: other figures\n  script  {found}\n  session {known}"
        theirs, ours = load_file(path), session.model.state_dict()
        same = [n for n, t in theirs.items() if ours[n].shape == t.shape]  # a head made since is another one
        apart = max(float((ours[n].double() - theirs[n].double()).abs().max()) for n in same)
        bits = all(torch.equal(ours[n], theirs[n]) for n in same)
        head = "" if len(same) == len(theirs) else " but for the head, which is another one now"
        return f"the same figures; weights {'bit-equal' if bits else f'within {apart:.0e}'}{head}"


def run_notebook(path: Path) -> bool:
    """Run a notebook's cells in this process and compare its sessions; whether all scripts agreed."""
    import nbformat
    from IPython.core.interactiveshell import InteractiveShell

    os.environ["TLNB_HOME"] = tempfile.mkdtemp()
    os.chdir(tempfile.mkdtemp())  # what a notebook writes beside it
    shell: Any = InteractiveShell.instance()
    comparison = Comparison(path.stem)
    comparison.watch()
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    last = next((i for i, text in enumerate(code) if any(word in text for word in CLEANS_UP)), len(code))
    for text in code[:last]:
        with redirect_stdout(io.StringIO()):
            answer = shell.run_cell(text, store_history=True)
        answer.raise_error()
    for session in comparison.sessions:
        comparison.compare(session)
    return not comparison.failed


def main(arguments: list[str]) -> int:
    """Each notebook in a process of its own."""
    if len(arguments) == 2 and arguments[0] == "--here":
        return 0 if run_notebook(Path(arguments[1])) else 1
    paths = [Path(name).resolve() for name in arguments] or sorted(NOTEBOOKS.glob("*.ipynb"))
    command = [sys.executable, "-m", "tests.tutorial_scripts", "--here"]
    root = NOTEBOOKS.parent
    codes = [subprocess.run([*command, str(path)], cwd=root, stdout=None).returncode for path in paths]
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
