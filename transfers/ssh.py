"""A host behind SSH: the agent, sent to the far python3 and spoken to over a channel.

Nothing is installed there and nothing left behind. Each conversation is one connection with an agent at its end, kept
for the next call and ended when it has been idle; several run side by side. Here what the far side says is checked
before it is believed, and its faults become this host's errors.
"""

from __future__ import annotations

import secrets
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from transfers import agent as agent_module
from transfers.agent import (
    GREETING,
    PROTOCOL,
    Incoming,
    Outgoing,
    batches,
    checked,
    facts_of,
    fault_from,
    plain_want,
    send_frame,
    send_unit,
    units_of,
)
from transfers.channels import Channel, Client
from transfers.errors import TransferError, Transient, Unsupported, from_fault, shown
from transfers.hosts import (
    LIMITS,
    Clock,
    Fault,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Limits,
    Opened,
    Receipt,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)

T = TypeVar("T")

# Reads the agent's source, so many bytes of it, and runs it. One line without a double quote, a dollar, a backquote
# or an exclamation mark, so that sh, csh and fish hand it on as it is. The folder it runs in must lend no module.
BOOT = (
    "import os,sys,zlib;sys.path[:]=[p for p in sys.path if p];"
    "r=lambda n,b=bytes():b if len(b)>=n else r(n,b+(os.read(0,n-len(b)) or sys.exit(3)));"
    "exec(compile(zlib.decompress(r(int(r(8),16))),'stager-agent','exec'),{'__name__':'stager-agent'})"
)
NOISE_BYTES = 1 << 20  # of a shell's own talk before the agent's greeting
ANSWER_MOST = 2 << 20  # bytes of one answer: what is not trusted must not fill our memory
GREETING_S = 60.0
IDLE_S = 120.0  # after which an idle conversation is ended...
ASKED_S = 20.0  # ...or asked whether it is still there, before it is trusted with a call
CONNECTING = 6  # handshakes at the same time: sshd's MaxStartups begins to refuse at 10
AHEAD_WANTS = 64  # wants that the far side knows of before their turn...
AHEAD_BYTES = 8 << 20  # ...or so many bytes
PATHS = 500  # of one call
STOP_PATIENCE_S = 15.0  # for the far side to end after it was told to stop
NOT_THERE = (126, 127)  # what a shell ends with when it cannot run a program


@cache
def _source() -> bytes:
    """The agent's source as it is sent: the length of its packed form in eight hex digits, and that."""
    packed = zlib.compress(Path(agent_module.__file__).read_bytes(), 9)
    return b"%08x" % len(packed) + packed


class Conversation:
    """One channel with an agent at its other end that has been greeted. For one call at a time."""

    def __init__(self, host: SshHost) -> None:
        self.host = host
        self.used = time.monotonic()
        self.begun = False  # the agent knows which root it serves, and the marker that was known then
        self.marker: str | None = None
        self.channel: Channel = host.client.run(f'exec {host.python} -c "{BOOT}"')
        self.out = Outgoing(self.channel.write)
        self.incoming = Incoming(self.channel.read_into, ANSWER_MOST)
        try:
            self.hello = self._greet()
        except BaseException:
            self.channel.kill()
            raise

    def _greet(self) -> dict[str, Any]:
        """Send the agent and wait for its greeting, past whatever the far shell prints before."""
        nonce = secrets.token_hex(16).encode()
        watchdog = threading.Timer(GREETING_S, self.channel.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            with suppress(TransferError):  # it may have ended already: reading tells why
                self.channel.write(_source() + nonce)
            self._find(GREETING + nonce + b"\n")
            name, hello = self.incoming.frame()
        except (EOFError, Fault) as error:
            raise self._no_agent(error) from error
        finally:
            watchdog.cancel()
        if name != "hello" or not isinstance(hello, dict) or hello.get("protocol") != PROTOCOL:
            text = f"the agent there speaks another protocol than this Stager ({shown(str(hello))[:200]})"
            raise Unsupported(f"{text}: install the agent of this version there", host=self.host.name, phase="connect")
        return hello

    def _find(self, greeting: bytes) -> None:
        """Read up to the end of the greeting; Fault when it does not come."""
        incoming, passed = self.incoming, 0
        while True:
            at = bytes(incoming.room[: incoming.end]).find(greeting)
            if at >= 0:
                incoming.start = at + len(greeting)
                return
            incoming.start = max(0, incoming.end - len(greeting))
            passed += incoming.start
            if passed > NOISE_BYTES:
                raise Fault("unsupported", f"no agent answered among the first {NOISE_BYTES} bytes", phase="connect")
            incoming.more()

    def _no_agent(self, error: EOFError | Fault) -> TransferError:
        """Why there was no greeting. Where there is no shell or no python, another way may lead to the host."""
        if isinstance(error, Fault):
            return Unsupported(error.text, host=self.host.name, phase="connect", facts={"no_agent": True})
        ended = self.channel.ended()
        status = ended.facts.get("status")
        if status is None or 128 < status < 160 or status < 0:
            return ended
        what = "there is no shell for us, or it cannot run python3"
        if status in NOT_THERE:
            what = f"the shell there finds no {self.host.python}; `python` names another one"
        facts = {"no_agent": True, "status": status}
        return Unsupported(f"{what}: {ended.text}", host=self.host.name, phase="connect", facts=facts)

    # One call.

    def call(self, name: str, **arguments: Any) -> None:
        if not self.begun or self.marker != self.host.marker:
            self.marker = self.host.marker
            begun = time.monotonic()
            self._call("begin", root=self.host.root, marker=self.marker, **self.host.options)
            for _ in self.answers():
                raise self.nonsense("an answer to begin")
            self.host.round_trip_s = time.monotonic() - begun
            self.begun = True
        self._call(name, **arguments)

    def _call(self, name: str, **arguments: Any) -> None:
        self.out.message("call", {"name": name, "arguments": arguments})

    def answers(self) -> Iterator[tuple[str, Any]]:
        """What the agent answers, up to the end of the call; the fault that a call as a whole ends with is raised."""
        while True:
            name, body = self.frame()
            if name == "done":
                return
            if name == "failed":
                raise self.host.error(fault_from(body))
            yield name, body

    def frame(self) -> tuple[str, Any]:
        """The next frame; TransferError when the channel ended, or what came was no frame."""
        try:
            return self.incoming.frame()
        except EOFError as error:
            raise self.channel.ended() from error
        except Fault as fault:
            raise self.nonsense(fault.text) from fault

    def nonsense(self, what: str) -> TransferError:
        text = f"the far side does not speak as an agent does: {shown(what)[:300]}"
        return Transient(text, host=self.host.name, side="route", phase="channel")


class SshHost:
    """Files beneath a folder of a far machine."""

    far = True
    cuts = True

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
        self._idle: deque[Conversation] = deque()
        self._lock = threading.Lock()
        self._connecting = threading.Semaphore(CONNECTING)
        self._closed = 0  # how often `close` was called: a conversation from before is not kept

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.root!r}, {self.client.name})"

    # Conversations.

    @contextmanager
    def _conversation(self) -> Iterator[Conversation]:
        """A conversation for one call, kept for the next one if that ended as it should."""
        closed = self._closed
        one = self._taken() or self._made()
        try:
            yield one
        except BaseException:  # GeneratorExit too: the far side is in the middle of something
            one.channel.kill()
            raise
        one.used = time.monotonic()
        with self._lock:
            if kept := closed == self._closed:
                self._idle.append(one)
        if not kept:
            one.channel.kill()

    def _taken(self) -> Conversation | None:
        """An idle conversation whose other end is still there; the one that was used last."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                one = self._idle.pop()
            idle = time.monotonic() - one.used
            if idle < ASKED_S or (idle < IDLE_S and self._answers(one)):
                self._drop_old()
                return one
            one.channel.kill()

    def _answers(self, one: Conversation) -> bool:
        timer = threading.Timer(STOP_PATIENCE_S, one.channel.kill)
        timer.start()
        try:
            one.call("clock")
            return [name for name, _ in one.answers()] == ["clock"]
        except TransferError:
            return False
        finally:
            timer.cancel()

    def _drop_old(self) -> None:
        now = time.monotonic()
        with self._lock:
            old = [one for one in self._idle if now - one.used > IDLE_S]
            for one in old:
                self._idle.remove(one)
        for one in old:
            one.channel.kill()

    def _made(self) -> Conversation:
        with self._connecting:
            return Conversation(self)

    def close(self) -> None:
        with self._lock:
            self._closed += 1
            idle, self._idle = list(self._idle), deque()
        for one in idle:
            one.channel.kill()

    @contextmanager
    def _called(self, name: str, stop: Stop = never, **arguments: Any) -> Iterator[Conversation]:
        """A call that has been sent. `stop`, where there is one, is asked now and then, and told to the far side."""
        with self._conversation() as one:
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
                with suppress(TransferError):
                    one.out.message("stop")
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

    def open(self, marker: str | None) -> str:
        with self._called("open", marker=marker) as one:
            self.marker = _text(one, self._only(one, "marker"))
        return self.marker

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]:
        with self._called("scan", prefix=prefix) as one:
            for name, body in one.answers():
                if name == "skipped":
                    yield _made_of(one, Skipped, body)
                else:
                    yield _within(one, prefix, _made_of(one, FileInfo, self._checked(one, name, body, "info", list)))

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]:
        for some in batches(paths, PATHS):
            with self._called("find", paths=some) as one:
                yield from self._each(one, "info", _info, some)

    def digest(
        self, paths: Iterable[str], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        for some in batches(paths, PATHS):
            with self._called("digest", stop, paths=some, algorithm=algorithm, reread=reread) as one:
                yield from self._each(one, "digest", _digest, some)

    def headers(self, paths: Iterable[str], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        for some in batches(paths, PATHS):
            with self._called("headers", paths=some, limits=list(limits)) as one:
                yield from self._each(one, "hdus", partial(_hdus, limits), some)

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        for some in batches(paths, PATHS):
            with self._called("remove", paths=some) as one:
                yield from self._each(one, "removed", _text, some)

    def _each(
        self, one: Conversation, wanted: str, made: Callable[[Conversation, Any], T], asked: list[str]
    ) -> Iterator[T | TransferError]:
        """One answer for each path that was asked for."""
        count = 0
        for name, body in one.answers():
            count += 1
            if count > len(asked):
                break
            if name == "fault":
                yield self.error(fault_from(body))
            else:
                yield made(one, self._checked(one, name, body, wanted, object))
        if count != len(asked):
            raise one.nonsense(f"{count} answers to {len(asked)} questions")

    def space(self) -> Space:
        with self._called("space") as one:
            return _made_of(one, Space, self._only(one, "space"))

    def clock(self) -> Clock:
        with self._called("space") as one:  # the first call of a conversation may have another before it
            self._only(one, "space")
            asked, begun = time.time(), time.monotonic()
            one.call("clock")
            there = self._only(one, "clock")
            taken = time.monotonic() - begun
            if not isinstance(there, float):
                raise one.nonsense(f"no time: {there}")
            return Clock(there - (asked + taken / 2), taken)

    def _only(self, one: Conversation, wanted: str) -> Any:
        """The one answer to a call that has one."""
        found = [self._checked(one, name, body, wanted, object) for name, body in one.answers()]
        if len(found) != 1:
            raise one.nonsense(f"{len(found)} answers to one question")
        return found[0]

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
            return _text(one, self._only(one, "unpacked"))

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]:
        removed: list[str] = []
        with self._called("sweep", prefix=prefix) as one:
            for name, body in one.answers():
                if name == "part" and isinstance(body, list) and len(body) == 2:
                    one.out.message("dead", bool(dead(int(body[0]), int(body[1]))))
                else:
                    removed.append(_text(one, self._checked(one, name, body, "swept", str)))
        return removed

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        """The frames, in the order of the wants; these are asked for as they are sent on, not all at once."""
        with self._called("read") as one:
            asking = _Asking(one, units_of(wants))
            asking.ask()
            for name, body in one.answers():
                yield asking.checked(name, body)
            if asking.open:
                raise one.nonsense(f"{len(asking.open)} files that were asked for did not come")

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError | Opened]:
        sent = _Sent()
        for name, body, one in self._fed("land", frames, stop, sent, proof=proof):
            if name == "fault":
                yield self.error(sent.fault(one, body))
            elif name == "opened":
                yield _made_of(one, Opened, body)
            else:
                receipt = _made_of(one, Receipt, self._checked(one, name, body, "receipt", list))
                if sent.said.pop((receipt.item, receipt.path), None) != (receipt.size, receipt.digest):
                    raise one.nonsense("a receipt for something that was not sent")
                yield receipt

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        for name, body, one in self._fed("fill", frames, stop, None):
            if name == "fault":
                yield self.error(fault_from(body))
            else:
                yield _made_of(one, Filled, self._checked(one, name, body, "filled", list))

    def carry(
        self, wants: Iterable[Want], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        with self._called("carry", stop, proof=proof) as one:
            for unit in units_of(wants):
                send_unit(one.out, unit)
            one.out.message("over")
            for name, body in one.answers():
                if name == "fault":
                    yield self.error(fault_from(body))
                else:
                    yield _made_of(one, Receipt, self._checked(one, name, body, "receipt", list))

    def _fed(
        self, call: str, frames: Iterable[Frame], stop: Stop, sent: _Sent | None, **arguments: Any
    ) -> Iterator[tuple[str, Any, Conversation]]:
        """The answers to a call that is fed with frames, by a thread beside the one that takes the answers."""
        with self._conversation() as one:
            one.call(call, **arguments)
            feeding = _Feeding(one, frames, stop, sent)
            over = threading.Event()
            try:
                feeding.start()
                if stop is not never:
                    threading.Thread(target=self._outwait, args=(one, stop, over), daemon=True).start()
                for name, body in one.answers():
                    yield name, body, one
            except BaseException:
                feeding.left = True
                one.channel.kill()  # it may be in the middle of a write
                raise
            finally:
                over.set()
                feeding.join()
            if feeding.failure is not None:
                raise feeding.failure

    def _checked(self, one: Conversation, name: str, body: Any, wanted: str, kind: type) -> Any:
        if name != wanted or not isinstance(body, kind):
            raise one.nonsense(f"{name} instead of {wanted}")
        return body


class _Asking:
    """Sends the wants of a read, some way ahead of their turn, and holds what comes against them.

    Where a file goes, and what it is, is said by the want and never by the far side.
    """

    def __init__(self, one: Conversation, units: Iterator[list[Want]]) -> None:
        self.one = one
        self.units = units
        self.open: deque[Want] = deque()  # that were asked for and are not answered
        self.begun: deque[int] = deque()  # the wants of each unit whose beginning has not come
        self.bytes = 0  # of the open ones
        self.inside = False
        self.over = False

    def ask(self) -> None:
        while not self.over and len(self.open) < AHEAD_WANTS and self.bytes < AHEAD_BYTES:
            unit = next(self.units, None)
            if unit is None:
                self.over = True
                self.one.out.message("over")
                return
            self.open.extend(unit)
            self.bytes += sum(_size_of(want) for want in unit)
            if len(unit) > 1:
                self.begun.append(len(unit))
            send_unit(self.one.out, unit)
        self.one.out.flush()

    def checked(self, name: str, body: Any) -> Frame:
        """A frame of the far side's, if it is one that may come now."""
        if name == "unit" and self.begun and body == self.begun.popleft():
            return name, body
        if name == "file" and self.open and not self.inside and isinstance(body, dict):
            self.inside = True
            size, mtime_ns = body.get("size"), body.get("mtime_ns")
            if all(value is None or (type(value) is int and value >= 0) for value in (size, mtime_ns)):
                return facts_of(self.open[0], size, mtime_ns)
        if name == "data" and self.inside:
            return name, body
        if name in ("end", "fault") and self.inside and isinstance(body, dict):
            self.answered()
            if name == "fault":
                return name, fault_from(body)
            size, digest = body.get("size"), body.get("digest")
            if type(size) is int and size >= 0 and isinstance(digest, str) and len(digest) < 200:
                return name, {"size": size, "digest": digest}
        raise self.one.nonsense(f"{name} where it does not belong: {str(body)[:200]}")

    def answered(self) -> None:
        self.inside = False
        self.bytes -= _size_of(self.open.popleft())
        if len(self.open) < AHEAD_WANTS // 2 or self.bytes < AHEAD_BYTES // 2:
            self.ask()


def _size_of(want: Want) -> int:
    return want.stretch[1] if want.stretch else want.size or 0


class _Sent:
    """What was said of each file that was sent to be landed, so that a receipt can be held against it."""

    def __init__(self) -> None:
        self.said: dict[tuple[int, str], tuple[int, str]] = {}
        self._begun: set[tuple[int, str]] = set()
        self._at = (0, "")
        self._opened: dict[int, str] = {}

    def frame(self, name: str, body: Any) -> None:
        if name in ("file", "open"):
            self._at = (body["item"], body["path"])
            self._begun.add(self._at)
        if name == "open":
            self._opened[body["item"]] = body["path"]
        elif name == "end":
            self.said[self._at] = (body["size"], body["digest"])
        elif name == "close":
            self.said[body["item"], self._opened[body["item"]]] = (body["size"], body["digest"])

    def fault(self, one: Conversation, body: Any) -> Fault:
        """The fault of a file that was sent."""
        fault = fault_from(body)
        if (fault.facts.get("item"), fault.facts.get("destination")) not in self._begun:
            raise one.nonsense(f"a fault of something that was not sent: {fault}")
        return fault


class _Feeding(threading.Thread):
    """Sends frames to the far side while its answers are read."""

    def __init__(self, one: Conversation, frames: Iterable[Frame], stop: Stop, sent: _Sent | None) -> None:
        super().__init__(name=f"feed-{one.host.name}", daemon=True)
        self.one = one
        self.frames = frames
        self.stop_asked = stop
        self.sent = sent
        self.left = False
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

    def _feed(self) -> None:
        try:
            for name, body in self.frames:
                if self.left or self.stop_asked():
                    self.one.out.message("stop")
                    break
                if self.sent is not None:
                    self.sent.frame(name, body)
                send_frame(self.one.out, name, body)
            self.one.out.message("over")
        finally:
            if isinstance(self.frames, Generator):
                self.frames.close()


def _made_of(one: Conversation, kind: Callable[..., T], body: Any) -> T:
    """A NamedTuple of the agent's from a message, each field of the type that it must have."""
    types = list(kind.__annotations__.values())
    if not isinstance(body, list) or [type(value) for value in body] != types:
        raise one.nonsense(f"no {getattr(kind, '__name__', kind)}: {body}")
    if any(type(value) is int and value < 0 for value in body[1:2]):  # the second is a size wherever it is a number
        raise one.nonsense(f"no size: {body}")
    return kind(*body)


def _within(one: Conversation, prefix: str, info: FileInfo) -> FileInfo:
    """The file, if its path is one, and below the prefix that was scanned."""
    try:
        inside = not prefix or info.path == prefix or checked(info.path).startswith(f"{prefix}/")
    except Fault:
        inside = False
    if not inside:
        raise one.nonsense(f"a path that is not below {prefix or 'the root'}: {info.path}")
    return info


def _info(one: Conversation, body: Any) -> FileInfo | None:
    return None if body is None else _made_of(one, FileInfo, body)


def _text(one: Conversation, body: Any) -> str:
    if not isinstance(body, str):
        raise one.nonsense(f"no path: {body}")
    return body


def _digest(one: Conversation, body: Any) -> tuple[str, int, str]:
    if not (isinstance(body, list) and [type(value) for value in body] == [str, int, str]):
        raise one.nonsense(f"no digest: {body}")
    return body[0], body[1], body[2]


def _hdus(limits: Limits, one: Conversation, body: Any) -> tuple[Hdu, ...]:
    """The HDUs that a message announces; their header bytes follow it."""
    if not isinstance(body, list) or len(body) > limits.hdus or sum(row[0] for row in body) > limits.header_bytes:
        raise one.nonsense("no HDUs")
    found = []
    for length, offset, data_offset, data_size in body:
        header = bytearray()
        while len(header) < length:
            name, data = one.frame()
            if name != "data":
                raise one.nonsense(f"{name} instead of a header")
            header += data
        found.append(Hdu(offset, bytes(header), data_offset, data_size))
    return tuple(found)
