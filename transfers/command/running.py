"""Running the commands of a store: bounded in time, number and output.

A command that takes too long or is stopped is ended with all that it began, as it runs in a session of its own. One
that ends by itself has ended, though what it began may go on: a `stage` is not to wait. It reads nothing, and speaks
English (LC_ALL=C). What it printed is kept for people: nothing is believed because of it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from transfers.agent import Fault, Stop, stopped
from transfers.command.templates import Templates, filled
from transfers.errors import shown

AT_ONCE = 4
KEPT_BYTES = 64 << 10  # of what a command printed: the last of it
TOLD_LETTERS = 4000  # of that, in an error's facts
SAID_LETTERS = 300  # of that, in an error's text
LINE_BYTES = 8192  # of a line: a pattern is tried on none that is longer
LOOK_S = 0.05
GRACE_S = 2.0  # from the request to end until it is ended
LINGER_S = 1.0  # for which the output of what a command left behind is waited for

Take = Callable[[str], None]


class Ended(NamedTuple):
    """A command that ended: its words, exit status (below zero: the signal), and the last that it printed."""

    argv: tuple[str, ...]
    status: int
    said: str

    def fault(self, text: str, kind: str = "transient", **more: object) -> Fault:
        """A fault that this command is the cause of, with what it said."""
        last = " ".join(shown(self.said).replace("\\n", " ").split())[-SAID_LETTERS:]
        told = f'; it said "{last}"' if last else "; it said nothing"
        facts = {
            "argv": [shown(word) for word in self.argv],
            "exit": self.status,
            "said": said_lines(self.said),
            **more,
        }
        return Fault(kind, f"{text}{told}", phase="command", facts=facts)

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.status >= 0:
            return f"ended with exit status {self.status}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-self.status).name}"
        return f"was killed by signal {-self.status}"


def said_lines(said: str) -> str:
    """What a command said, for people: line by line, whatever else is in it escaped."""
    return "\n".join(shown(line) for line in said[-TOLD_LETTERS:].split("\n"))


class Running:
    """Runs a store's commands, some at once. Used by any number of threads."""

    def __init__(self, templates: Templates) -> None:
        self.templates = templates
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._halted = threading.Event()

    def call(
        self,
        act: str,
        values: dict[str, str] | None = None,
        paths: Sequence[str] = (),
        *,
        stop: Stop,
        take: Take | None = None,
        begun: Callable[[int], None] | None = None,
    ) -> Ended:
        """Run a command to its end, whatever that is; `take` is given every line of its standard output.

        `begun` is told the number of its process, as soon as there is one. Faults: "unsupported" where the store has
        no such command, "refused" for a name that the command cannot be given, "host down" where the program cannot
        be started, "transient" when it took too long (phase "timeout") or was stopped (phase "stopped"): it and all
        that it began is dead then.
        """
        argv = self._argv(act, values or {}, paths)
        halted = self._halted
        with self._turn(lambda: stop() or halted.is_set()):
            return Process(argv, self.templates.timeout_s, lambda: stop() or halted.is_set(), take).ended(begun)

    def halt(self) -> None:
        """End all commands that run now; those that are begun later are not concerned."""
        halted, self._halted = self._halted, threading.Event()
        halted.set()

    def _argv(self, act: str, values: dict[str, str], paths: Sequence[str]) -> list[str]:
        words = self.templates.words(act)
        if words is None:
            raise Fault("unsupported", f"the store has no command to {act} with: its configuration names none")
        try:
            return filled(words, values, paths)
        except ValueError as error:
            raise Fault("refused", str(error)) from None

    @contextmanager
    def _turn(self, stop: Stop) -> Iterator[None]:
        while not self._room.acquire(timeout=LOOK_S):
            if stop():
                raise stopped()
        try:
            yield
        finally:
            self._room.release()


class Process:
    """One command while it runs. Its output is read as it comes."""

    def __init__(self, argv: list[str], timeout_s: float, stop: Stop, take: Take | None) -> None:
        self.argv = argv
        self.timeout_s = timeout_s
        self.stop = stop
        self.take = take
        self.said = bytearray()
        self.line = bytearray()
        self.naps = 0
        self.process: subprocess.Popen[bytes]

    def ended(self, begun: Callable[[int], None] | None) -> Ended:
        """Begin it, and wait for its end."""
        if self.stop():
            raise stopped()
        self._begin()
        try:
            if begun is not None:
                begun(self.process.pid)
            self._read()
        except BaseException:
            self.kill()
            raise
        finally:
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()
        if self.line and self.take is not None:
            self._take_line(bytes(self.line))
        return Ended(tuple(self.argv), self.process.wait(), self.said.decode("utf-8", "surrogateescape"))

    def _begin(self) -> None:
        try:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            text = f"the program {self.argv[0]!r} cannot be started here: {why}"
            raise Fault("host down", text, side="local", phase="command", facts={"argv": self.argv[:1]}) from error

    def _read(self) -> None:
        """Its output, until it has ended and that is over; Fault "transient" when it is to end before."""
        until = time.monotonic() + self.timeout_s
        gone: float | None = None  # when it was seen to have ended
        with selectors.DefaultSelector() as selector:
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map() or gone is None:
                now = time.monotonic()
                if self.stop():
                    raise stopped()
                if gone is None and now > until:
                    raise self._too_long()
                if gone is not None and now > gone + LINGER_S:
                    return  # something that it began holds its output open
                self._read_some(selector)
                if gone is None and self.has_ended():
                    gone = time.monotonic()

    def _read_some(self, selector: selectors.BaseSelector) -> None:
        if not selector.get_map():  # its output is over, and it is about to end
            self.naps += 1
            time.sleep(min(LOOK_S, self.naps * LOOK_S / 50))
            return
        for key, _ in selector.select(LOOK_S):
            data = os.read(key.fd, 1 << 16)
            if not data:
                selector.unregister(key.fileobj)
                continue
            self.said += data
            del self.said[:-KEPT_BYTES]
            if key.fileobj is self.process.stdout and self.take is not None:
                self._take(data)

    def _take(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._take_line(bytes(self.line) + line)
            self.line.clear()
        self.line += rest
        del self.line[LINE_BYTES + 1 :]

    def _take_line(self, line: bytes) -> None:
        """Hand a line on; the begin of one that is too long, with a NUL that no listing has."""
        assert self.take is not None
        if len(line) > LINE_BYTES:
            line = line[:200] + b"\0"
        self.take(line.decode("utf-8", "surrogateescape").removesuffix("\r"))

    def _too_long(self) -> Fault:
        ended = Ended(tuple(self.argv), 0, self.said.decode("utf-8", "surrogateescape"))
        fault = ended.fault(f"{self.argv[0]} did not end within {self.timeout_s:g} s and was killed")
        fault.phase = "timeout"
        return fault

    def has_ended(self) -> bool:
        """Whether it has ended. It keeps its number until it is waited for, so that no other can be killed for it."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """End it and all that is of its session still; first it is asked to."""
        self._signal(signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until and not self.has_ended():
            time.sleep(LOOK_S / 5)
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, where no signal reaches it
            self.process.wait(GRACE_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
