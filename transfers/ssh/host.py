"""A host behind SSH: the agent, sent to the far python3 and spoken to over a channel.

Nothing is installed there and nothing left behind. Each conversation is one connection with an agent at its end, kept
for the next call and ended when it has been idle; several run side by side. Here what the far side says is checked
before it is believed, and its faults become this host's errors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from transfers.agent import (
    batches,
    plain_place,
    plain_want,
    send_frame,
    send_unit,
    units_of,
)
from transfers.disks import OnDisk
from transfers.errors import TransferError, from_fault, shown
from transfers.hosts import (
    LIMITS,
    Clock,
    Fault,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Identity,
    Limits,
    Opened,
    Place,
    Receipt,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.ssh.answers import (
    Asked,
    Carried,
    Sent,
    SentStretches,
    clock_of,
    digest_at,
    fault_of,
    found_at,
    hdus_of,
    identity_at,
    made_of,
    moved_to,
    pairs,
    part_of,
    path_of,
    refuse,
    removed_at,
    scanned,
    text_of,
)
from transfers.ssh.channels import Client
from transfers.ssh.conversations import STOP_PATIENCE_S, Conversation, Conversations

T = TypeVar("T")
A = TypeVar("A")

AHEAD_WANTS = 64  # wants that the far side knows of before their turn...
AHEAD_BYTES = 8 << 20  # ...or so many bytes
PATHS = 500  # of one call


class SshHost(OnDisk):
    """Files beneath a folder of a far machine."""

    far = True
    cuts = True
    reread = "reread"

    def __init__(
        self,
        name: str,
        root: str,
        client: Client,
        *,
        python: str = "python3",
        links: bool = False,
        file_mode: int | None = None,
        folder_mode: int | None = None,
        instance: str = "00000000",
        kind: str = "ssh",
    ) -> None:
        self.name = name
        self.root = root
        self.kind = kind
        self.client = client
        self.python = python
        self.options = {"links": links, "file_mode": file_mode, "folder_mode": folder_mode, "instance": instance}
        self.marker: str | None = None
        self.round_trip_s = 0.0
        self._conversations = Conversations(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.root!r}, {self.client.name})"

    @contextmanager
    def _called(self, name: str, stop: Stop = never, **arguments: Any) -> Iterator[Conversation]:
        """A call that has been sent. `stop`, where there is one, is asked now and then, and told to the far side."""
        with self._conversations.lend() as one:
            one.call(name, **arguments)
            if stop is never:
                yield one
                return
            over = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(one, stop, over), daemon=True)
            watcher.start()
            try:
                yield one
            finally:
                over.set()
                watcher.join()

    def _watch(self, one: Conversation, stop: Stop, over: threading.Event) -> None:
        """Tell the far side to stop; where it does not end then, end the channel."""
        while not over.wait(0.2):
            if stop():
                one.stop()
                if not over.wait(STOP_PATIENCE_S):
                    one.channel.kill()
                return

    def _outwait(self, one: Conversation, stop: Stop, over: threading.Event) -> None:
        """End the channel where a call does not end some time after it was to stop."""
        while not over.wait(0.5):
            if stop() and not over.wait(STOP_PATIENCE_S):
                one.channel.kill()
                return

    def error(self, fault: Fault) -> TransferError:
        """A fault of the far side as this host's error."""
        error = from_fault(fault, self.name)
        if self.kind == "store" and error.host == self.name and error.side != "route":
            error.side = "store"
        return error

    # The Host protocol.

    def prepare(self, streams: int) -> None:
        self._conversations.prepare(streams)

    def close(self) -> None:
        self._conversations.close()

    def open(self, marker: str | None, marks: bool = True) -> str | None:
        with self._called("open", marker=marker, marks=marks) as one:
            found = self._only(one, "marker")
            none = marker is None and not marks and found is None
            self.marker = None if none else text_of(found)
        return self.marker

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]:
        with self._called("scan", prefix=prefix) as one:
            for name, body in one.answers():
                yield scanned(prefix, name, body)

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]:
        for some in batches(paths, PATHS):
            with self._called("find", paths=some) as one:
                yield from self._each(one, "info", found_at, some)

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        for some in batches(places, PATHS):
            asked = [plain_place(place) for place in some]
            with self._called("digest", stop, places=asked, algorithm=algorithm, reread=reread) as one:
                yield from self._each(one, "digest", partial(digest_at, algorithm), some)

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        for some in batches(places, PATHS):
            asked = [plain_place(place) for place in some]
            with self._called("headers", places=asked, limits=list(limits)) as one:
                yield from self._each(one, "hdus", partial(hdus_of, limits, one.frame), some)

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        for some in batches(paths, PATHS):
            with self._called("remove", paths=some) as one:
                yield from self._each(one, "removed", removed_at, some)

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        for some in batches(pairs, PATHS):
            with self._called("move", pairs=some) as one:
                yield from self._each(one, "moved", moved_to, some)

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        for some in batches(paths, PATHS):
            with self._called("identify", paths=some) as one:
                yield from self._each(one, "identity", identity_at, some)

    def _each(
        self, one: Conversation, wanted: str, made: Callable[[A, Any], T], asked: list[A]
    ) -> Iterator[T | TransferError]:
        """One answer for each thing that was asked for."""
        for thing, name, body in pairs(asked, one.answers()):
            if name == "fault":
                yield self.error(fault_of(body))
            elif name == wanted:
                yield made(thing, body)
            else:
                refuse(f"{name} instead of {wanted}")

    def space(self) -> Space:
        with self._called("space") as one:
            return made_of(Space, self._only(one, "space"))

    def clock(self) -> Clock:
        with self._called("space") as one:  # the first call of a conversation may have another before it
            self._only(one, "space")
            asked, begun = time.time(), time.monotonic()
            one.call("clock")
            there = clock_of(self._only(one, "clock"))
            taken = time.monotonic() - begun
            return Clock(there - (asked + taken / 2), taken)

    def _only(self, one: Conversation, wanted: str) -> Any:
        """The one answer to a call that has one."""
        ((_, name, found),) = pairs([wanted], one.answers())
        if name != wanted:
            refuse(f"{name} instead of {wanted}")
        return found

    def about(self) -> dict[str, str]:
        with self._called("space") as one:
            self._only(one, "space")
            hello = one.hello
            facts = {"far": f"python {shown(str(hello.get('python')))[:20]}"}
            if hello.get("pinned"):
                facts["agent"] = "installed there, for this root alone"
            return one.channel.about() | facts

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        with self._called("gunzip", stop, want=plain_want(want), most=most) as one:
            return text_of(self._only(one, "unpacked"))

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]:
        removed: list[str] = []
        with self._called("sweep", prefix=prefix) as one:
            for name, body in one.answers():
                if name == "part":
                    one.out.message("dead", bool(dead(*part_of(body))))
                elif name == "swept":
                    removed.append(path_of(body))
                else:
                    refuse(f"{name} in a sweep")
        return removed

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        """The frames, in the order of the wants; these are asked for as they are sent on, not all at once."""
        with self._called("read") as one:
            asking = _Asking(one, units_of(wants))
            asking.ask()
            for name, body in one.answers():
                yield asking.frame(name, body)
            asking.end()

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError | Opened]:
        sent = Sent(proof)

        def answer(name: str, body: Any) -> Receipt | TransferError | Opened:
            if name == "fault":
                return self.error(sent.fault(body))
            if name == "opened":
                return sent.opened(body)
            return sent.receipt(body) if name == "receipt" else refuse(f"{name} in a landing")

        yield from self._fed("land", frames, stop, sent, answer, proof=proof)

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        sent = SentStretches()

        def answer(name: str, body: Any) -> Filled | TransferError:
            if name == "fault":
                return self.error(sent.fault(body))
            return sent.filled(body) if name == "filled" else refuse(f"{name} in a filling")

        yield from self._fed("fill", frames, stop, sent, answer)

    def carry(
        self, wants: Iterable[Want], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        with self._called("carry", stop, proof=proof) as one:
            carried = Carried(proof)
            for unit in units_of(wants):
                carried.add(unit)
                with one.sending:
                    send_unit(one.out, unit)
            with one.sending:
                one.out.message("over")
            for name, body in one.answers():
                if name == "fault":
                    yield self.error(carried.fault(body))
                else:
                    yield carried.receipt(body) if name == "receipt" else refuse(f"{name} in a carrying")
            if carried.left() and not stop():
                refuse(f"no answer for {_files(carried.left())}")

    def _fed(
        self,
        call: str,
        frames: Iterable[Frame],
        stop: Stop,
        sent: Sent | SentStretches,
        answer: Callable[[str, Any], T],
        **arguments: Any,
    ) -> Iterator[T]:
        """The answers to a call that is fed with frames, by a thread beside the one that takes the answers."""
        with self._conversations.lend() as one:
            one.call(call, **arguments)
            feeding = _Feeding(one, frames, stop, sent)
            over = threading.Event()
            outwaiting = threading.Thread(target=self._outwait, args=(one, stop, over), daemon=True)
            feeding.start()
            if stop is not never:
                outwaiting.start()
            try:
                for name, body in one.answers():
                    yield answer(name, body)
                feeding.check_end()
            except BaseException as error:
                feeding.leave()  # it may be in the middle of a write, or wait for a frame
                if feeding.failure is not None and isinstance(error, TransferError):
                    raise feeding.failure from error  # it came first, and says more than that the channel ended
                raise
            finally:
                over.set()
                feeding.join()
                if stop is not never:
                    outwaiting.join()
            if feeding.failure is not None:
                raise feeding.failure


class _Asking:
    """Sends the wants of a read, some way ahead of their turn, and holds what comes against them."""

    def __init__(self, one: Conversation, units: Iterator[list[Want]]) -> None:
        self.one = one
        self.units = units
        self.asked = Asked()
        self.over = False

    def ask(self) -> None:
        asked = self.asked
        while not self.over and len(asked.open) < AHEAD_WANTS and asked.bytes < AHEAD_BYTES:
            unit = next(self.units, None)
            if unit is None:
                self.over = True
                self.one.out.message("over")
                return
            asked.add(unit)
            send_unit(self.one.out, unit)
        self.one.out.flush()

    def frame(self, name: str, body: Any) -> Frame:
        frame = self.asked.frame(name, body)
        if name in ("end", "fault") and (
            len(self.asked.open) < AHEAD_WANTS // 2 or self.asked.bytes < AHEAD_BYTES // 2
        ):
            self.ask()
        return frame

    def end(self) -> None:
        """The far side says that this was all."""
        if self.asked.open or not self.over:
            refuse(f"{_files(len(self.asked.open))} that were asked for did not come")


class _Feeding(threading.Thread):
    """Sends frames to the far side while its answers are read."""

    def __init__(self, one: Conversation, frames: Iterable[Frame], stop: Stop, sent: Sent | SentStretches) -> None:
        super().__init__(name=f"feed-{one.host.name}", daemon=True)
        self.one = one
        self.frames = frames
        self.stop_asked = stop
        self.sent = sent
        self.left = False
        self.finished = self.stopped = False  # all was sent, or no more because of a stop
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._feed()
        except TransferError as error:
            if not self.left:  # the channel broke: who reads the answers is told so too, or first
                self.failure = error
                self.one.channel.kill()
        except BaseException as error:  # noqa: BLE001  it is raised again by the thread that takes the answers
            self.failure = error
            self.one.channel.kill()

    def leave(self) -> None:
        """End it, wherever it is: nobody takes the answers any more."""
        self.left = True
        self.one.channel.kill()
        if (end := getattr(self.frames, "end", None)) is not None:  # frames that are waited for, such as a Feed
            end()
        self.join()

    def check_end(self) -> None:
        """The far side says that it is done: Nonsense where it cannot be."""
        if self.stopped:
            return
        if not self.finished or self.sent.left():
            refuse(f"it is done before it was told all, or without an answer for {self.sent.left()}")

    def _feed(self) -> None:
        try:
            for name, body in self.frames:
                if self.left or self.stop_asked():
                    self.stopped = True
                    self.one.out.message("stop")
                    break
                self.sent.frame(name, body)
                send_frame(self.one.out, name, body)
            self.finished = True
            self.one.out.message("over")
        finally:
            if isinstance(self.frames, Generator):
                self.frames.close()


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
