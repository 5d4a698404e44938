"""Conversations with agents on a far host: begun over channels, kept while they are idle, lent for a call at a time."""

from __future__ import annotations

import secrets
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from transfers import agent as agent_module
from transfers.agent import GREETING, PROTOCOL, Incoming, Outgoing
from transfers.errors import HostDown, TransferError, Transient, Unsupported, shown
from transfers.hosts import Fault
from transfers.ssh.answers import Nonsense, fault_of
from transfers.ssh.channels import Channel, Client

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
STOP_PATIENCE_S = 6.0  # for the far side to end after it was told to stop
BROKE_OFF = ("channel", "run", "connect")  # phases of the errors of a channel, not of what was done over it
NOT_THERE = (126, 127)  # what a shell ends with when it cannot run a program


# Read when this module is, and not later: after an upgrade under a running daemon it would be another agent's.
SOURCE = Path(agent_module.__file__).read_bytes()


@cache
def _source() -> bytes:
    """The agent's source as it is sent: the length of its packed form in eight hex digits, and that."""
    packed = zlib.compress(SOURCE, 9)
    return b"%08x" % len(packed) + packed


class Served(Protocol):
    """The host whose files an agent serves, as far as its conversations know it."""

    name: str
    root: str
    python: str
    client: Client
    options: dict[str, Any]
    marker: str | None
    round_trip_s: float

    def error(self, fault: Fault) -> TransferError: ...


class Conversation:
    """One channel with an agent at its other end that has been greeted. For one call at a time."""

    def __init__(self, host: Served) -> None:
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
            at = bytes(incoming.room[incoming.start : incoming.end]).find(greeting)
            if at >= 0:
                incoming.start += at + len(greeting)
                return
            noise = max(0, incoming.end - incoming.start - len(greeting))  # the rest may be its beginning
            incoming.start += noise
            passed += noise
            if passed > NOISE_BYTES:
                raise Fault("unsupported", f"no agent answered among the first {NOISE_BYTES} bytes", phase="connect")
            incoming.more(len(greeting) + 1)

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
            self.begin()
        self._call(name, **arguments)

    def begin(self) -> None:
        """Tell the agent which root it serves, and the marker that must be there; tells how long a round trip takes."""
        self.marker = self.host.marker
        begun = time.monotonic()
        self._call("begin", root=self.host.root, marker=self.marker, **self.host.options)
        for _ in self.answers():
            raise self.nonsense("an answer to begin")
        self.host.round_trip_s = time.monotonic() - begun
        self.begun = True

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


class Conversations:
    """The conversations with one host. Used by several threads."""

    def __init__(self, host: Served) -> None:
        self.host = host
        self._idle: deque[Conversation] = deque()
        self._changed = threading.Condition()
        self._connecting = threading.Semaphore(CONNECTING)
        self._preparing = 0  # are being begun ahead of their calls...
        self._waiting = 0  # ...which wait for them
        self._doubted = 0.0  # when a conversation last broke off: those from before may have ended with it
        self._closed = 0  # how often `close` was called: a conversation from before is not kept

    @contextmanager
    def lend(self) -> Iterator[Conversation]:
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
                raise self.host.error(error) from error
            raise
        self._keep(one, closed)

    def prepare(self, count: int) -> None:
        """Begin conversations beside what goes on, so that so many calls find one. What fails, the calls will tell."""
        with self._changed:
            missing = count - len(self._idle) - self._preparing
            self._preparing += max(0, missing)
        for _ in range(missing):
            threading.Thread(target=self._prepare, name=f"connect-{self.host.name}", daemon=True).start()

    def close(self) -> None:
        with self._changed:
            self._closed += 1
            idle, self._idle = list(self._idle), deque()
        for one in idle:
            one.channel.kill()

    def _prepare(self) -> None:
        closed = self._closed
        one = None
        try:
            one = self._made()
            one.begin()
        except (TransferError, Nonsense, Fault):
            if one is not None:
                one.channel.kill()
                one = None
        finally:
            self._keep(one, closed, prepared=1)

    def _keep(self, one: Conversation | None, closed: int, prepared: int = 0) -> None:
        """Put a conversation where the next call finds it, unless the host was closed since it was begun."""
        with self._changed:
            self._preparing -= prepared
            if one is not None and closed == self._closed:
                one.used = time.monotonic()
                self._idle.append(one)
                one = None
            self._changed.notify_all()
        if one is not None:
            one.channel.kill()

    def _taken(self) -> Conversation | None:
        """An idle conversation whose other end is still there, the one that was used last; one that is about to be,
        where it was prepared for this call."""
        while True:
            with self._changed:
                self._waiting += 1
                while not self._idle and self._preparing >= self._waiting:
                    self._changed.wait()
                self._waiting -= 1
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
            return [name for name, _ in one.answers()] == ["clock"]
        except (TransferError, Nonsense):
            return False
        finally:
            timer.cancel()
            timer.join()

    def _drop_old(self) -> None:
        now = time.monotonic()
        with self._changed:
            old = [one for one in self._idle if now - one.used > IDLE_S]
            for one in old:
                self._idle.remove(one)
        for one in old:
            one.channel.kill()

    def _made(self) -> Conversation:
        with self._connecting:
            return Conversation(self.host)
