"""A batch of files from one host to another, each with one result.

What is at its place already and right is adopted without sending; the rest is read, sent and landed, over as
many parallel streams as the route allows.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from transfers.agent import facts_of
from transfers.errors import Conflict, SourceChanged, SourceMissing, TransferError, Transient, to_fault
from transfers.hosts import FileInfo, Frame, Host, Receipt, Stop, Want, never

Result = tuple[Want, Receipt | TransferError]
OnBytes = Callable[[int], None]


def copy(
    source: Host,
    destination: Host,
    wants: Sequence[Want],
    *,
    proof: str = "reread",
    streams: int = 1,
    on_bytes: OnBytes | None = None,
    stop: Stop = never,
) -> Iterator[Result]:
    """Bring every want from source to destination; every want gets exactly one result, in any order.

    An error is in the place of its own result and holds up no other. `on_bytes` is told the bytes sent as
    they flow, `stop` is asked whether to end early; both are called by several threads.
    """
    units = [list(unit) for _, unit in itertools.groupby(wants, key=lambda want: (want.item, want.epoch))]
    singles = [unit[0] for unit in units if len(unit) == 1 and unit[0].piece is None]
    settled = set()
    for want, result in _already_there(source, destination, singles, stop):
        settled.add(id(want))
        yield want, result
    rest = [unit for unit in units if id(unit[0]) not in settled]
    lanes = [
        _Lane(source, destination, [want for unit in lane for want in unit], proof, on_bytes)
        for lane in _shared_out(rest, streams)
    ]
    if len(lanes) == 1:
        yield from lanes[0].results(stop)
    elif lanes:
        yield from _side_by_side(lanes, stop)


def land_bytes(destination: Host, path: str, data: bytes, epoch: int | None = None) -> Receipt:
    """Land bytes that were made here as a file, proven like any other; what is there and equal is adopted.

    `epoch` names the part (of item 0), so that one that a crash left can be swept; without it, a random one.

    Raises the TransferError that the landing ended with.
    """
    own = secrets.randbelow(1 << 31) if epoch is None else epoch
    want = Want(0, own, path, path, len(data))
    body = ("end", {"size": len(data), "digest": f"sha256:{hashlib.sha256(data).hexdigest()}"})
    frames = [("unit", 1), facts_of(want, len(data), time.time_ns()), ("data", data), body]
    result = next(iter(destination.land(frames)))
    if isinstance(result, TransferError):
        raise result
    return result


def _already_there(source: Host, destination: Host, wants: Sequence[Want], stop: Stop) -> Iterator[Result]:
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
        results = [(want, _for(want, error, destination)) for want, _ in taken]
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
    unknown = [want.source for want, _ in same_size if _known(want) is None]
    asked = source.digest(unknown, stop=stop)
    proven = destination.digest((there.path for _, there in same_size), reread=True, stop=stop)
    for (want, there), digest in zip(same_size, proven, strict=True):
        expected = _known(want) or next(asked)
        if isinstance(expected, TransferError):
            results.append((want, expected.at("source")))
        elif isinstance(digest, TransferError):
            results.append((want, digest.at("destination")))
        elif digest[2] == (expected if isinstance(expected, str) else expected[2]):
            receipt = Receipt(want.item, there.path, digest[1], digest[2], there.mtime_ns, "reread", True)
            results.append((want, receipt))
        else:
            results.append((want, _conflict(destination, want, digest[2])))
    return results


def _known(want: Want) -> str | None:
    """The sha256 that the source is known to hold, so that it need not be read."""
    digest = want.digest or ""
    return digest.lower() if digest.startswith("sha256:") else None


def _unlike(
    source: Host, destination: Host, want: Want, there: FileInfo, now: FileInfo | TransferError | None
) -> TransferError | None:
    """Why the file that is there cannot be the source's, told without reading either; None if it may be."""
    if isinstance(now, FileInfo):
        if want.size not in {None, now.size} or want.mtime_ns not in {None, now.mtime_ns}:
            facts = {"size": now.size, "mtime_ns": now.mtime_ns}
            text = "it is not as it was when it was planned"
            return SourceChanged(text, host=source.name, side="source", phase="find", path=want.source, facts=facts)
        size: int | None = now.size
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


def _shared_out(units: Iterable[list[Want]], streams: int) -> list[list[list[Want]]]:
    """The units over so many streams, each to the one with the fewest bytes so far; no stream is empty."""
    lanes: list[list[list[Want]]] = [[] for _ in range(max(1, streams))]
    load = [0] * len(lanes)
    for unit in units:
        lane = load.index(min(load))
        lanes[lane].append(unit)
        load[lane] += 1 + sum(want.size or 0 for want in unit)
    return [lane for lane in lanes if lane]


def _for(want: Want, error: TransferError, host: Host) -> TransferError:
    """The error that a whole call ended with, as the result of one of its wants."""
    return type(error)(
        error.text,
        host=error.host or host.name,
        side=error.side,
        phase=error.phase,
        path=want.destination,
        errno=error.errno,
        facts=error.facts,
    )


class _Lane:
    """One stream: what it is to bring, and what has had its result."""

    def __init__(
        self, source: Host, destination: Host, wants: list[Want], proof: str, on_bytes: OnBytes | None
    ) -> None:
        self.source = source
        self.destination = destination
        self.wants = wants
        self.proof = proof
        self.on_bytes = on_bytes
        self.broken: TransferError | None = None
        self.open: defaultdict[tuple[int, str], deque[Want]] = defaultdict(deque)
        for want in wants:
            self.open[want.item, want.destination].append(want)

    def results(self, stop: Stop) -> Iterator[Result]:
        frames = self.frames()
        try:
            for result in self.destination.land(frames, self.proof, stop):
                yield self.want_of(result), result
        except TransferError as error:
            self.broken = error
        finally:
            frames.close()
        why = self.broken or Transient("stopped before the file was begun", phase="stopped", side="local")
        for want in [want for wants in self.open.values() for want in wants]:
            yield want, _for(want, why, self.destination)

    def want_of(self, result: Receipt | TransferError) -> Want:
        if isinstance(result, Receipt):
            return self.open[result.item, result.path].popleft()
        return self.open[result.facts["item"], result.facts["destination"]].popleft()

    def frames(self) -> Generator[Frame, None, None]:
        """The source's frames, counted. One that breaks off ends them; its error is kept for the rest."""
        inside = False
        frames = self.source.read(self.wants)
        try:
            for frame in frames:
                kind, body = frame
                if kind == "data" and self.on_bytes is not None:
                    self.on_bytes(len(body))
                elif kind == "fault":
                    body.facts["host"] = self.source.name
                inside = kind in {"file", "data"}
                yield frame
        except TransferError as error:
            self.broken = error
            if inside:
                fault = to_fault(error)
                fault.facts["host"] = self.source.name
                yield "fault", fault
        finally:
            if isinstance(frames, Generator):
                frames.close()


def _side_by_side(lanes: list[_Lane], stop: Stop) -> Iterator[Result]:
    """The results of all lanes as they come, each lane in a thread of its own."""
    results: queue.Queue[Result | None] = queue.Queue()
    left = threading.Event()

    def run(lane: _Lane) -> None:
        try:
            for result in lane.results(lambda: left.is_set() or stop()):
                results.put(result)
        finally:
            results.put(None)

    with ThreadPoolExecutor(len(lanes)) as pool:
        try:
            running = [pool.submit(run, lane) for lane in lanes]
            for _ in lanes:
                yield from iter(results.get, None)
            for future in running:
                future.result()
        finally:
            left.set()
