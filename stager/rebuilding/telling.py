"""What a pass over a store tells, line by line and in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from transfers.errors import SourceCorrupt, TransferError

ADDED, MENDED, NOTE, UNKNOWN, TROUBLE = "added", "mended", "note", "unknown", "trouble"


class Told(NamedTuple):
    """What was found about one file of the store, and done: `what` is added, mended, note, unknown or trouble."""

    path: str
    what: str
    text: str


@dataclass(slots=True)
class Counts:
    """What there was and what was done, in numbers. `agree`: bundles of which nothing had to be done or said."""

    bundles: int = 0
    agree: int = 0
    members: int = 0
    members_added: int = 0
    indexes_written: int = 0
    files_known: int = 0
    files_added: int = 0
    files_unknown: int = 0
    troubles: int = 0


def sentence(error: TransferError) -> str:
    """Why a bundle or file could not be believed, read or mended."""
    if isinstance(error, SourceCorrupt):
        return f"it cannot be believed: {error.text}"
    advice = "look again later" if error.kind == "transient" else error.advice
    return f"it could not be read or mended: {error.text} - {error.kind}; {advice}"
