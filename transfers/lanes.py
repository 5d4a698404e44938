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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from transfers.errors import Congested, TransferError, Transient, to_fault
from transfers.filling import BLOCK_BYTES, Block, Filling
from transfers.hosts import Filled, Frame, Host, Opened, Receipt, Stop, Want
from transfers.streams import Counted, Streams

Result = tuple[Want, Receipt | TransferError]
OnBytes = Callable[[int], None]

LOOK_S = 0.2  # between looks at whether more lanes are allowed
LEAST_CUT = 32 << 20  # bytes of a file that is worth cutting
FAR_OFF_S = 0.005  # of a round trip: from here on it bounds a stream, and not the processors
CONVERSATIONS = 3  # that may break off in one lane
PAUSE_S = 0.5  # before a far side that refused all lanes at once is asked again
CARRIED_UNITS = 64  # of one conversation with a host that carries them itself


def as_result(want: Want, error: TransferError, host: Host) -> Result:
    """The error that a whole call ended with, as the result of one of its wants."""
    return want, error.about(want.destination, host.name)


class Lanes:
    """All lanes of one batch, and the piles they take from. One lock is for all of it."""

    def __init__(
        self,
        source: Host,
        destination: Host,
        proof: str,
        streams: Streams,
        on_bytes: OnBytes | None,
        stop: Stop,
        draining: Stop,
    ) -> None:
        self.source = source
        self.destination = destination
        self.proof = proof
        self.streams = streams
        self.within = destination.far and source.name == destination.name
        self.on_bytes = Counted(streams, on_bytes, time.monotonic)
        self.changed = threading.Condition()
        self._stop = stop
        self._draining = draining
        self._left = threading.Event()
        self._results: queue.Queue[Result | None] = queue.Queue()
        self._pile: deque[list[Want]] = deque()
        self._filling = Filling(self)
        self._few = True  # there are fewer large files than streams
        self._whole = False  # nothing more will be put on the piles
        self._waiting: dict[int, Want] = {}
        self._lanes: dict[int, threading.Thread] = {}
        self._working: list[int] = []  # the lanes that count: those that were refused for being too many do not
        self._last_error: TransferError | None = None
        self._again = 0  # how often a lane was begun after all were refused at once...
        self._pause_until = 0.0  # ...and not before this is one begun again
        self._failure: BaseException | None = None

    def prepare(self, sizes: Sequence[int | None]) -> None:
        """Decide how many streams to begin with, and have that many connections begun for files of these sizes, before
        the first of them is asked for."""
        far = [host for host in (self.source, self.destination) if host.far]
        self.streams.begin(max((host.round_trip_s for host in far), default=0.0), time.monotonic())
        large = [size for size in sizes if size is not None and size >= LEAST_CUT]
        self._few = len(large) < self.streams.allowed()
        large = large if self._may_cut else []
        lanes = min(self.streams.allowed(), len(sizes) + sum(large) // BLOCK_BYTES)
        for host in far:
            host.prepare(lanes + bool(large))  # one more proves what the others fill, or hashes what they read

    def results(self, units: Iterable[list[Want] | Result]) -> Iterator[Result]:
        """Every want's result, as they come. The units are asked for by a thread of its own, as fast as they can be
        had; a result among them is handed on."""
        piling = threading.Thread(target=self._pile_up, args=(units,), name="piling", daemon=True)
        piling.start()
        try:
            yield from self._gathered()
        finally:
            self._left.set()
            with self.changed:
                self.changed.notify_all()
            piling.join()
            for thread in list(self._lanes.values()):
                thread.join()
            self._filling.end()
        if self._failure is not None:
            raise self._failure
        stopped = Transient("stopped before the file was begun", phase="stopped", side="local")
        for want in list(self._waiting.values()):
            # Asked anew for each: who hears that a host is down may have the others given back untried.
            given_back = self._stop() or self._draining()
            why = stopped if given_back or self._last_error is None else self._last_error
            yield as_result(want, why, self.destination)

    def _gathered(self) -> Iterator[Result]:
        while True:
            self._begin_lanes()
            with self.changed:
                self._give_up_alone()
                ended = self._whole and not self._lanes and not self._may_begin_again()
                over = ended and self._filling.is_over()
            try:
                result = self._results.get(timeout=None if over else LOOK_S) if not over else self._results.get_nowait()
            except queue.Empty:
                if over:
                    return
                continue
            if result is not None:
                self._waiting.pop(id(result[0]), None)
                yield result

    def _give_up_alone(self) -> None:
        """Where no lane works and none will be begun, nobody would fill the large files that are waited for."""
        if self._lanes or self._may_begin_again():
            return
        if self.stop():
            self._filling.give_up(Transient("stopped before the file was done", phase="stopped", side="local"))
        elif self._last_error is not None:
            self._filling.give_up(self._last_error)

    # The piles.

    def _pile_up(self, units: Iterable[list[Want] | Result]) -> None:
        try:
            for unit in units:
                if isinstance(unit, tuple):
                    self.tell(unit)
                    continue
                with self.changed:
                    self._waiting.update((id(want), want) for want in unit)
                    if self._is_cut(unit):
                        self._filling.add(unit[0])
                    else:
                        self._pile.append(unit)
                    self.changed.notify_all()
                if len(self._pile) == 1:
                    self.tell(None)  # so that lanes begin at once
        except BaseException as error:  # noqa: BLE001  it is raised again by who asks for the results
            self.broke(error)
        finally:
            if isinstance(units, Generator):
                units.close()
            with self.changed:
                self._whole = True
                self._filling.close()
                self.changed.notify_all()
            self.tell(None)

    def _is_cut(self, unit: list[Want]) -> bool:
        """Whether a unit is one large file between hosts that can have it cut over several streams."""
        want = unit[0]
        return (
            len(unit) == 1
            and want.piece is None
            and want.stretch is None  # a member is a stretch already
            and (want.size or 0) >= LEAST_CUT
            and (want.digest is None or want.digest.startswith("sha256:"))
            and self._may_cut
        )

    @property
    def _may_cut(self) -> bool:
        """Whether large files are cut on this route: where a round trip is what bounds a stream, or where there are
        fewer of them than streams. Whole files cost less, as each is read once."""
        far_off = max(self.source.round_trip_s, self.destination.round_trip_s) >= FAR_OFF_S
        return (
            (far_off or self._few)
            and self.proof == "reread"
            and self.streams.most > 1
            and (self.source.far or self.destination.far)
            and not self.within
            and self.source.cuts
            and self.destination.cuts
        )

    # What lanes and the filling ask and tell; by any thread.

    def stop(self) -> bool:
        return self._left.is_set() or self._stop()

    def tell(self, result: Result | None) -> None:
        self._results.put(result)

    def broke(self, error: BaseException) -> None:
        """A thread ended with what is no TransferError: all end, and it is raised by who asks for the results."""
        self._failure = error
        self._left.set()

    def may_go_on(self, number: int) -> bool:
        """Whether this lane is among as many as are allowed: not by its number, as those below may have ended."""
        with self.changed:
            return number in self._working[: self.streams.allowed()] and not self.stop()

    def unit(self, number: int) -> list[Want] | None:
        """The next unit for this lane; None when it is to end its conversation."""
        if not self.may_go_on(number) or self._draining():
            return None
        with self.changed:
            return self._pile.popleft() if self._pile else None

    def put_back(self, unit: list[Want]) -> None:
        """A unit that a lane took and could not begin: for another, if one is left."""
        with self.changed:
            self._pile.appendleft(unit)
            self.changed.notify_all()

    def block(self, number: int) -> Block | None:
        """The next block of a large file, likewise; those of a file that is begun are brought while draining too."""
        if not self.may_go_on(number):
            return None
        with self.changed:
            return self._filling.take()

    def wait(self, number: int) -> bool:
        """Wait until there is something to take; False when there will be nothing for this lane."""
        with self.changed:
            while self.may_go_on(number):
                if self._filling.has_blocks() or (self._pile and not self._draining()):
                    return True
                if self._whole and not self._filling.may_have_blocks():
                    return False
                if self._draining() and not self._filling.may_have_blocks():
                    return False
                self.changed.wait(LOOK_S)
        return False

    def filled(self, block: Block, result: Filled | TransferError) -> None:
        with self.changed:
            self._filling.filled(block, result if isinstance(result, TransferError) else None)

    def lost(self, block: Block, error: TransferError) -> None:
        with self.changed:
            self._filling.lost(block, error)

    def untried(self, block: Block) -> None:
        with self.changed:
            self._filling.put_back(block)

    def failed(self, error: TransferError, number: int | None = None) -> None:
        """A conversation broke off, or could not be begun; with the number of a lane, it ends with that."""
        with self.changed:
            self._last_error = error
            if number in self._working:  # before others ask whether they may go on: it was the one too many
                self._working.remove(number)
        if isinstance(error, Congested):
            self._pause_until = time.monotonic() + PAUSE_S
            self.streams.congested(time.monotonic())

    # Lanes come and go.

    def _begin_lanes(self) -> None:
        """Begin lanes while more are allowed and there is work for them; after a failure, no more of them."""
        with self.changed:
            work = self._filling.blocks_to_come() + (0 if self._draining() else len(self._pile))
            allowed = min(self.streams.allowed(), work + len(self._lanes))
            if self.stop():
                return
            if self._last_error is not None:
                if not self._may_begin_again() or time.monotonic() < self._pause_until:
                    return
                self._again += 1
                allowed = 1
            free = [number for number in range(allowed) if number not in self._lanes]
            for number in free[: max(0, allowed - len(self._lanes))]:
                thread = threading.Thread(target=self._run, args=(number,), name=f"lane-{number}", daemon=True)
                self._lanes[number] = thread
                self._working.append(number)
                thread.start()

    def _may_begin_again(self) -> bool:
        """Whether all lanes were refused for being too many, so that a single one may find room; a few times."""
        work = self._pile or self._filling.blocks_to_come()
        idle = not self._lanes and isinstance(self._last_error, Congested) and self._again < CONVERSATIONS
        return bool(work) and idle and not self.stop() and not self._draining()

    def _run(self, number: int) -> None:
        try:
            Lane(self, number).work()
        except BaseException as error:  # noqa: BLE001  it is raised again by who asks for the results
            self.broke(error)
        finally:
            with self.changed:
                del self._lanes[number]
                if number in self._working:
                    self._working.remove(number)
                self._give_up_alone()
                self.changed.notify_all()
            self.tell(None)


class Lane:
    """One stream: conversation after conversation, until nothing is left for it."""

    def __init__(self, lanes: Lanes, number: int) -> None:
        self.lanes = lanes
        self.number = number

    def work(self) -> None:
        """Work until nothing is left, or it is of no use: what broke off by chance is begun anew a few times."""
        for turn in range(1, CONVERSATIONS + 1):
            while (error := self._conversation()) is None:
                if not self.lanes.wait(self.number):
                    return
            last = turn == CONVERSATIONS or not isinstance(error, Transient)
            self.lanes.failed(error, self.number if last else None)
            if last:
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
                want = self._want_of(result)
                if isinstance(result, TransferError):  # one that is of many files names none of them
                    result.path = result.path or want.destination
                self.lanes.tell((want, result))
                if self.lanes.within and isinstance(result, Receipt) and not result.adopted:
                    self.lanes.on_bytes(result.size)
        except TransferError as error:
            self.broken = error
        finally:
            if isinstance(results, Generator):
                results.close()
        if self.first is not None:  # nothing of it was asked for: the conversation did not come about
            self.lanes.put_back(self.first)
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
        inside, path = False, ""
        frames = self.source.read(self._wants())
        try:
            for frame in frames:
                kind, body = frame
                if kind == "data":
                    self.lanes.on_bytes(len(body))
                elif kind == "file":
                    path = body["path"]
                elif kind == "fault":
                    body.facts["host"] = self.source.name
                inside = kind in {"file", "data"}
                yield frame
        except TransferError as error:
            self.broken = error
            if inside:
                fault = to_fault(error)
                fault.facts["host"] = self.source.name
                fault.path = fault.path or path
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
        frames = self._frames()
        try:
            for result in self.lanes.destination.fill(frames, self.lanes.stop):
                if not self.sent:
                    raise Transient("an answer came for a block that was not sent", side="route")
                self.lanes.filled(self.sent.popleft(), result)
        except TransferError as error:
            self.broken = error
        finally:
            frames.close()
        if self.first is not None:  # not asked for yet: it was not tried
            self.lanes.untried(self.first)
        stopped = Transient("stopped before the file was done", phase="stopped", side="local")
        for block in [*self.sent, *self.asked]:
            self.lanes.lost(block, self.broken or stopped)
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
