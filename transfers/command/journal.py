"""Which files a store is being given under their final names, kept on disk here.

Where a store cannot rename, a file is put under its final name at once, and a crash leaves it there half. The note
that is written before says whose it is: the next attempt may put it anew, as it may no file that it does not know.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

ENDING_S = 5.0


@dataclass(frozen=True)
class Note:
    """A file that was about to be put. `process` is the command's number, `started` tells it from a later one's."""

    path: str
    size: int
    digest: str
    item: int
    epoch: int
    token: str
    process: int = 0
    started: str = ""


class Journal:
    """Notes by path, in a folder; each is durable when `write` returns."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def note(self, path: str, size: int, digest: str, item: int, epoch: int) -> Note:
        """Write that a file is about to be put; it is this attempt's from now on."""
        note = Note(path, size, digest, item, epoch, secrets.token_hex(8))
        self.write(note)
        return note

    def begun(self, note: Note, process: int) -> None:
        """Add which process puts it."""
        self.write(replace(note, process=process, started=started(process)))

    def found(self, path: str) -> Note | None:
        """The note about a path; None where there is none, or none that can be read."""
        return self._read(self._place(path))

    def notes(self) -> Iterator[Note]:
        """All that are open, in no order."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self.folder):
                note = self._read(os.path.join(self.folder, name)) if name.endswith(".json") else None
                if note is not None:
                    yield note

    def is_open(self, note: Note) -> bool:
        """Whether a note is still this attempt's: no other began since."""
        now = self.found(note.path)
        return now is not None and now.token == note.token

    def close(self, note: Note) -> None:
        """The file is proven, or gone."""
        if self.is_open(note):
            with suppress(FileNotFoundError):
                os.unlink(self._place(note.path))

    def write(self, note: Note) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        place = self._place(note.path)
        made = f"{place}.{note.token}"
        with open(made, "w", encoding="ascii") as file:
            json.dump(asdict(note), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, place)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _place(self, path: str) -> str:
        name = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:40]
        return os.path.join(self.folder, f"{name}.json")

    def _read(self, place: str) -> Note | None:
        try:
            with open(place, encoding="ascii") as file:
                return Note(**json.load(file))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def started(process: int) -> str:
    """What tells a process of this machine from a later one of its number: the boot, and when it began. Empty where
    there is no such process, or the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        with open(f"/proc/{process}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return f"{boot}:{fields[19].decode('ascii')}" if fields[0] != b"Z" else ""


def end_process(note: Note) -> bool:
    """End the command that a dead process left putting a file, where it still runs here; whether it runs no more."""
    until = time.monotonic() + ENDING_S
    while note.started and started(note.process) == note.started:
        if time.monotonic() > until:
            return False
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(note.process, signal.SIGKILL)
        time.sleep(0.01)
    return True
