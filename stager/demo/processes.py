"""The demo's processes: the daemon, which never outlives the demo, and the commands that are shown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from stager.commands.common import say

COMMAND = (sys.executable, "-m", "stager")
PATIENCE_S = 120  # for one command
PIPED_COLUMNS = 80
NOT_FOR_CHILDREN = ("STAGER_CONFIG", "STAGER_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class DemoFailed(Exception):
    """Something went otherwise than the demo shows; the sentence says what."""


class Shell:
    """Runs the commands of the demo in its folder, and shows them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = environment()

    def show(self, *arguments: str, expected: int = 0, most: int | None = None) -> None:
        """Run `stager ARGUMENTS` and show it with its output, of that the first `most` lines and the last two.

        Raises DemoFailed where the exit status is not the expected one.
        """
        self.tell(f"stager {_typed(arguments)}")
        pipe = None if most is None else subprocess.PIPE
        ended = self._run(arguments, stdout=pipe)
        if most is not None:
            lines = [line for line in ended.stdout.splitlines() if line.strip()]
            cut = lines if len(lines) <= most + 2 else [*lines[:most], "  ...", *lines[-2:]]
            say("\n".join(cut) + "\n")
        self._must_be(ended, arguments, expected)

    def ask(self, *arguments: str) -> Any:
        """What `stager ARGUMENTS --json` prints, parsed. Not shown."""
        ended = self._run((*arguments, "--json"), stdout=subprocess.PIPE)
        try:
            return json.loads(ended.stdout)
        except ValueError:
            raise DemoFailed(f"`stager {_typed(arguments)} --json` printed no JSON (exit {ended.returncode})") from None

    def tell(self, line: str) -> None:
        """Show a command as a person would type it."""
        print(f"$ {line}", flush=True)  # noqa: T201  what commands draw; flushed, for theirs comes after it

    def _run(self, arguments: Sequence[str], stdout: int | None) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*COMMAND, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                text=True,
                errors="replace",
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"`stager {_typed(arguments)}` did not end within {PATIENCE_S} s") from None

    def _must_be(self, ended: subprocess.CompletedProcess[str], arguments: Sequence[str], expected: int) -> None:
        if ended.returncode != expected:
            said = f"`stager {_typed(arguments)}` ended with {ended.returncode}, expected {expected}"
            raise DemoFailed(said)


def _typed(arguments: Sequence[str]) -> str:
    return " ".join(f'"{word}"' if " " in word else word for word in arguments)


def environment() -> dict[str, str]:
    """The environment of the demo's processes: this very Stager; 80 columns where there is no terminal."""
    found = {name: value for name, value in os.environ.items() if name not in NOT_FOR_CHILDREN}
    home = str(Path(__file__).parents[2])
    if home not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):  # a checkout
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [home, found.get("PYTHONPATH")]))
    if not sys.stdout.isatty():
        found.setdefault("COLUMNS", str(PIPED_COLUMNS))
    return found


def how_to_call() -> list[str]:
    """What a person must type before `stager` works in this terminal; nothing where it does already."""
    if shutil.which("stager"):
        return []
    beside = Path(sys.executable).with_name("stager")
    if beside.is_file():
        return [f'export PATH="{beside.parent}:$PATH"']
    home = Path(__file__).parents[2]
    return [f'stager() {{ PYTHONPATH="{home}" "{sys.executable}" -m stager "$@"; }}']


@contextmanager
def running_daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon of a folder, its log in daemon.log there; it is gone at the end, however the block ends."""
    with (folder / "daemon.log").open("ab") as log:
        daemon = subprocess.Popen(
            [*COMMAND, "daemon"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends the daemon
        )
    try:
        yield daemon
    finally:
        stop(daemon)


def stop(daemon: subprocess.Popen[bytes], patience_s: float = 30.0) -> int:
    """End the daemon with SIGTERM, and where that takes too long with SIGKILL; its exit status."""
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    try:
        return daemon.wait(patience_s)
    except BaseException:  # also a second Ctrl-C: it must not outlive us
        daemon.kill()
        daemon.wait()
        raise


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, so that everything it began is ended too."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
