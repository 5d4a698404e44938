"""A TEST TOOL that stands in for a tape store: a program such as HPSS's `hsi` or NCSA's `msscmd`, with tapes of air.

    python -m stager.demo.tape --state DIR COMMAND ...

It keeps nothing safe and is no mass store; tests and the demo drive it through the driver "command". Any number of
processes may use one DIR at once. The files lie below DIR/files by their own paths, so that a test can damage or plant
them there; one that was planted is resident. Time is the wall clock's: with no daemon, every command first does what
the drives would have done since the last.

A file is `resident` (on disk, it can be brought at once), `migrated` (on a volume of tape, at a position), `staging`
(asked for and not yet there) or `lost`. `ls` prints a line a file, in no order but the folders':

    STATE SIZE MTIME VOLUME POSITION DIGEST PATH          ("-" for what there is not)

Exit status: 0 done, 1 refused or not there, 2 bad usage, 75 the store is down; and whatever `fail` asks for.
Standard library only, and one file: it is started for every command. `main` may also be called, with streams.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TextIO

LISTED = (
    r"(?P<state>[a-z]+) (?P<size>\d+) (?P<mtime>\d+\.\d+) (?:-|(?P<volume>\S+)) (?:-|(?P<position>\d+))"
    r" (?:-|(?P<digest>\S+)) (?P<path>/.*)"
)
SETTINGS: dict[str, tuple[str, str]] = {
    "latency": ("0.05", "seconds that a drive needs to bring one file"),
    "mount": ("0", "seconds more where the drive must mount another volume for it"),
    "drives": ("2", "how many files come at once"),
    "get": ("fail", "what get does with a file that is not resident: fail, or stage it and wait"),
    "wait_s": ("60", "seconds that such a get waits"),
    "put_s": ("0", "seconds that a put sleeps when half of the file is there"),
    "get_s": ("0", "seconds that a get sleeps when half of the file is there, less where this becomes less meanwhile"),
    "room_bytes": ("", "bytes of files that there is room for; empty: any number"),
    "migrate_s": ("", "seconds after which a resident file migrates by itself; empty: never"),
    "volume_bytes": ("1000000000", "bytes that a volume takes before the next is begun"),
    "times": ("kept", "a stored file's time: kept (its own) or put (when it was stored)"),
    "missing": ("1", "the exit status of ls for a path that is not there"),
    "replaces": ("yes", "whether put and rename replace a file that is there, without a word: yes or no"),
    "down": ("no", "yes: every command but those that control the simulator fails with 75"),
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS files(
  path BLOB PRIMARY KEY, state TEXT, volume TEXT, position INTEGER, since REAL, digest TEXT, refused INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS requests(
  id INTEGER PRIMARY KEY, path BLOB, volume TEXT, position INTEGER, asked REAL, begun REAL, ended REAL, drive INTEGER,
  mounted INTEGER, outcome TEXT
);
CREATE TABLE IF NOT EXISTS volumes(name TEXT PRIMARY KEY, bytes INTEGER, files INTEGER, bad TEXT);
CREATE TABLE IF NOT EXISTS drives(number INTEGER PRIMARY KEY, volume TEXT, free REAL);
CREATE TABLE IF NOT EXISTS settings(key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS failures(id INTEGER PRIMARY KEY, command TEXT, left INTEGER, rate REAL, how TEXT);
CREATE TABLE IF NOT EXISTS calls(id INTEGER PRIMARY KEY, at REAL, command TEXT, words TEXT);
"""
CHUNK = 1 << 20
BAD = ("stuck", "offline", "lost")
"""What becomes of a file of a bad volume: it stays staging for ever, is migrated as before, or is found to be lost."""


class Trouble(Exception):
    """A command that failed as a tape store's does: what it prints, and the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Row(NamedTuple):
    """What the store knows of a file."""

    path: str
    state: str
    volume: str | None
    position: int | None
    since: float
    digest: str | None
    refused: int


class Library:
    """The files, volumes and drives below one folder. Its methods are atomic under the lock of that folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.depth = 0
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.database = sqlite3.connect(folder / "tape.db", isolation_level=None)
            self.database.execute("PRAGMA synchronous = OFF")  # nothing here is to outlive a power cut
            if not self.database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self.database.executescript(SCHEMA)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time, in one transaction; what the drives did meanwhile is done first."""
        if self.depth:
            yield
            return
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.database.execute("BEGIN IMMEDIATE")
            self.depth += 1
            try:
                self.advance(time.time())
                yield
            finally:  # also where a command is refused: what came before it happened
                self.depth -= 1
                self.database.execute("COMMIT")

    # Settings and what is known.

    def setting(self, key: str) -> str:
        row = self.database.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return row[0] if row else SETTINGS[key][0]

    def seconds(self, key: str) -> float:
        return float(self.setting(key))

    def place(self, path: str) -> Path:
        """Where a path's bytes lie. Trouble unless it is absolute and stays inside."""
        if not path.startswith("/") or {"..", "."} & set(path.split("/")) or "\0" in path:
            raise Trouble(f"{path}: not an absolute path of the store")
        return self.files / path.lstrip("/")

    def row(self, path: str) -> Row:
        found = self.database.execute(
            "SELECT path, state, volume, position, since, digest, refused FROM files WHERE path = ?", (raw(path),)
        ).fetchone()
        return Row(path, *found[1:]) if found else Row(path, "resident", None, None, 0.0, None, 0)

    def write(self, row: Row) -> None:
        self.database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", (raw(row.path), *row[1:]))

    def forget(self, path: str) -> None:
        self.database.execute("DELETE FROM files WHERE path = ?", (raw(path),))

    def known(self, path: str) -> Row:
        """The row of a file that is there. Trouble where there is none."""
        if not self.place(path).is_file():
            raise Trouble(f"{path}: no such file")
        return self.row(path)

    # Volumes and drives.

    def migrate(self, path: str, volume: str | None = None, position: int | None = None) -> None:
        """To a volume, the one being filled where none is named; a file that was on tape is where it was."""
        row = self.known(path)
        if volume is not None or row.volume is None:
            volume = volume or self.filling()
            size = self.place(path).stat().st_size
            self.database.execute("INSERT OR IGNORE INTO volumes VALUES (?, 0, 0, NULL)", (volume,))
            self.database.execute(
                "UPDATE volumes SET bytes = bytes + ?, files = files + 1 WHERE name = ?", (size, volume)
            )
            (count,) = self.database.execute("SELECT files FROM volumes WHERE name = ?", (volume,)).fetchone()
            row = row._replace(volume=volume, position=count if position is None else position)
        self.write(row._replace(state="migrated", digest=row.digest or digest_of(self.place(path))))

    def filling(self) -> str:
        """The volume that files migrate to now."""
        found = self.database.execute("SELECT name, bytes FROM volumes WHERE bad IS NULL ORDER BY name DESC").fetchall()
        if found and found[0][1] < int(self.setting("volume_bytes")):
            return str(found[0][0])
        (count,) = self.database.execute("SELECT count(*) FROM volumes").fetchone()
        return f"VOL{count + 1:03}"

    def ask(self, path: str) -> None:
        """Queue a recall of a file. Trouble where the store refuses it."""
        row = self.known(path)
        if row.refused or row.state == "lost":
            raise Trouble(f"{path}: {'stage refused' if row.refused else 'the file is lost'}")
        if row.state != "migrated" or self.fails("forget") is not None:
            return
        self.write(row._replace(state="staging"))
        self.database.execute(
            "INSERT INTO requests(path, volume, position, asked) VALUES (?, ?, ?, ?)",
            (raw(path), row.volume, row.position, time.time()),
        )

    def advance(self, now: float) -> None:
        """What the drives did until now: first asked for, first served; then what migrated by itself."""
        waiting = self.database.execute("SELECT id, volume, asked FROM requests WHERE begun IS NULL ORDER BY id")
        for request, volume, asked in waiting.fetchall():
            number, mounted, free = self.drive_for(volume, asked)
            begun = max(asked, free)
            if begun > now:
                break
            ends = begun + self.seconds("latency") + (0 if mounted == volume else self.seconds("mount"))
            self.database.execute("INSERT OR REPLACE INTO drives VALUES (?, ?, ?)", (number, volume, ends))
            self.database.execute(
                "UPDATE requests SET begun = ?, ended = ?, drive = ?, mounted = ? WHERE id = ?",
                (begun, ends, number, mounted != volume, request),
            )
        come = self.database.execute(
            "SELECT id, path, volume, ended FROM requests WHERE outcome IS NULL AND ended <= ? ORDER BY ended, id",
            (now,),
        )
        for request, path, volume, ended in come.fetchall():
            outcome = self.come(os.fsdecode(path), volume, ended)
            self.database.execute("UPDATE requests SET outcome = ? WHERE id = ?", (outcome, request))
        if self.setting("migrate_s"):
            self.migrate_old(now - self.seconds("migrate_s"))

    def drive_for(self, volume: str, asked: float) -> tuple[int, str, float]:
        """(number, volume in it, when it is free): one that is free then and has the volume, else the first that is.

        A volume may be in two drives at once, which no real one can.
        """
        rows = self.database.execute("SELECT number, volume, free FROM drives").fetchall()
        used: dict[int, tuple[int, str, float]] = {row[0]: row for row in rows}
        drives = [used.get(number, (number, "", 0.0)) for number in range(int(self.setting("drives")))]
        soonest = max(asked, min(drive[2] for drive in drives))
        return min(drives, key=lambda drive: (drive[2] > soonest, drive[1] != volume, drive[2], drive[0]))

    def come(self, path: str, volume: str, ended: float) -> str:
        """A file has come from tape, or not: the outcome for the log."""
        row = self.row(path)
        if row.state != "staging":
            return "gone"
        found = self.database.execute("SELECT bad FROM volumes WHERE name = ?", (volume,)).fetchone()
        bad = (found and found[0]) or ""
        if bad != "stuck":
            self.write(row._replace(state={"offline": "migrated", "lost": "lost"}.get(bad, "resident"), since=ended))
        return "bad volume" if bad else "online"

    def migrate_old(self, before: float) -> None:
        for path in [path for path, _ in self.walk("/", True) if self.row(path).state == "resident"]:
            if max(self.row(path).since, self.place(path).stat().st_mtime if not self.row(path).since else 0) < before:
                self.migrate(path)

    # The tree.

    def walk(self, path: str, deep: bool) -> Iterator[tuple[str, os.stat_result]]:
        """The files at or below a path, folder by folder."""
        place = self.place(path)
        if place.is_file():
            yield path, place.stat()
            return
        if not place.is_dir():
            raise Trouble(f"{path}: no such file", int(self.setting("missing")))
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            below = f"{path.rstrip('/')}/{entry.name}"
            if entry.is_file(follow_symlinks=False):
                yield below, entry.stat()
            elif deep and entry.is_dir(follow_symlinks=False):
                yield from self.walk(below, deep)

    def check_room(self, path: str, size: int) -> None:
        """Trouble where there is no room for so many bytes more."""
        room = self.setting("room_bytes")
        if room and size + sum(found.st_size for _, found in self.walk("/", True)) > int(room):
            raise Trouble(f"{path}: no room left in the store", 28)

    # Failures that were asked for.

    def fails(self, command: str) -> dict[str, Any] | None:
        """How this call of a command is to fail; None where it is not. One that was asked for is used up."""
        for number, left, rate, how in self.database.execute(
            "SELECT id, left, rate, how FROM failures WHERE command = ? ORDER BY id", (command,)
        ).fetchall():
            if rate is not None and int.from_bytes(os.urandom(4), "big") >= rate * 2**32:
                continue
            if left is not None:
                self.database.execute("UPDATE failures SET left = left - 1 WHERE id = ?", (number,))
                self.database.execute("DELETE FROM failures WHERE left = 0")
            return dict(json.loads(how))
        return None


def raw(path: str) -> bytes:
    """A path as the database keeps it: it need not be text."""
    return os.fsencode(path)


def digest_of(place: Path, algorithm: str = "sha256") -> str:
    import hashlib  # it loads OpenSSL, which most commands have no use for

    with place.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def copy(source: Path, target: Path, nap: Callable[[], None]) -> None:
    """As these programs do: under the final name, and what was there is gone."""
    with source.open("rb") as reading, target.open("wb") as writing:
        half = os.fstat(reading.fileno()).st_size // 2
        writing.write(reading.read(half))
        writing.flush()
        nap()
        shutil.copyfileobj(reading, writing, CHUNK)


def sleep(library: Library, key: str) -> None:
    """For the seconds of a setting, as it is meanwhile."""
    begun = time.monotonic()
    while (left_s := begun + library.seconds(key) - time.monotonic()) > 0:
        time.sleep(min(left_s, 0.02))


def damage(place: Path, how: dict[str, Any]) -> None:
    """What `--half` and `--flip` do to the file that was put or brought."""
    size = place.stat().st_size
    if how.get("half"):
        os.truncate(place, size // 2)
    if how.get("flip") and size:
        with place.open("r+b") as file:
            file.seek(size // 2)
            byte = file.read(1)[0]
            file.seek(size // 2)
            file.write(bytes([byte ^ 1]))


# The commands of a store.


def put(library: Library, given: argparse.Namespace, how: dict[str, Any]) -> None:
    source, target = Path(given.local), library.place(given.path)
    if not source.is_file():
        raise Trouble(f"{given.local}: no such local file")
    with library.alone():
        if target.is_dir() or (target.exists() and library.setting("replaces") != "yes"):
            raise Trouble(f"{given.path}: it is there already")
        library.check_room(given.path, source.stat().st_size)
        target.parent.mkdir(parents=True, exist_ok=True)
        library.forget(given.path)
        nap_s = library.seconds("put_s")
    copy(source, target, lambda: time.sleep(nap_s))
    damage(target, how)
    with library.alone():
        if library.setting("times") == "kept":
            stamp = source.stat().st_mtime_ns
            os.utime(target, ns=(stamp, stamp))
        library.write(Row(given.path, "resident", None, None, time.time(), digest_of(target), 0))
    given.tell(f"put {given.path}: ok")


def get(library: Library, given: argparse.Namespace, how: dict[str, Any]) -> None:
    source, target = library.place(given.path), Path(given.local)
    with library.alone():
        until = time.time() + library.seconds("wait_s")
        waits = library.setting("get") == "wait"
        if waits and library.known(given.path).state == "migrated":
            library.ask(given.path)
    while True:
        with library.alone():
            state = library.known(given.path).state
        if state == "resident":
            break
        if not waits or state == "lost" or time.time() > until:
            raise Trouble(
                f"{given.path}: {'the file is lost' if state == 'lost' else f'not on disk ({state}); stage it'}"
            )
        time.sleep(0.02)
    copy(source, target, lambda: sleep(library, "get_s"))
    damage(target, how)
    if library.setting("times") == "kept":
        stamp = source.stat().st_mtime_ns
        os.utime(target, ns=(stamp, stamp))
    given.tell(f"get {given.path}: ok")


def ls(library: Library, given: argparse.Namespace, how: dict[str, Any]) -> None:
    trouble: Trouble | None = None
    for path in given.paths:
        try:
            with library.alone():
                lines = [line_of(library.row(found), stat) for found, stat in library.walk(path, given.recursive)]
            for line in lines:
                given.tell(line)
        except Trouble as error:
            given.complain(f"ls: {error}")
            trouble = error
    if trouble is not None and trouble.status:
        raise Trouble("ls: not all was found", trouble.status)


def line_of(row: Row, stat: os.stat_result) -> str:
    mtime = f"{stat.st_mtime_ns // 10**9}.{stat.st_mtime_ns % 10**9:09}"
    position = "-" if row.position is None else row.position
    return f"{row.state} {stat.st_size} {mtime} {row.volume or '-'} {position} {row.digest or '-'} {row.path}"


def stage(library: Library, given: argparse.Namespace, how: dict[str, Any]) -> None:
    refused: list[str] = []
    with library.alone():
        for path in given.paths:
            try:
                library.ask(path)
                given.tell(f"stage {path}: queued")
            except Trouble as error:
                refused.append(str(error))
    if refused:
        raise Trouble("\n".join(f"stage: {text}" for text in refused))


def digest(library: Library, given: argparse.Namespace, how: dict[str, Any]) -> None:
    """Of a resident file from its bytes; of one on tape, what was kept when it was stored."""
    with library.alone():
        row = library.known(given.path)
    if row.state == "resident":
        found: str | None = digest_of(library.place(given.path), given.algorithm)
    else:
        found = row.digest if given.algorithm == "sha256" and row.state != "lost" else None
    if found is None:
        raise Trouble(f"{given.path}: no digest is kept of it, and it is not on disk ({row.state})")
    given.tell(f"{found.partition(':')[2]}  {given.path}")


def rename(library: Library, given: argparse.Namespace, how: dict[str, Any]) -> None:
    with library.alone():
        row, target = library.known(given.path), library.place(given.to)
        if target.is_dir() or (target.exists() and library.setting("replaces") != "yes"):
            raise Trouble(f"{given.to}: it is there already")
        target.parent.mkdir(parents=True, exist_ok=True)
        library.place(given.path).rename(target)
        library.forget(given.path)
        library.write(row._replace(path=given.to))
        library.database.execute(
            "UPDATE requests SET path = ? WHERE path = ? AND outcome IS NULL", (raw(given.to), raw(given.path))
        )
    given.tell(f"rename {given.path} {given.to}: ok")


def rm(library: Library, given: argparse.Namespace, how: dict[str, Any]) -> None:
    with library.alone():
        library.known(given.path)
        library.place(given.path).unlink()
        library.forget(given.path)
    given.tell(f"rm {given.path}: ok")


# The commands that control the simulator.


def set_(library: Library, given: argparse.Namespace) -> None:
    if given.key not in SETTINGS:
        raise Trouble(f"{given.key}: no setting; there are {', '.join(SETTINGS)}", 2)
    with library.alone():
        library.database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (given.key, given.value))


def migrate(library: Library, given: argparse.Namespace) -> None:
    with library.alone():
        paths = given.paths
        if given.all:
            paths = [path for path, _ in library.walk("/", True) if "/." not in path]
        for path in paths:
            library.migrate(path, given.volume, given.position)


def fail(library: Library, given: argparse.Namespace) -> None:
    """`fail put 2 --exit 72`: the next two; `fail put 20%`: one in five; `fail put 0`: no more."""
    kept = ("exit", "say", "nothing", "half", "flip", "hang")
    how = {key: getattr(given, key) for key in kept if getattr(given, key) not in {None, False}}
    rate = float(given.count[:-1]) / 100 if given.count.endswith("%") else None
    left = None if rate is not None else int(given.count)
    with library.alone():
        if left == 0:
            library.database.execute("DELETE FROM failures WHERE command = ?", (given.which,))
        else:
            library.database.execute(
                "INSERT INTO failures(command, left, rate, how) VALUES (?, ?, ?, ?)",
                (given.which, left, rate, json.dumps(how)),
            )


def mark(library: Library, given: argparse.Namespace) -> None:
    """`refuse PATH...`: its staging is refused; `allow PATH...`: no more; `lose PATH...`: the file is lost."""
    with library.alone():
        for path in given.paths:
            row = library.known(path)
            if given.command == "lose":
                library.write(row._replace(state="lost"))
            else:
                library.write(row._replace(refused=int(given.command == "refuse")))


def bad(library: Library, given: argparse.Namespace) -> None:
    """A volume whose files do not come; with `--how good` they do again, those that were stuck once they are asked for
    anew."""
    how = None if given.how == "good" else given.how
    with library.alone():
        library.database.execute("INSERT OR IGNORE INTO volumes VALUES (?, 0, 0, NULL)", (given.volume,))
        library.database.execute("UPDATE volumes SET bad = ? WHERE name = ?", (how, given.volume))
        if how is None:
            library.database.execute(
                "UPDATE files SET state = 'migrated' WHERE volume = ? AND state = 'staging'"
                " AND path NOT IN (SELECT path FROM requests WHERE outcome IS NULL)",
                (given.volume,),
            )


def log(library: Library, given: argparse.Namespace) -> None:
    """As JSON: the recalls in the order in which they were served, the mounts, and how often each command was run."""
    with library.alone():
        cursor = library.database.execute(
            "SELECT path, volume, position, asked, begun, ended, drive, mounted, outcome FROM requests"
            " ORDER BY begun IS NULL, begun, id"
        )
        names = [column[0] for column in cursor.description]
        served = [dict(zip(names, (os.fsdecode(row[0]), *row[1:]), strict=True)) for row in cursor]
        calls = library.database.execute("SELECT command, count(*) FROM calls GROUP BY command").fetchall()
    given.tell(
        json.dumps({"mounts": sum(one["mounted"] or 0 for one in served), "calls": dict(calls), "requests": served})
    )


STORE = {"put": put, "get": get, "ls": ls, "stage": stage, "digest": digest, "rename": rename, "rm": rm}
CONTROL = {
    "set": set_,
    "migrate": migrate,
    "fail": fail,
    "refuse": mark,
    "allow": mark,
    "lose": mark,
    "bad": bad,
    "log": log,
}


def writer(stream: TextIO) -> Callable[[str], None]:
    """Writes lines to a stream, whatever bytes the names in them are of."""

    def write(text: str) -> None:
        stream.write(os.fsdecode(os.fsencode(text)) + "\n")

    return write


@lru_cache
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="tape", description="A test tool that stands in for a tape store.")
    made.add_argument("--state", type=Path, required=True, help="the folder in which it keeps everything")
    commands = made.add_subparsers(dest="command", required=True)
    _store_parsers(commands)
    _control_parsers(commands)
    return made


def _store_parsers(commands: Any) -> None:
    one = commands.add_parser("put", help="store a local file")
    one.add_argument("local")
    one.add_argument("path")
    one = commands.add_parser("get", help="bring a file")
    one.add_argument("path")
    one.add_argument("local")
    one = commands.add_parser("ls", help="list files")
    one.add_argument("-R", dest="recursive", action="store_true")
    one.add_argument("paths", nargs="+")
    one = commands.add_parser("stage", help="ask for files to be brought from tape")
    one.add_argument("paths", nargs="+")
    one = commands.add_parser("digest", help="print a file's digest")
    one.add_argument("path")
    one.add_argument("--algorithm", default="sha256", choices=("sha256", "md5", "sha1", "sha512"))
    one = commands.add_parser("rename")
    one.add_argument("path")
    one.add_argument("to")
    one = commands.add_parser("rm")
    one.add_argument("path")


def _control_parsers(commands: Any) -> None:
    one = commands.add_parser("set", help="; ".join(f"{key}: {text}" for key, (_, text) in SETTINGS.items()))
    one.add_argument("key")
    one.add_argument("value")
    one = commands.add_parser("migrate", help="to tape")
    one.add_argument("paths", nargs="*")
    one.add_argument("--all", action="store_true", help="all files without hidden names")
    one.add_argument("--volume")
    one.add_argument("--position", type=int)
    one = commands.add_parser("fail", help="let a command fail; `fail forget N` accepts N recalls and does nothing")
    one.add_argument("which", choices=(*STORE, "forget"))
    one.add_argument("count", help="how many of the next ones, or a rate: 20%%; 0: none any more")
    one.add_argument("--exit", type=int, help="the exit status")
    one.add_argument("--say", help="what it prints")
    one.add_argument("--nothing", action="store_true", help="without doing it")
    one.add_argument("--half", action="store_true", help="with half of the file put or brought")
    one.add_argument("--flip", action="store_true", help="with a flipped bit in the file put or brought")
    one.add_argument("--hang", type=float, help="sleep so many seconds first")
    for name in ("refuse", "allow", "lose"):
        commands.add_parser(name).add_argument("paths", nargs="+")
    one = commands.add_parser("bad", help="a volume whose files never come")
    one.add_argument("volume")
    one.add_argument("--how", default="stuck", choices=(*BAD, "good"))
    commands.add_parser("log", help="what was served, as JSON")


def run(given: argparse.Namespace) -> int:
    """Carry out one command; the exit status."""
    library = Library(given.state)
    try:
        if given.command in CONTROL:
            CONTROL[given.command](library, given)
            return 0
        return _store_command(library, given)
    finally:
        library.database.close()


def _store_command(library: Library, given: argparse.Namespace) -> int:
    with library.alone():
        words = {
            key: value
            for key, value in vars(given).items()
            if isinstance(value, (str, list, bool)) and key != "command"
        }
        library.database.execute(
            "INSERT INTO calls(at, command, words) VALUES (?, ?, ?)", (time.time(), given.command, json.dumps(words))
        )
        if library.setting("down") == "yes":
            raise Trouble("cannot connect to the store", 75)
        how = library.fails(given.command) or {}
    time.sleep(how.get("hang", 0))
    if not how.get("nothing"):
        STORE[given.command](library, given, how)
    if "say" in how:
        given.tell(how["say"])
    return int(how.get("exit", 0))


def commands(state: Path) -> dict[str, Any]:
    """The table `[hosts.X.commands]` with which the driver "command" uses a simulator."""
    program = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), "--state", str(state)]
    return {
        "put": [*program, "put", "{local}", "{path}"],
        "get": [*program, "get", "{path}", "{local}"],
        "list": [*program, "ls", "-R", "{paths}"],
        "remove": [*program, "rm", "{path}"],
        "stage": [*program, "stage", "{paths}"],
        "digest": [*program, "digest", "{path}"],
        "rename": [*program, "rename", "{path}", "{to}"],
        "listed": LISTED,
        "absent": "ls: (?P<path>/.*): no such file",
        "full": "^put: .*: no room left in the store$",
        "digested": "(?P<digest>[0-9a-f]{64}) .*",
        "algorithm": "sha256",
        "online": ["resident"],
        "staging": ["staging"],
        "lost": ["lost"],
    }


def main(words: Sequence[str] | None = None, out: TextIO | None = None, err: TextIO | None = None) -> int:
    given = parser().parse_args(words)
    given.tell, given.complain = writer(out or sys.stdout), writer(err or sys.stderr)
    try:
        return run(given)
    except Trouble as trouble:
        given.complain(f"{given.command}: {trouble}" if given.command != "ls" else str(trouble))
        return trouble.status
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr] # a text stream
    sys.exit(main())
