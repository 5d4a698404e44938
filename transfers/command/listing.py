"""What a store that programs speak to has, as its listing says it.

A listing is believed where it accounts for all that was asked about: each file is listed, or said to be absent in the
words that the configuration knows. The root's marker is asked about with it, so that a store that lists nothing is not
taken for an empty one. What is not understood is an error.
"""

from __future__ import annotations

import datetime
import heapq
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from transfers.agent import MARKER, Fault, Stop, batches, checked, held_time
from transfers.command.running import LINE_BYTES, Ended, Running
from transfers.command.templates import UNFIT, Templates, groups_of
from transfers.digests import as_printed

ASKED_FILES = 100  # paths of one command
ASKED_BYTES = 64 << 10
SORTED_AT_ONCE = 50_000  # files of a listing that are held in memory


class Listed(NamedTuple):
    """A file of the store. `path` is below the root; `mtime_ns` is None where the listing tells no time; `state` is
    the listing's own word."""

    path: str
    size: int
    mtime_ns: int | None = None
    state: str = ""
    volume: str | None = None
    position: int | None = None
    digest: str | None = None


class Folder(NamedTuple):
    """What a path leads to that has files below it."""

    path: str


Seen = Listed | Folder | None


class Reader:
    """Understands the lines of one listing of paths below a root; `garbled` is the first that it does not."""

    def __init__(self, templates: Templates, root: str, asked: Sequence[str]) -> None:
        self.listed = re.compile(templates.listed)
        self.groups = frozenset(groups_of(templates.listed) or ())
        self.ignored = re.compile(templates.ignored) if templates.ignored is not None else None
        self.absent = re.compile(templates.absent) if templates.absent is not None else None
        self.algorithm = templates.algorithm
        self.root = root
        self.asked = asked
        self.folder: str | None = None  # of the names that follow, where a line said so
        self.garbled: Fault | None = None
        self.begun = False
        self.said_absent = False
        self.absent_paths: set[str] = set()

    def file(self, line: str) -> Listed | None:
        """The file that a line tells of; None for a line that tells of none."""
        self.begun = True
        if "\0" in line:
            self.strange(line, f"it is longer than {LINE_BYTES} bytes, or has a NUL")
            return None
        match = self.listed.fullmatch(line)
        if match is None:
            if line.strip() and not self.says_absent(line) and not (self.ignored and self.ignored.fullmatch(line)):
                self.strange(line, "it matches neither `listed` nor `ignored`")
            return None
        if (folder := self._group(match, "folder")) is not None:
            self.folder = folder.rstrip("/") if folder.startswith("/") else f"{self.root}/{folder.rstrip('/')}"
            return None
        try:
            return self._made(match)
        except ValueError as error:
            self.strange(line, str(error))
            return None

    def strange(self, line: str, why: str) -> None:
        """A line is not understood. That is told once the command has ended: where it failed, that is the news."""
        self.garbled = self.garbled or garbled(line, why)

    def says_absent(self, line: str) -> bool:
        """Whether a line says that something is not there; what that is is kept, where it is named."""
        match = self.absent.search(line) if self.absent is not None and len(line) <= LINE_BYTES else None
        if match is None:
            return False
        named = match.groupdict().get("path")
        if named is None:
            self.said_absent = True
        else:
            self.absent_paths.add(self.relative(named) or named)
        return True

    def hear(self, ended: Ended) -> None:
        """Understand what was said beside the listing: of what is absent it is mostly said on standard error."""
        for line in ended.said.replace("\r\n", "\n").split("\n"):
            if len(line) > LINE_BYTES:
                continue
            if not self.listed.fullmatch(line):  # a file's name is not believed
                self.says_absent(line)
            elif not self.begun:
                self.strange(line, "it stands on standard error, and a listing is read from standard output alone")

    def relative(self, printed: str) -> str | None:
        """The path below the root of one that was printed; None for what is not below it."""
        if not printed.startswith("/"):
            if self.folder is None and len(self.asked) == 1 and self.asked[0].endswith("/" + printed):
                return self.asked[0]  # a file that was asked about, told by its name
            printed = f"{self.root if self.folder is None else self.folder}/{printed}"
        printed = re.sub("/+", "/", printed)
        return printed.removeprefix(self.root + "/") if printed.startswith(self.root + "/") else None

    def _made(self, match: re.Match[str]) -> Listed:
        path, size = self._group(match, "path"), self._group(match, "size")
        if path is None or size is None or not size.isdecimal():
            raise ValueError("it has no path and size in it")
        below = self.relative(path)
        if below is None:
            raise ValueError(f"{path!r} is not below {self.root!r}")
        position = self._group(match, "position") or ""
        return Listed(
            below,
            int(size),
            nanoseconds(self._group(match, "mtime")),
            self._group(match, "state") or "",
            self._group(match, "volume") or None,
            int(position) if position.isdecimal() else None,
            self._digest(self._group(match, "digest")),
        )

    def _group(self, match: re.Match[str], name: str) -> str | None:
        found: str | None = match[name] if name in self.groups else None
        return found

    def _digest(self, printed: str | None) -> str | None:
        if not printed:
            return None
        named, _, digits = printed.rpartition(":")
        algorithm = named.lower().replace("-", "") or self.algorithm
        return f"{algorithm}:{as_printed(algorithm, digits)}"


def garbled(line: str, why: str) -> Fault:
    text = f"the listing has a line that is not understood: {line[:200]!r}: {why}"
    return Fault("transient", text, phase="list", facts={"garbled": True})


def nanoseconds(printed: str | None) -> int | None:
    """Unix seconds with any number of decimals, or a date and time (ISO 8601; UTC where it names no zone)."""
    if not printed:
        return None
    match = re.fullmatch(r"([0-9]{1,12})(?:\.([0-9]+))?", printed)
    if match:
        return held_time(int(match[1]) * 10**9 + int((match[2] or "")[:9].ljust(9, "0")))
    try:
        found = datetime.datetime.fromisoformat(printed)
    except ValueError:
        raise ValueError(f"{printed!r} is no time: neither Unix seconds nor like 2010-06-01 12:00:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    seconds = int(found.replace(microsecond=0).timestamp())
    return held_time(seconds * 10**9 + found.microsecond * 1000)


class Listing:
    """Asks a store what it has. `root` is absolute, without a slash at its end ("" for "/"); once `marked`, the root's
    marker must be in every listing. All that is wrong is a Fault, "host down" where it is the store's."""

    def __init__(self, running: Running, root: str, scratch: str) -> None:
        self.running = running
        self.root = root
        self.scratch = scratch
        self.marked = False

    def absolute(self, path: str) -> str:
        """Where a path lies on the store. Fault "refused" for one that leaves the root or that no listing can carry."""
        if UNFIT.search(checked(path)):
            text = "it has control characters in its name, which the listing of a store by commands cannot carry"
            raise Fault("refused", text, path)
        return f"{self.root}/{path}"

    def up(self, stop: Stop) -> None:
        """Fault "host down" unless the store lists the root's marker, where that is known."""
        if self.marked:
            self.look([], stop)

    def one(self, path: str, stop: Stop) -> Seen:
        return self.look([path], stop)[path]

    def look(self, paths: Iterable[str], stop: Stop) -> dict[str, Seen]:
        """What each path leads to; None for what is not there."""
        found: dict[str, Seen] = {}
        unique = list(dict.fromkeys(paths))
        for path in unique:
            self.absolute(path)  # before anything is asked
        if not self.running.templates.takes_many("list"):
            self._see_marker(stop)
            return {path: self._look_at_one(path, stop) for path in unique}
        for batch in batches(unique, ASKED_FILES) if unique else ([[]] if self.marked else []):
            found.update(self._look_at_many(batch, stop))
        return found

    def _see_marker(self, stop: Stop) -> None:
        if not self.marked:
            return
        try:
            seen = self._look_at_one(MARKER, stop)
        except Fault as fault:
            raise down(fault) from fault
        if not isinstance(seen, Listed):
            raise unmarked()

    def _look_at_many(self, batch: Sequence[str], stop: Stop) -> dict[str, Seen]:
        """One command for a batch, and the marker with it; where it does not account for all, one for each."""
        if sum(len(self.absolute(path).encode("utf-8", "surrogateescape")) for path in batch) > ASKED_BYTES:
            half = len(batch) // 2
            return self._look_at_many(batch[:half], stop) | self._look_at_many(batch[half:], stop)
        asked = [*batch, *([MARKER] if self.marked and MARKER not in batch else [])]
        answer = self._answer(asked, stop)
        if self.marked and answer.seen(MARKER) is None:
            trouble = None if answer.is_absent(MARKER) else answer.trouble()
            raise down(trouble) if trouble is not None else unmarked()
        if answer.ended.status == 0 or all(answer.seen(path) or answer.is_absent(path) for path in asked):
            return answer.found(batch)
        if len(batch) == 1 and answer.reader.said_absent and answer.seen(batch[0]) is None:
            return answer.found(batch)
        if len(batch) <= 1:
            raise answer.failed() if self.marked else down(answer.failed())
        return {path: seen for path in batch for seen in self._look_at_many([path], stop).values()}

    def _look_at_one(self, path: str, stop: Stop) -> Seen:
        """With a command that takes one path."""
        answer = self._answer([path], stop)
        seen = answer.seen(path)
        if answer.ended.status == 0:
            if seen is None and answer.reader.absent is not None and answer.reader.garbled is None:
                raise answer.ended.fault("the listing says neither that the file is there nor that it is not")
            return answer.found([path])[path]
        if seen is None and (answer.is_absent(path) or answer.reader.said_absent):
            return answer.found([path])[path]
        raise answer.failed()

    def _answer(self, asked: Sequence[str], stop: Stop) -> Answer:
        reader = Reader(self.running.templates, self.root, asked)
        answer = Answer(reader)
        places = [self.absolute(path) for path in asked]
        try:
            answer.ended = self.running.call("list", {"path": places[0]}, places, stop=stop, take=answer.add)
        except Fault as fault:
            if fault.phase == "timeout":  # each of the paths alone would take as long again
                raise down(fault) from fault
            raise
        reader.hear(answer.ended)
        return answer

    # All below a folder.

    def named(self, folder: str, stop: Stop) -> list[str]:
        """All files below a folder, also those with hidden names; none where it is not there."""
        return sorted(file.path for file in self.below(folder, stop, hidden=True))

    def below(self, prefix: str, stop: Stop, hidden: bool = False) -> Iterator[Listed]:
        """The files below a prefix ("": the root), or the one that it names: sorted, hidden names left out."""
        place = self.absolute(prefix) if prefix else self.root or "/"
        self.up(stop)
        with Sorting(self.scratch) as sorting:
            reader = Reader(self.running.templates, self.root, [prefix] if prefix else [])

            def take(line: str) -> None:
                found = reader.file(line)
                if found is not None and not is_below(found.path, prefix):
                    reader.strange(line, f"{found.path!r} is not below {prefix!r}, which was asked about")
                elif found is not None and (hidden or not is_hidden(found.path, prefix)):
                    sorting.add(found)

            ended = self.running.call("list", {"path": place}, [place], stop=stop, take=take)
            reader.hear(ended)
            if ended.status != 0 and (
                sorting.count or not (reader.said_absent or reader.absent_paths & {prefix, place})
            ):
                raise Answer(reader, ended).failed()
            if reader.garbled is not None:
                raise reader.garbled
            yield from sorting.files()

    def root_is_there(self, stop: Stop) -> None:
        """Fault "host down" unless the root can be listed, however much is below it."""
        answer = Answer(Reader(self.running.templates, self.root, []))
        place = self.root or "/"

        def take(line: str) -> None:
            if answer.reader.file(line) is not None:
                raise Enough

        try:
            answer.ended = self.running.call("list", {"path": place}, [place], stop=stop, take=take)
        except Enough:
            return
        if answer.ended.status != 0:
            raise down(answer.ended.fault(f"the root {place} cannot be listed: `list` {answer.ended.how}"))


def is_below(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}/")


def is_hidden(path: str, prefix: str) -> bool:
    """Whether a file has a hidden name below a prefix."""
    below = "" if path == prefix else path.removeprefix(f"{prefix}/" if prefix else "")
    return any(name.startswith(".") for name in below.split("/"))


class Enough(Exception):
    """A listing is left before its end."""


class Answer:
    """One command's listing of some paths."""

    def __init__(self, reader: Reader, ended: Ended | None = None) -> None:
        self.reader = reader
        self.files: dict[str, Listed] = {}
        self.folders: set[str] = set()
        self.ended = ended or Ended((), 0, "")

    def add(self, line: str) -> None:
        found = self.reader.file(line)
        if found is None:
            return
        if found.path in self.reader.asked:
            self.files[found.path] = found
            return
        above = [path for path in self.reader.asked if found.path.startswith(path + "/")]
        if not above:
            self.reader.strange(line, f"{found.path!r} was not asked about")
        self.folders.update(above)

    def seen(self, path: str) -> Seen:
        return self.files.get(path) or (Folder(path) if path in self.folders else None)

    def is_absent(self, path: str) -> bool:
        """Whether it was said by name that a path is not there, or that a folder of it is not."""
        parts = path.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return path not in self.files and any(one in self.reader.absent_paths for one in above)

    def found(self, paths: Sequence[str]) -> dict[str, Seen]:
        """What each path leads to. Fault where not all of the listing was understood."""
        if self.reader.garbled is not None:
            raise self.reader.garbled
        return {path: self.seen(path) for path in paths}

    def trouble(self) -> Fault | None:
        return self.failed() if self.ended.status != 0 else self.reader.garbled

    def failed(self) -> Fault:
        hint = "" if self.reader.absent else "; where that means that there is no such file, let `absent` match it"
        return self.ended.fault(f"`list` {self.ended.how}{hint}")


def unmarked() -> Fault:
    text = "the root has no marker: the store lists another one, or nothing at all"
    return Fault("host down", text, MARKER, phase="open")


def down(fault: Fault) -> Fault:
    """The store's own failure, not one file's."""
    if fault.phase == "stopped":
        return fault
    return Fault("host down", fault.text, fault.path, fault.side, fault.phase, fault.errno, fault.facts)


class Sorting:
    """Files of a listing, put in the order in which folders are walked, on disk where they are many."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.held: list[Listed] = []
        self.runs: list[IO[str]] = []
        self.count = 0

    def __enter__(self) -> Sorting:
        return self

    def __exit__(self, *error: object) -> None:
        for run in self.runs:
            run.close()

    def add(self, file: Listed) -> None:
        self.held.append(file)
        self.count += 1
        if len(self.held) >= SORTED_AT_ONCE:
            self._write_out()

    def files(self) -> Iterator[Listed]:
        """All of them, in order; Fault "transient" where one is there twice and not the same."""
        self.held.sort(key=walked)
        before: Listed | None = None
        for file in heapq.merge(self.held, *(map(_read_line, run) for run in self.runs), key=walked):
            if before is not None and before.path == file.path:
                if before != file:
                    raise garbled(file.path, "it is listed twice, and not the same")
                continue
            before = file
            yield file

    def _write_out(self) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        run = tempfile.TemporaryFile("w+", dir=self.folder, encoding="utf-8")  # noqa: SIM115  closed at the exit
        self.runs.append(run)
        run.writelines(json.dumps(file) + "\n" for file in sorted(self.held, key=walked))
        run.seek(0)
        self.held = []


def walked(file: Listed) -> list[str]:
    return file.path.split("/")


def _read_line(line: str) -> Listed:
    fields: list[Any] = json.loads(line)
    return Listed(*fields)
