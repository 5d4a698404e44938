"""Files of a store with tapes, brought online before they are read; of any other store they are there already."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from transfers.errors import Transient
from transfers.hosts import FileInfo, Host, Residency

FIRST_LOOK_S = 0.05
LONGEST_PAUSE_S = 10.0


def online(host: Host, paths: Sequence[str]) -> dict[str, bool]:
    """Whether each file can be read at once. One of which the store does not say so is left to who reads it."""
    if not host.stages or not paths:
        return dict.fromkeys(paths, True)
    seen = _residency(host, paths)
    return {path: path not in seen or not _waits(seen[path]) for path in paths}


def brought(
    host: Host, needs: Mapping[FileInfo, Sequence[str]], patience_s: float
) -> Iterator[tuple[FileInfo, Transient | None]]:
    """Each of these as soon as the files that it needs are online. Asked for at once, in the order of the tapes; what
    has not come when nothing came for `patience_s` is given with the reason."""
    left = dict(needs)
    asked = False
    pause, since = FIRST_LOOK_S, time.monotonic()
    while left:
        paths = sorted({path for wanted in left.values() for path in wanted}) if host.stages else []
        waits = {path: found for path, found in _residency(host, paths).items() if _waits(found)}
        ready = [info for info, wanted in left.items() if waits.keys().isdisjoint(wanted)]
        if not asked and waits:
            deque(host.stage(sorted(waits, key=lambda path: _on_tape(waits[path]))), 0)  # what is refused never comes
            asked = True
        for info in ready:
            del left[info]
            yield info, None
        if ready:
            pause, since = FIRST_LOOK_S, time.monotonic()
        elif left and time.monotonic() - since > patience_s:
            break
        elif left:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
    text = f"it is on tape, and was asked for; nothing came for {patience_s:.0f} s"
    for info in left:
        yield info, Transient(text, host=host.name, side="store", phase="recall", path=info.path)


def _residency(host: Host, paths: Sequence[str]) -> dict[str, Residency]:
    found = zip(paths, list(host.residency(paths)), strict=True) if paths else ()
    return {path: one for path, one in found if isinstance(one, Residency)}


def _waits(found: Residency) -> bool:
    return found.state in ("offline", "staging")


def _on_tape(found: Residency) -> tuple[str, int]:
    return found.volume or "", found.position or 0
