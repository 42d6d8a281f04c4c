"""Where independent pieces of work run: the seam behind which a cluster may stand.

A sweep, folds and the pass of a frozen part are each many pieces that do not depend on each other. They are described
as a job that can be sent elsewhere; whoever has workers runs it there, and everybody else runs the pieces one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch


class Job(Protocol):
    """Work in independent pieces. It is pickled, so it holds nothing of this process alone."""

    def arrive(self, device: torch.device, folder: Path | None) -> None:
        """Called once in each process that takes pieces of it.

        Args:
            device: where the pieces run there.
            folder: of the session's kept features, where that process sees it; else None.
        """

    def run(self, item: Any) -> Any:
        """Do one piece; what it gives is pickled."""


class Workers(Protocol):
    """Processes that take pieces of jobs.

    Attributes:
        count: how many pieces run at once.
    """

    count: int

    def each(
        self, job: Job, items: Sequence[Any], check: Callable[[], None]
    ) -> Generator[tuple[int, Any], None, None]:
        """Do all pieces; the number of each and what it gave, as they end, in any order.

        A piece is begun again elsewhere where the process that had it dies. Closing the iterator drops what is under
        way, and frees the processes.

        Args:
            job: the work.
            items: what :meth:`Job.run` is given, one a piece.
            check: called several times a second; what it raises ends the work.

        Raises:
            NotReady: the job cannot be sent, or the workers are gone.
            TlnbError: what a piece raised.
        """
