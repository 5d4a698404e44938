"""A TCP proxy on 127.0.0.1 that misbehaves as networks do, counts what passes, and counts the faults that fired.

    with Proxy(sshd.port, latency_s=0.025) as proxy:          # a round trip of 50 ms
        fault = proxy.reset("down", after=1_000_000, times=1)
        ...
        assert fault.fired == 1 and proxy.up < 100_000

`up` is from the client to the server, `down` back. Everything can be changed while connections are open. One thread
carries all connections; ProxyProcess is the same in a process of its own, for who measures and needs this one's GIL.

The latency delays what passes and narrows nothing: 32 MiB may be under way in each direction. TCP itself does not see
it, because the proxy acknowledges at once: what is slowed by it are the windows and the questions of what runs inside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

Way = Literal["up", "down"]
Kind = Literal["reset", "close", "stall", "flip"]

CHUNK = 256 << 10
UNDER_WAY = 32 << 20  # what one direction of a connection may hold when there is latency
STRAIGHT = 1 << 20  # the same when there is none
SLACK_S = 0.0005  # a chunk due so soon goes now: timers count whole milliseconds
TICK_S = 0.01  # a rate is kept over so long a time
WAYS: tuple[Way, Way] = ("up", "down")


@dataclass(eq=False)
class Fault:
    """What happens to every connection once `after` bytes of it have passed one way, and how often it has happened.

    They are counted from the connection's beginning, or from when the fault was set where it was open already: 0 is
    now. `first` spares all but the next so many new connections; `times` ends it after so many connections.
    """

    kind: Kind
    way: Way
    after: int
    times: int | None = None
    numbers: range | None = None  # of the connections that it concerns, when not all
    fired: int = 0
    before: dict[int, int] = field(default_factory=dict)  # bytes that had passed when it was set, by connection

    def concerns(self, number: int) -> bool:
        spent = self.times is not None and self.fired >= self.times
        return not spent and (self.numbers is None or number in self.numbers)

    def place(self, number: int) -> int:
        """Where it lies among the bytes of a connection."""
        return self.before.get(number, 0) + self.after


class Proxy:
    """The proxy; it listens from when it is made until `stop`, or the end of its `with`."""

    def __init__(self, target_port: int, *, latency_s: float = 0.0, rate: float | None = None) -> None:
        self._target = ("127.0.0.1", target_port)
        self._latency_s = dict.fromkeys(WAYS, latency_s)
        self._links: dict[Way, _Link | None] = {way: _Link(rate) if rate else None for way in WAYS}
        self._faults: list[Fault] = []
        self._mute = False
        self._most: int | None = None
        self._fired = 0
        self.seen: list[Connection] = []  # every connection that was carried, in their order
        self._open: list[Connection] = []
        self._silent: list[socket.socket] = []
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._bell, self._ring = socket.socketpair()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Close it and everything it carries. Called twice, it does nothing."""
        if self._stopping:
            return
        with self._changing():
            self._stopping = True
        self._thread.join()
        for connection in list(self._open):
            connection.end(reset=True)
        for left in (self._listener, self._bell, self._ring, *self._silent):
            if left is not None:
                left.close()
        self._selector.close()

    # ------------------------------------------------------------------------------------- the counts

    @property
    def up(self) -> int:
        """Bytes that were sent on to the server, by all connections together."""
        return sum(one.up for one in self.seen)

    @property
    def down(self) -> int:
        """Bytes that were sent on to the clients."""
        return sum(one.down for one in self.seen)

    @property
    def connections(self) -> int:
        """How many connections were carried, or silently kept, since the beginning."""
        return len(self.seen) + len(self._silent)

    @property
    def open(self) -> int:
        """How many are open now."""
        return len(self._open)

    @property
    def fired(self) -> int:
        """How many faults met a connection: refusals are not among them, because the kernel makes these."""
        return self._fired

    # ------------------------------------------------------------------------------------- the faults

    def reset(self, way: Way, after: int, *, times: int | None = None, first: int | None = None) -> Fault:
        """RST to both sides after so many bytes one way."""
        return self._set("reset", way, after, times, first)

    def close(self, way: Way, after: int, *, times: int | None = None, first: int | None = None) -> Fault:
        """An orderly end to both sides after so many bytes one way."""
        return self._set("close", way, after, times, first)

    def stall(self, way: Way, after: int, *, times: int | None = None, first: int | None = None) -> Fault:
        """Nothing more passes this way after so many bytes, not even an end, until `clear`."""
        return self._set("stall", way, after, times, first)

    def flip(self, way: Way, after: int, *, times: int | None = None, first: int | None = None) -> Fault:
        """One bit of the byte at this offset is not what was sent."""
        return self._set("flip", way, after, times, first)

    def clear(self) -> None:
        """No faults from now on; what is stalled goes on. Latency and rates stay."""
        with self._changing():
            self._faults.clear()
            self._mute, self._most = False, None
            for connection in self._open:
                connection.resume()

    def cut(self) -> int:
        """RST to both sides of every connection that is open now; how many there were."""
        with self._changing():
            number = len(self._open)
            for connection in list(self._open):
                connection.end(reset=True)
            self._fired += number
        return number

    def refuse(self, refusing: bool = True) -> None:
        """New connections are refused, or accepted again on the same port; open ones go on."""
        with self._changing():
            if refusing and self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            elif not refusing and self._listener is None:
                self._listener = _listen(self.port)
                self._selector.register(self._listener, selectors.EVENT_READ)

    def mute(self, muted: bool = True) -> None:
        """New connections are accepted and hear nothing; those that were stay silent."""
        with self._changing():
            self._mute = muted

    def at_most(self, most: int | None) -> None:
        """More connections at once than this are reset as soon as they come."""
        with self._changing():
            self._most = most

    def delay(self, latency_s: float, way: Way | None = None) -> None:
        """Delay what is received from now on by this, one way or (None) both: half of a round trip."""
        with self._changing():
            for one in WAYS if way is None else (way,):
                self._latency_s[one] = latency_s

    def limit(self, rate: float | None, way: Way | None = None) -> None:
        """All connections together pass so many bytes a second, one way or (None) each way; None lifts it."""
        with self._changing():
            for one in WAYS if way is None else (way,):
                self._links[one] = _Link(rate) if rate else None

    def _set(self, kind: Kind, way: Way, after: int, times: int | None, first: int | None) -> Fault:
        with self._changing():
            numbers = None if first is None else range(len(self.seen) + 1, len(self.seen) + 1 + first)
            fault = Fault(kind, way, after, times, numbers)
            fault.before = {one.number: one.up if way == "up" else one.down for one in self._open}
            self._faults.append(fault)
        return fault

    # --------------------------------------------------------------------------------------- the loop

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """The loop stands while something is changed, and looks at everything again afterwards."""
        with self._lock:
            yield
        with contextlib.suppress(OSError):  # full: it will wake; closed: it was stopped
            self._ring.send(b"!", socket.MSG_DONTWAIT)

    def _run(self) -> None:
        wait: float | None = None
        while not self._stopping:
            events = self._selector.select(wait)
            with self._lock:
                for key, mask in events:
                    if key.fileobj is self._bell:
                        self._bell.recv(4096)
                    elif key.fileobj is self._listener:
                        self._accept(self._listener)
                    elif key.data is not None and mask & selectors.EVENT_READ:
                        key.data.receive(key.fileobj)
                wait = self._pump()

    def _pump(self) -> float | None:
        """Send all that may be sent now; how long until there is more of that, None when only a socket can tell."""
        now = time.monotonic()
        # In turn, so that a rate is shared.
        self._open = self._open[1:] + self._open[:1]
        waits = [wait for one in list(self._open) if (wait := one.pump(now)) is not None]
        return min(waits, default=None)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # gone before it was taken
            return
        if self._mute:
            self._fired += 1
            self._silent.append(client)
        elif self._most is not None and len(self._open) >= self._most:
            self._fired += 1
            _close(client, reset=True)
        else:
            connection = Connection(self, len(self.seen) + 1, client)
            self.seen.append(connection)
            self._open.append(connection)


class Connection:
    """One connection through a proxy: `up` and `down` count what was sent on, `open` says whether it lives."""

    def __init__(self, proxy: Proxy, number: int, client: socket.socket) -> None:
        server = socket.socket()
        self.proxy, self.number = proxy, number
        self.open, self.closing = True, False
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if any(proxy._links.values()):  # or the kernel's buffers would take in far more than the link passes
                side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        server.connect_ex(proxy._target)  # a refusal is the first thing that is read
        self._masks = {client: 0, server: 0}
        self._flows = (_Flow(self, "up", client, server), _Flow(self, "down", server, client))

    @property
    def up(self) -> int:
        return self._flows[0].passed

    @property
    def down(self) -> int:
        return self._flows[1].passed

    def receive(self, side: socket.socket) -> None:
        for flow in self._flows:
            if self.open and flow.source is side:
                flow.receive()

    def pump(self, now: float) -> float | None:
        """Send what is due, and say when there is more: as Proxy._pump."""
        waits = []
        for flow in self._flows:
            if self.open and (wait := flow.pump(now)) is not None:
                waits.append(wait)
        if self.open and all(flow.ended for flow in self._flows):
            self.end(reset=False)
        if self.open:
            self._watch()
        return min(waits, default=None) if self.open else None

    def fire(self, fault: Fault) -> None:
        fault.fired += 1
        self.proxy._fired += 1
        if fault.kind == "reset":
            self.end(reset=True)
        elif fault.kind == "close":
            self.closing = True
            for flow in self._flows:
                flow.pass_the_end()

    def resume(self) -> None:
        for flow in self._flows:
            flow.stalled = False

    def end(self, *, reset: bool) -> None:
        self.open = False
        self.proxy._open.remove(self)
        for side, mask in self._masks.items():
            if mask:
                self.proxy._selector.unregister(side)
            _close(side, reset=reset)

    def _watch(self) -> None:
        """Tell the selector what each side is waited for."""
        selector = self.proxy._selector
        for side, before in self._masks.items():
            mask = 0
            for flow in self._flows:
                mask |= selectors.EVENT_READ * (flow.source is side and flow.takes())
                mask |= selectors.EVENT_WRITE * (flow.sink is side and flow.blocked)
            if mask == before:
                continue
            if not mask:
                selector.unregister(side)
            elif before:
                selector.modify(side, mask, self)
            else:
                selector.register(side, mask, self)
            self._masks[side] = mask


class _Flow:
    """One direction of a connection: what was received stands in line until it is due."""

    def __init__(self, connection: Connection, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self.connection, self.way, self.source, self.sink = connection, way, source, sink
        self.line: deque[tuple[float, memoryview]] = deque()
        self.held = self.passed = 0
        self.heard_all = self.ended = self.stalled = self.blocked = False
        self.met: set[Fault] = set()

    def takes(self) -> bool:
        """Whether more may be received: as much as is under way on such a link."""
        proxy = self.connection.proxy
        latency_s, link = proxy._latency_s[self.way], proxy._links[self.way]
        room = UNDER_WAY if latency_s else STRAIGHT
        if link is not None:
            room = min(room, int(link.rate * (latency_s + 2 * TICK_S)) + 4096)
        return not (self.heard_all or self.stalled) and self.held < room

    def receive(self) -> None:
        if not self.takes():
            return
        try:
            data = self.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:  # reset by that side: so is the other
            self.connection.end(reset=True)
            return
        self.heard_all = not data
        if self.connection.closing:  # read and lost: an end with something unread would be a reset
            self.ended = self.heard_all
            return
        self.held += len(data)
        self.line.append((time.monotonic() + self.connection.proxy._latency_s[self.way], memoryview(data)))

    def pump(self, now: float) -> float | None:
        """Send what is due; how long until more is, None when that is not a matter of time."""
        self.blocked = False
        while self.connection.open and not self.connection.closing:
            flips, stop = self._ahead() if self.connection.proxy._faults else ([], None)
            if stop is not None and self.passed >= stop.place(self.connection.number):
                self._meet(stop)
                continue
            if self.stalled or self.blocked or self.ended or not self.line:
                return None
            due, data = self.line[0]
            if due > now + SLACK_S:
                return due - now
            if not data:
                self.pass_the_end()
                return None
            link = self.connection.proxy._links[self.way]
            room = len(data) if stop is None else min(len(data), stop.place(self.connection.number) - self.passed)
            if link is not None:
                room = min(room, link.room(now))
            if not room:
                return TICK_S / 2
            for flip in flips:
                if flip.place(self.connection.number) < self.passed + room:
                    self._flip(flip)
            self._send(room, link)
        return None

    def _send(self, room: int, link: _Link | None) -> None:
        """Send so many bytes of the head of the line, or as many as the kernel takes."""
        due, data = self.line.popleft()
        sent = 0
        try:
            sent = self.sink.send(data[:room])
        except BlockingIOError:
            pass
        except OSError:
            self.connection.end(reset=True)
        self.blocked = sent < room
        if sent < len(data):
            self.line.appendleft((due, data[sent:]))
        if link is not None:
            link.left -= sent
        self.passed += sent
        self.held -= sent

    def _ahead(self) -> tuple[list[Fault], Fault | None]:
        """The flips that this flow has not met, and the first fault of another kind, which may be due."""
        number = self.connection.number
        ahead = [
            fault
            for fault in self.connection.proxy._faults
            if fault.way == self.way and fault not in self.met and fault.concerns(number)
        ]
        flips = [fault for fault in ahead if fault.kind == "flip"]
        stops = [fault for fault in ahead if fault.kind != "flip"]
        return flips, min(stops, key=lambda fault: fault.place(number), default=None)

    def _meet(self, fault: Fault) -> None:
        self.met.add(fault)
        self.stalled |= fault.kind == "stall"
        self.connection.fire(fault)

    def _flip(self, fault: Fault) -> None:
        due, data = self.line[0]
        changed = bytearray(data)
        changed[fault.place(self.connection.number) - self.passed] ^= 0x01
        self.line[0] = (due, memoryview(changed))
        self._meet(fault)

    def pass_the_end(self) -> None:
        """Nothing more goes to the sink."""
        self.line.clear()
        self.held, self.ended, self.stalled, self.blocked = 0, self.heard_all, False, False
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)


class _Link:
    """So many bytes a second, shared by all that go one way."""

    def __init__(self, rate: float) -> None:
        self.rate, self.left, self._filled = rate, 0.0, time.monotonic()

    def room(self, now: float) -> int:
        """Bytes that may go now."""
        burst = max(self.rate * 2 * TICK_S, 1.0)
        self.left = min(burst, self.left + (now - self._filled) * self.rate)
        self._filled = now
        return max(0, int(self.left))


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    listener.setblocking(False)
    return listener


def _close(side: socket.socket, *, reset: bool) -> None:
    if reset:
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


# ------------------------------------------------------------------------------- in its own process


class ProxyProcess:
    """A Proxy in a process of its own: `call` calls its methods and reads its counts.

    with ProxyProcess(sshd.port, latency_s=0.025) as proxy:
        proxy.call("reset", "down", after=1_000_000)
        ...
        assert proxy.call("fired") == 1
    """

    def __init__(self, target_port: int, *, latency_s: float = 0.0, rate: float | None = None) -> None:
        told = [sys.executable, "-I", __file__, str(target_port), f"--latency={latency_s}", f"--rate={rate or 0}"]
        self._process = subprocess.Popen(
            told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.pid = self._process.pid
        self.port = int(self._answer())

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """A method's result, or the value of a count; of a Fault only its kind comes."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, arguments, keywords]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    @property
    def up(self) -> int:
        return int(self.call("up"))

    @property
    def down(self) -> int:
        return int(self.call("down"))

    @property
    def connections(self) -> int:
        return int(self.call("connections"))

    @property
    def fired(self) -> int:
        return int(self.call("fired"))

    def stop(self) -> None:
        """Close it and everything it carries. Called twice, it does nothing."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """`python -m tests.proxies PORT`: prints its own port, then an answer for each line [name, arguments, keywords]."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("port", type=int, help="where connections go, on 127.0.0.1")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each way")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second each way, 0 for no limit")
    told = parser.parse_args()
    with Proxy(told.port, latency_s=told.latency, rate=told.rate or None) as proxy:
        print(proxy.port, flush=True)
        for line in sys.stdin:
            name, arguments, keywords = json.loads(line)
            value = getattr(proxy, name)
            answer = value(*arguments, **keywords) if callable(value) else value
            print(json.dumps(answer.kind if isinstance(answer, Fault) else answer), flush=True)


if __name__ == "__main__":
    main()
