"""Looking at hosts: whether each can be used, what it is like, and what a small verified transfer there achieves."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

from stager.durations import duration
from stager.opening import Hosts, remembered
from transfers.copying import land_bytes
from transfers.errors import CorruptedOnTheWay, Refused, TransferError
from transfers.hosts import UNKNOWN, Clock, Host, Want

FOLDER = ".stager"  # where a sample lands: in a folder that is there, so that none is left
EPOCH = 8146636  # of its part, so that one that a crash left is known
SAMPLE_BYTES = 8 << 20
AT_ONCE = 8  # hosts looked at side by side
PATIENCE_S = 60.0  # for one host
CLOCK_S = 2.0  # by which clocks may differ before it is worth a word


@dataclass(slots=True)
class Seen:
    """What was learned of a host, fact by fact: what is not known is None. `problem`: why it cannot be used."""

    reachable: bool = False
    about: dict[str, str] = field(default_factory=dict)
    marker: str | None = None
    free: int | None = None
    total: int | None = None
    clock_offset_s: float | None = None
    round_trip_s: float | None = None
    up_bytes_per_s: float | None = None  # landed, synced and read back there
    down_bytes_per_s: float | None = None
    problem: str | None = None
    remarks: list[str] = field(default_factory=list)


def look(hosts: Hosts, names: Sequence[str], patience_s: float = PATIENCE_S) -> dict[str, Seen]:
    """Look at hosts side by side; one that is down, or does not answer in time, is told of and holds up no other."""
    seen = {name: Seen() for name in names}
    room = threading.Semaphore(AT_ONCE)
    ends: dict[str, Future[None]] = {name: Future() for name in names}

    def run(name: str) -> None:
        with room:
            try:
                _look(hosts, name, seen[name])
            except TransferError as error:
                seen[name].problem = str(error)
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                ends[name].set_exception(error)
                return
            ends[name].set_result(None)

    for name in names:  # of no pool: one that hangs must not keep the process from its end
        threading.Thread(target=run, args=(name,), name=f"check {name}", daemon=True).start()
    deadline = time.monotonic() + patience_s * math.ceil(len(names) / AT_ONCE)
    for name, end in ends.items():
        try:
            end.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            seen[name].problem = f"{name}: it did not answer in {patience_s:.0f} s"
    return seen


def _look(hosts: Hosts, name: str, seen: Seen) -> None:
    host = hosts[name]
    seen.reachable = True
    seen.about = hosts.about(name)
    seen.marker = remembered(hosts.database, name)
    space = host.space()
    if space.total != UNKNOWN:
        seen.free, seen.total = space.free, space.total
    clock = host.clock()
    seen.clock_offset_s, seen.round_trip_s = clock
    if remark := about_clock(clock):
        seen.remarks.append(f"{name}: {remark}")
    if "fallback" in seen.about:
        seen.remarks.append(
            f"{name}: it is spoken to by SFTP, and what lands there is read back over the network, for the agent "
            f"cannot run there: {seen.about['fallback']}"
        )
    with hosts.database.alone(f"check {name}"):
        _transfer(host, f"check-{hosts.database.instance}.dat", hosts.database.instance, seen)


def check_writable(host: Host, instance: str) -> None:
    """Raises TransferError where a small file cannot be landed like any other; it is removed again."""
    name = f"look-{instance}.dat"
    path = f"{FOLDER}/{name}"
    land_bytes(host, path, b"written to see whether that can be done\n", EPOCH)
    _remove(host, path, f"{FOLDER}/.{name}.0-{EPOCH}.{instance}.part")  # what a look that was killed left


def about_clock(clock: Clock) -> str | None:
    """What is to be said of a clock that is off by more than could be the network's doing."""
    if clock.offset_s is None or abs(clock.offset_s) <= CLOCK_S + clock.round_trip_s / 2:
        return None
    side = "ahead of" if clock.offset_s > 0 else "behind"
    return f"its clock is {duration(abs(clock.offset_s))} {side} this machine's"


def _transfer(host: Host, name: str, instance: str, seen: Seen) -> None:
    """Land random bytes like any file, read them back here, and remove them, whatever happens."""
    path, data = f"{FOLDER}/{name}", os.urandom(SAMPLE_BYTES)
    try:
        _remove(host, path, f"{FOLDER}/.{name}.0-{EPOCH}.{instance}.part")  # what a check that was killed left
        begun = time.monotonic()
        land_bytes(host, path, data, EPOCH)
    except Refused as error:  # it may still be what others are brought from
        seen.remarks.append(f"{host.name}: nothing can be written there: {error}")
        return
    try:
        seen.up_bytes_per_s = _rate(begun)
        begun = time.monotonic()
        if _read(host, path) != data:
            text = "what was read back from there is not what landed"
            raise CorruptedOnTheWay(text, host=host.name, side="route", path=path, phase="check")
        seen.down_bytes_per_s = _rate(begun)
    finally:
        _remove(host, path)


def _rate(begun: float) -> float:
    return SAMPLE_BYTES / max(1e-6, time.monotonic() - begun)


def _read(host: Host, path: str) -> bytes:
    parts: list[bytes] = []
    for kind, body in host.read([Want(0, EPOCH, path, path, SAMPLE_BYTES)]):
        if kind == "data":
            parts.append(bytes(body))
        elif kind == "fault":
            raise body if isinstance(body, TransferError) else TransferError(str(body), host=host.name, path=path)
    return b"".join(parts)


def _remove(host: Host, *paths: str) -> None:
    for gone in host.remove(paths):
        if isinstance(gone, TransferError):
            raise gone
