"""Lanes: the streams of one batch, side by side, each with one conversation at a time at either end.

Lanes take their work from common piles, unit by unit and block by block, as they get to it: none waits while another
has work left, a lane that breaks off loses only what it had taken, and their number may change on the way. A large
file between two hosts that allow it is cut into blocks that all lanes fill (see filling.py).
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence

from transfers.errors import Congested, TransferError, Transient, to_fault
from transfers.filling import Block, Filling
from transfers.hosts import Frame, Host, Opened, Receipt, Stop, Want
from transfers.streams import Counted, Streams

Result = tuple[Want, Receipt | TransferError]
OnBytes = Callable[[int], None]

LOOK_S = 0.2  # between looks at whether more lanes are allowed
CONVERSATIONS = 3  # that may break off in one lane
CARRIED_UNITS = 64  # of one conversation with a host that carries them itself


def as_result(want: Want, error: TransferError, host: Host) -> Result:
    """The error that a whole call ended with, as the result of one of its wants."""
    own = type(error)(
        error.text,
        host=error.host or host.name,
        side=error.side,
        phase=error.phase,
        path=want.destination,
        errno=error.errno,
        facts=error.facts,
    )
    return want, own


class Lanes:
    """All lanes of one batch, and the piles they take from."""

    def __init__(
        self,
        source: Host,
        destination: Host,
        units: Sequence[list[Want]],
        proof: str,
        streams: Streams,
        on_bytes: OnBytes | None,
        stop: Stop,
    ) -> None:
        self.source = source
        self.destination = destination
        self.proof = proof
        self.streams = streams
        self.within = destination.far and source.name == destination.name
        self._units = units
        self._asked_to_stop = stop
        self._left = threading.Event()
        self._on_bytes = on_bytes
        self._results: queue.Queue[Result | None] = queue.Queue()
        self._lock = threading.Lock()
        self._lanes: dict[int, threading.Thread] = {}
        self._last_error: TransferError | None = None

    def results(self) -> Iterator[Result]:
        """Every want's result, as they come."""
        self.streams.begin(self._round_trip() if self.streams.is_new else 0.0, time.monotonic())
        self.on_bytes = Counted(self.streams, self._on_bytes, time.monotonic)
        large = [unit for unit in self._units if self._is_cut(unit)]
        plain = [unit for unit in self._units if not self._is_cut(unit)]
        self._pile = deque(plain)
        self._waiting = {id(want): want for unit in self._units for want in unit}
        self.filling = Filling(self, [unit[0] for unit in large]) if large else None
        try:
            yield from self._gathered()
        finally:
            self._left.set()
            if self.filling:
                self.filling.leave()
            for thread in list(self._lanes.values()):
                thread.join()
            if self.filling:
                self.filling.join()
        why: TransferError = Transient("stopped before the file was begun", phase="stopped", side="local")
        if self._last_error is not None and not self._asked_to_stop():
            why = self._last_error
        for want in list(self._waiting.values()):
            yield as_result(want, why, self.destination)

    def _gathered(self) -> Iterator[Result]:
        if self.filling:
            self.filling.start()
        self._begin_lanes()
        while self._lanes or (self.filling and self.filling.is_alive()):
            try:
                result = self._results.get(timeout=LOOK_S)
            except queue.Empty:
                self._begin_lanes()
                continue
            if result is not None:
                del self._waiting[id(result[0])]
                yield result
            else:
                self._begin_lanes()
        while True:
            try:
                result = self._results.get_nowait()
            except queue.Empty:
                return
            if result is not None:
                del self._waiting[id(result[0])]
                yield result

    def _round_trip(self) -> float:
        far = [host for host in (self.source, self.destination) if host.far]
        return max((host.clock().round_trip_s for host in far), default=0.0)

    def _is_cut(self, unit: list[Want]) -> bool:
        """Whether a unit is one large file between hosts that can have it cut over several streams."""
        want = unit[0]
        return (
            len(unit) == 1
            and want.piece is None
            and (want.size or 0) >= Filling.LEAST
            and (want.digest is None or want.digest.startswith("sha256:"))
            and self.proof == "reread"
            and self.streams.most > 1
            and (self.source.far or self.destination.far)
            and not self.within
            and self.source.cuts
            and self.destination.cuts
        )

    # What lanes and the filling ask and tell; by any thread.

    def stop(self) -> bool:
        return self._left.is_set() or self._asked_to_stop()

    def tell(self, result: Result | None) -> None:
        self._results.put(result)

    def has_units(self, number: int) -> bool:
        return number < self.streams.allowed() and not self.stop() and bool(self._pile)

    def unit(self, number: int) -> list[Want] | None:
        """The next unit for this lane; None when it is to end its conversation."""
        if number >= self.streams.allowed() or self.stop():
            return None
        with self._lock:
            return self._pile.popleft() if self._pile else None

    def block(self, number: int) -> Block | None:
        """The next block of a large file, likewise."""
        if self.filling is None or number >= self.streams.allowed() or self.stop():
            return None
        return self.filling.take()

    def failed(self, error: TransferError) -> None:
        """A conversation broke off, or could not be begun."""
        self._last_error = error
        if isinstance(error, Congested):
            self.streams.congested(time.monotonic())

    # Lanes come and go.

    def _begin_lanes(self) -> None:
        """Begin lanes while more are allowed and there is work for them; after a failure, only if none is left."""
        with self._lock:
            work = len(self._pile) + (self.filling.left() if self.filling else 0)
            allowed = 0 if self.stop() else min(self.streams.allowed(), work + len(self._lanes))
            free = [number for number in range(allowed) if number not in self._lanes]
            if self._last_error is not None:
                free = []
            for number in free[: max(0, allowed - len(self._lanes))]:
                thread = threading.Thread(target=self._run, args=(number,), name=f"lane-{number}", daemon=True)
                self._lanes[number] = thread
                thread.start()

    def _run(self, number: int) -> None:
        try:
            Lane(self, number).work()
        finally:
            with self._lock:
                del self._lanes[number]
            if self.filling:
                self.filling.lane_ended(self._last_error if not self._lanes else None)
            self.tell(None)


class Lane:
    """One stream: conversation after conversation, until nothing is left for it."""

    def __init__(self, lanes: Lanes, number: int) -> None:
        self.lanes = lanes
        self.number = number

    def work(self) -> None:
        """Work until nothing is left, or it is of no use: what broke off by chance is begun anew a few times."""
        for _ in range(CONVERSATIONS):
            while (error := self._conversation()) is None:
                filling = self.lanes.filling
                if not self.lanes.has_units(self.number) and not (filling and filling.wait_for_more(self.number)):
                    return
            self.lanes.failed(error)
            if not isinstance(error, Transient):
                return

    def _conversation(self) -> TransferError | None:
        """Blocks while there are some, else whole files; the error that it was broken off by."""
        blocks = _BlockStream(self.lanes, self.number)
        if blocks.first is not None:
            return blocks.run()
        files = _FileStream(self.lanes, self.number)
        return files.run() if files.first is not None else None


class _FileStream:
    """Whole files, unit by unit, in one conversation with each end."""

    def __init__(self, lanes: Lanes, number: int) -> None:
        self.lanes = lanes
        self.number = number
        self.source, self.destination = lanes.source, lanes.destination
        self.broken: TransferError | None = None
        self.open: defaultdict[tuple[int, str], deque[Want]] = defaultdict(deque)
        self.first = lanes.unit(number)

    def run(self) -> TransferError | None:
        """Bring units until the pile is empty; the error that broke the conversation off, if one did."""
        results = self._carried() if self.lanes.within else self._sent()
        try:
            for result in results:
                assert not isinstance(result, Opened)
                self.lanes.tell((self._want_of(result), result))
                if self.lanes.within and isinstance(result, Receipt) and not result.adopted:
                    self.lanes.on_bytes(result.size)
        except TransferError as error:
            self.broken = error
        finally:
            if isinstance(results, Generator):
                results.close()
        left = [want for wants in self.open.values() for want in wants]
        why = self.broken or Transient("stopped before the file was done", phase="stopped", side="local")
        for want in left:
            self.lanes.tell(as_result(want, why, self.destination))
        return self.broken

    def _sent(self) -> Iterator[Receipt | TransferError | Opened]:
        frames = self._frames()
        try:
            yield from self.destination.land(frames, self.lanes.proof, self.lanes.stop)
        finally:
            frames.close()

    def _carried(self) -> Iterator[Receipt | TransferError]:
        return self.destination.carry(self._wants(CARRIED_UNITS), self.lanes.proof, self.lanes.stop)

    def _wants(self, most: int | None = None) -> Iterator[Want]:
        """The wants of unit after unit, as they are asked for."""
        unit, count = self.first, 1
        self.first = None
        while unit is not None:
            for want in unit:
                self.open[want.item, want.destination].append(want)
            yield from unit
            unit = self.lanes.unit(self.number) if count != most else None
            count += 1

    def _want_of(self, result: Receipt | TransferError) -> Want:
        if isinstance(result, Receipt):
            key = result.item, result.path
        else:
            key = result.facts["item"], result.facts["destination"]
        if not self.open.get(key):
            raise Transient("an answer came for a file that was not sent", host=self.destination.name, side="route")
        return self.open[key].popleft()

    def _frames(self) -> Generator[Frame, None, None]:
        """The source's frames, counted. One that breaks off ends them; its error is kept for the rest."""
        inside = False
        frames = self.source.read(self._wants())
        try:
            for frame in frames:
                kind, body = frame
                if kind == "data":
                    self.lanes.on_bytes(len(body))
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


class _BlockStream:
    """Blocks of large files, one after the other, in one conversation with each end."""

    def __init__(self, lanes: Lanes, number: int) -> None:
        self.lanes = lanes
        self.number = number
        self.broken: TransferError | None = None
        self.asked: deque[Block] = deque()  # of the source, and not yet begun to come
        self.sent: deque[Block] = deque()  # to the destination, and not yet answered
        self.first = lanes.block(number)

    def run(self) -> TransferError | None:
        """Fill blocks until there are none; the error that broke the conversation off, if one did."""
        assert self.lanes.filling is not None
        frames = self._frames()
        try:
            for result in self.lanes.destination.fill(frames, self.lanes.stop):
                if not self.sent:
                    raise Transient("an answer came for a block that was not sent", side="route")
                self.lanes.filling.filled(self.sent.popleft(), result if isinstance(result, TransferError) else None)
        except TransferError as error:
            self.broken = error
        finally:
            frames.close()
        stopped = Transient("stopped before the file was done", phase="stopped", side="local")
        for block in [*self.sent, *self.asked, *([self.first] if self.first else [])]:
            self.lanes.filling.lost(block, self.broken or stopped)
        return self.broken

    def _wants(self) -> Iterator[Want]:
        block = self.first
        self.first = None
        while block is not None:
            self.asked.append(block)
            yield block.want
            block = self.lanes.block(self.number)

    def _frames(self) -> Generator[Frame, None, None]:
        frames = self.lanes.source.read(self._wants())
        try:
            for kind, body in frames:
                if kind == "file":
                    block = self.asked.popleft()
                    self.sent.append(block)
                    yield "stretch", block.facts
                    continue
                if kind == "data":
                    self.lanes.on_bytes(len(body))
                elif kind == "fault":
                    body.facts["host"] = self.lanes.source.name
                yield kind, body
        except TransferError as error:
            self.broken = error
        finally:
            if isinstance(frames, Generator):
                frames.close()
