"""How far a restore has come, put into words from what its database says."""

from __future__ import annotations

import time
from collections.abc import Sequence

from stager.counts import counted
from stager.database import Database
from stager.drawing import size
from stager.restoring import proving, standing
from stager.restoring.amounts import Amount
from stager.restoring.progress import Pace, Progress
from stager.restoring.proving import Since
from stager.restoring.standing import Standing

RECALLS_S = 5.0  # between two counts of the recalls that are waited for


class Told:
    """Tells the progress of some revisions: of what is read again, and of what comes."""

    def __init__(self, database: Database, ids: Sequence[int], since: Since, progress: Progress) -> None:
        self._database = database
        self._ids = ids
        self._since = since
        self._progress = progress
        self._reading = Pace()
        self._coming = Pace()
        self._due: Amount | None = None  # of what is in place, to be proven again
        self._proven = Amount()
        self._recalls = 0
        self._counted = -1e9

    def proven(self, lot: Amount) -> None:
        """A lot of what was in place was proven again, or was found not to be as it was."""
        if self._due is None:
            self._due = proving.amount(self._database, self._ids, self._since) + lot
        self._proven += lot
        self._reading.see(time.monotonic(), self._proven.bytes)
        total = max(self._due.bytes, self._proven.bytes)
        percent = 100.0 * self._proven.bytes / total if total else 100.0
        left = self._reading.left_s(total - self._proven.bytes)
        said = f"{counted(self._proven.files, 'file')}, {_flow(self._proven.bytes, total, self._reading)}"
        self._progress.tell("reading again", percent, said, seconds=left or None)

    def stands(self, stands: Standing, moved: int | None) -> None:
        """How it stands now; `moved`: the bytes that this process has moved, where it is the one that does."""
        now, done, total = time.monotonic(), stands.of("done"), stands.total
        self._coming.see(now, done.bytes if moved is None else moved)
        if now - self._counted >= RECALLS_S:
            self._counted, self._recalls = now, standing.recalls(self._database, self._ids)
        words = [f"{done.files} of {counted(total.files, 'file')}", _flow(done.bytes, total.bytes, self._coming)]
        if self._recalls:
            words.append(f"{counted(self._recalls, 'file')} of the store on the way from tape")
        words += stands.hindered[:1]
        left = self._coming.left_s(stands.open.bytes)
        self._progress.tell("in place", stands.percent, ", ".join(words), seconds=left or None)


def _flow(done: int, total: int, pace: Pace) -> str:
    """`1.2 GB of 3 GB, 45 MB/s`."""
    rate = pace.per_s
    return f"{size(done)} of {size(total)}" + (f", {size(rate)}/s" if rate else "")
