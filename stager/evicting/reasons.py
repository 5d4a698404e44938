"""Why a copy stays where it is, and what is told of those that stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

MOST_NAMED = 3  # files of one reason that are named


class Why(StrEnum):
    """Why a copy is not evicted; the value is what people are told."""

    PINNED = "a manifest with `pin = true` keeps it"
    KEPT = "a manifest that is not transient brought it"
    NEEDED = "an item that is not done needs it as its source"
    AWAITED = "an item that is not done is to bring it there"
    UNTOLD = "its group is not whole yet, or no pipeline has taken the trigger of it over"
    PIECES = "of the pieces of its focal plane, which go together, not all are named or may go"
    TROUBLED = "it was found missing or corrupt: `stager verify` tells"
    GONE = "it is listed no more, as another eviction took it meanwhile"
    SHARED = "it is a copy of another host too, of which the root is the same"
    LEAVING = "it is on its way out already"
    FEW = "too few other copies of it are known"
    NO_STORE = "no copy of it is known at a mass store"
    UNTELLABLE = "its host cannot tell on which file system it lies"
    TOGETHER = "too few of its other copies lie on file systems of their own"
    UNPROVEN = "too few of its other copies could be proven now"
    CHANGED = "it is not as it was proven"
    LINKED = "it is one file with another copy that is known, so no room would come of it"
    UNMOVED = "it could not be moved into quarantine"


class Refusal(NamedTuple):
    """Why this one stays, with what there is to say of it alone."""

    why: Why
    detail: str = ""


@dataclass(slots=True)
class Tally:
    """How many copies stay for one reason; some of them are named."""

    files: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, paths: Iterable[str], size: int, detail: str) -> None:
        named = list(paths)
        self.files += len(named)
        self.bytes += size
        if len(self.examples) < MOST_NAMED:
            self.examples.append(f"{named[0]}: {detail}" if detail else named[0])
