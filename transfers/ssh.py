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
    plain_want,
    send_frame,
    send_unit,
    units_of,
)
from transfers.answers import (
    Asked,
    Carried,
    Nonsense,
    Sent,
    SentStretches,
    clock_of,
    digest_at,
    fault_of,
    found_at,
    hdus_of,
    made_of,
    pairs,
    part_of,
    path_of,
    refuse,
    removed_at,
    scanned,
    text_of,
)
from transfers.channels import Channel, Client
from transfers.errors import HostDown, TransferError, Transient, Unsupported, from_fault, shown
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
BROKE_OFF = ("channel", "run", "connect")  # phases of the errors of a channel, not of what was done over it
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
        self.sending = threading.Lock()  # between messages of a call that is told to stop while more is sent
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
        late = threading.Event()

        def end() -> None:
            late.set()
            self.channel.kill()

        watchdog = threading.Timer(GREETING_S, end)
        watchdog.daemon = True
        watchdog.start()
        try:
            with suppress(TransferError):  # it may have ended already: reading tells why
                self.channel.write(_source() + nonce)
            self._find(GREETING + nonce + b"\n")
            name, hello = self.incoming.frame()
        except (EOFError, Fault, Nonsense, TransferError) as error:
            if late.is_set():
                text = f"no agent answered within {GREETING_S:.0f} s: the login hangs there, or is very slow"
                raise HostDown(text, host=self.host.name, side="route", phase="connect") from error
            if isinstance(error, TransferError):
                raise
            raise self._no_agent(error) from error
        finally:
            watchdog.cancel()
            watchdog.join()  # no thread of ours outlives the call
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

    def _no_agent(self, error: EOFError | Fault | Nonsense) -> TransferError:
        """Why there was no greeting. Where there is no shell or no python, another way may lead to the host."""
        if not isinstance(error, EOFError):
            text = error.text if isinstance(error, Fault) else str(error)
            return Unsupported(shown(text), host=self.host.name, phase="connect", facts={"no_agent": True})
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
                raise self.host.error(fault_of(body))
            yield name, body

    def stop(self) -> None:
        """Tell the far side to end the call, unless more is being sent and does not go out."""
        if self.sending.acquire(timeout=STOP_PATIENCE_S):
            try:
                self.out.message("stop")
            except TransferError:
                pass  # it is over already
            finally:
                self.sending.release()

    def frame(self) -> tuple[str, Any]:
        """The next frame; TransferError when the channel ended, or what came was no frame."""
        try:
            return self.incoming.frame()
        except EOFError as error:
            raise self.channel.ended() from error
        except (Fault, TypeError) as error:  # a message that is no pair
            raise self.nonsense(str(error)) from error

    def nonsense(self, what: str) -> TransferError:
        text = f"the far side does not speak as an agent does: {shown(what)[:300]}"
        return Transient(text, host=self.host.name, side="route", phase="channel")


class SshHost:
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
        self._idle: deque[Conversation] = deque()
        self._lock = threading.Lock()
        self._connecting = threading.Semaphore(CONNECTING)
        self._doubted = 0.0  # when a conversation last broke off: those from before may have ended with it
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
        except BaseException as error:  # GeneratorExit too: the far side is in the middle of something
            one.channel.kill()
            if isinstance(error, TransferError) and error.phase in BROKE_OFF:
                self._doubted = time.monotonic()
            if isinstance(error, Nonsense):
                raise one.nonsense(str(error)) from error
            if isinstance(error, Fault):  # ours: what cannot be said over the channel
                raise self.error(error) from error
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
            sound = idle < ASKED_S and one.used > self._doubted
            if one.channel.is_open() and (sound or (idle < IDLE_S and self._answers(one))):
                self._drop_old()
                return one
            one.channel.kill()

    def _answers(self, one: Conversation) -> bool:
        timer = threading.Timer(STOP_PATIENCE_S, one.channel.kill)
        timer.daemon = True
        timer.start()
        try:
            one.call("clock")
            return self._only(one, "clock") is not None
        except (TransferError, Nonsense):
            return False
        finally:
            timer.cancel()
            timer.join()

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

    def open(self, marker: str | None) -> str:
        with self._called("open", marker=marker) as one:
            self.marker = text_of(self._only(one, "marker"))
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
        self, paths: Iterable[str], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        for some in batches(paths, PATHS):
            with self._called("digest", stop, paths=some, algorithm=algorithm, reread=reread) as one:
                yield from self._each(one, "digest", partial(digest_at, algorithm), some)

    def headers(self, paths: Iterable[str], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        for some in batches(paths, PATHS):
            with self._called("headers", paths=some, limits=list(limits)) as one:
                yield from self._each(one, "hdus", partial(hdus_of, limits, one.frame), some)

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        for some in batches(paths, PATHS):
            with self._called("remove", paths=some) as one:
                yield from self._each(one, "removed", removed_at, some)

    def _each(
        self, one: Conversation, wanted: str, made: Callable[[str, Any], T], asked: list[str]
    ) -> Iterator[T | TransferError]:
        """One answer for each path that was asked for."""
        for path, name, body in pairs(asked, one.answers()):
            if name == "fault":
                yield self.error(fault_of(body))
            elif name == wanted:
                yield made(path, body)
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
                refuse(f"no answer for {carried.left()} files")

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
        with self._conversation() as one:
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
            refuse(f"{len(self.asked.open)} files that were asked for did not come")


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
