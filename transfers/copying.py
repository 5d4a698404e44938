"""A batch of files from one host to another, each with one result.

What is at its place already and right is adopted without sending; the rest is read, sent and landed by lanes that
work side by side, as many as the route's streams allow at the moment.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from transfers.agent import facts_of, units_of
from transfers.errors import Conflict, SourceChanged, SourceMissing, TransferError
from transfers.hosts import FileInfo, Host, Member, Opened, Place, Receipt, Stop, Want, never, only
from transfers.lanes import Lanes, OnBytes, Result, as_result
from transfers.streams import Streams

LOOKED_AT = 128  # files that are looked for at the destination in one conversation, while others are sent


def copy(
    source: Host,
    destination: Host,
    wants: Iterable[Want | Result],
    *,
    proof: str = "reread",
    streams: int | Streams = 1,
    on_bytes: OnBytes | None = None,
    stop: Stop = never,
    draining: Stop = never,
    sizes: Sequence[int | None] | None = None,
) -> Iterator[Result]:
    """Bring every want from source to destination; every want gets exactly one result, in any order.

    An error is in the place of its own result and holds up no other. The wants may be made as they are asked for
    (by a thread of its own); one that has its result already is handed on. `streams`: so many, or as many as a
    route's Streams find to be best. `on_bytes` is told the bytes sent as they flow, `stop` is asked whether to end
    at once, `draining` whether to begin nothing more; all three are called by several threads. `sizes`: those of the
    files that will be wanted, where the wants are still to be made: connections are begun for so many.
    """
    if sizes is None and isinstance(wants, Sequence):
        sizes = [want.size for want in wants if isinstance(want, Want)]
    pace = streams if isinstance(streams, Streams) else Streams(streams, streams)
    lanes = Lanes(source, destination, proof, pace, on_bytes, stop, draining)
    lanes.prepare(sizes or ())
    yield from lanes.results(_to_send(source, destination, wants, lambda: stop() or draining()))


def _to_send(
    source: Host, destination: Host, wants: Iterable[Want | Result], stop: Stop
) -> Iterator[list[Want] | Result]:
    """The units that must be sent, and the results of what need not be: looked at some files at a time."""
    for lot in _lots(wants):
        yield from (one for one in lot if not isinstance(one, Want))
        asked = list(units_of(one for one in lot if isinstance(one, Want)))
        singles = [unit[0] for unit in asked if len(unit) == 1 and unit[0].piece is None]
        settled = set()
        for want, result in already_there(source, destination, singles, stop) if singles and not stop() else ():
            settled.add(id(want))
            yield want, result
        yield from (unit for unit in asked if id(unit[0]) not in settled)


def _lots(wants: Iterable[Want | Result]) -> Iterator[list[Want | Result]]:
    """The wants in lots that are looked at together; a unit is in one of them."""
    lot: list[Want | Result] = []
    for one in wants:
        if len(lot) >= LOOKED_AT and not (isinstance(one, Want) and _same_unit(lot[-1], one)):
            yield lot
            lot = []
        lot.append(one)
    if lot:
        yield lot


def _same_unit(before: Want | Result, want: Want) -> bool:
    return isinstance(before, Want) and (before.item, before.epoch) == (want.item, want.epoch)


def land_bytes(destination: Host, path: str, data: bytes, epoch: int | None = None, item: int = 0) -> Receipt:
    """Land bytes that were made here as a file, proven like any other; what is there and equal is adopted.

    `item` and `epoch` name the part, so that one that a crash left can be swept; without `epoch`, a random one.

    Raises the TransferError that the landing ended with.
    """
    own = secrets.randbelow(1 << 31) if epoch is None else epoch
    want = Want(item, own, path, path, len(data))
    body = ("end", {"size": len(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"})
    frames = [("unit", 1), facts_of(want, len(data), time.time_ns()), ("data", data), body]
    result = only(destination.land(frames))
    if isinstance(result, TransferError):
        raise result
    assert not isinstance(result, Opened)  # it answers an "open", and none was sent
    return result


def already_there(source: Host, destination: Host, wants: Sequence[Want], stop: Stop) -> Iterator[Result]:
    """Results of the wants whose destination has the name already: adopted, a conflict, or why neither.

    Those to be replaced are left to the landing.
    """
    taken = []
    try:
        found = list(destination.find(want.destination for want in wants))
        for want, there in zip(wants, found, strict=True):
            if isinstance(there, FileInfo):
                taken.append((want, there))
            elif there is not None and not (want.replace and there.facts.get("not_a_file")):
                yield want, _in_the_way(there)
        results = _compared(source, destination, taken, stop) if taken else []
    except TransferError as error:
        results = [(want, as_result(want, error, destination)[1]) for want, _ in taken]
    for want, result in results:
        if not (want.replace and isinstance(result, Conflict)):
            yield want, result


def _in_the_way(error: TransferError) -> TransferError:
    """A folder or FIFO that has the name is a conflict; other errors of looking are what they are."""
    if error.facts.get("not_a_file"):
        return Conflict(error.text, host=error.host, side="destination", phase="find", path=error.path)
    return error.at("destination")


def _compared(source: Host, destination: Host, taken: Sequence[tuple[Want, FileInfo]], stop: Stop) -> list[Result]:
    """Hold the files that are there against the source: size first, then sha256 at both ends.

    A few calls for the whole batch, however many files: over SSH each call is a conversation.
    """
    results: list[Result] = []
    same_size = []
    for (want, there), now in zip(taken, source.find(want.source for want, _ in taken), strict=True):
        error = _unlike(source, destination, want, there, now)
        if error is None:
            same_size.append((want, there))
        else:
            results.append((want, error))
    unknown = [_place(want) for want, _ in same_size if _known(want) is None]
    asked = source.digest(unknown, stop=stop)
    proven = destination.digest((there.path for _, there in same_size), reread=True, stop=stop)
    for (want, there), digest in zip(same_size, proven, strict=True):
        expected = _known(want) or next(asked)
        if isinstance(expected, TransferError):
            results.append((want, expected.at("source")))
        elif isinstance(digest, TransferError):
            results.append((want, digest.at("destination")))
        elif digest[2] == (expected if isinstance(expected, str) else expected[2]):
            receipt = Receipt(want.item, there.path, digest[1], digest[2], there.mtime_ns, destination.reread, True)
            results.append((want, receipt))
        else:
            results.append((want, _conflict(destination, want, digest[2])))
    deque(asked, 0)  # to its end, as `only` has it
    return results


def _place(want: Want) -> Place:
    """What is read for a want: the source, or a member of it."""
    if want.stretch is None or not want.is_member:
        return want.source
    offset, size = want.stretch
    return Member(want.source, offset, size, want.source)


def _known(want: Want) -> str | None:
    """The sha256 that the source is known to hold, so that it need not be read."""
    digest = want.digest or ""
    return digest.lower() if digest.startswith("sha256:") else None


def _unlike(
    source: Host, destination: Host, want: Want, there: FileInfo, now: FileInfo | TransferError | None
) -> TransferError | None:
    """Why the file that is there cannot be the source's, told without reading either; None if it may be."""
    size: int | None
    if want.stretch is not None and want.is_member:
        size = want.stretch[1]  # what was found is the file that it lies in
    elif isinstance(now, FileInfo):
        if want.size not in {None, now.size} or want.mtime_ns not in {None, now.mtime_ns}:
            facts = {"size": now.size, "mtime_ns": now.mtime_ns}
            text = "it is not as it was when it was planned"
            return SourceChanged(text, host=source.name, side="source", phase="find", path=want.source, facts=facts)
        size = now.size
    elif _known(want) is not None:
        size = want.size  # what is there can be proven without the source
    elif now is None:
        return SourceMissing("no such file", host=source.name, side="source", phase="find", path=want.source)
    else:
        return now.at("source")
    return None if size in {None, there.size} else _conflict(destination, want, f"{there.size} bytes")


def _conflict(destination: Host, want: Want, found: str) -> Conflict:
    return Conflict(
        "another file has the name",
        host=destination.name,
        side="destination",
        phase="find",
        path=want.destination,
        facts={"found": found},
    )
