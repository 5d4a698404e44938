"""Whether copies would be lost together. Pure.

Two that lie on one file system would, under whatever names and by whichever hosts: so would hard links. A host that
cannot tell its file systems apart (SFTP) says nothing of that, and what lies there is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stager.config import LocalHost, StoreHost
from stager.evicting.judging import Other


class Option(NamedTuple):
    """A copy that might be counted, and what it would be lost with."""

    other: Other
    system: str
    store: bool
    cost: int = 0  # of proving it: those that cost less are asked first


def cost_of(described: LocalHost) -> int:
    """What it costs to read a host's files again: disks here are least, then those behind SSH, then services."""
    if isinstance(described, StoreHost) and described.driver in ("command", "s3"):
        return 2
    return int(described.by_ssh)


def choose(options: Sequence[Option], least: int) -> list[Option] | None:
    """The `least` copies that are to be proven, a mass store's first, no two of which lie on one file system or at one
    host; None where there are not so many."""
    options = sorted(options, key=lambda option: option.cost)
    first = next((option for option in options if option.store), None)
    if first is None:
        return None
    chosen = [first]
    for option in options:
        if len(chosen) >= least:
            break
        if all(option.system != one.system and option.other.host != one.other.host for one in chosen):
            chosen.append(option)
    return chosen if len(chosen) >= least else None
