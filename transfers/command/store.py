"""A mass store that programs speak to, such as hsi or msscmd: each act is a command that the configuration names.

The promises are those of every host, and nothing that a program prints is believed: a file is stored when it is listed
with its size and was proven, brought when it is here. What such a store cannot do is said by `about`. Files are
brought here whole before anything is read of them; only the listing tells what the store has.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from transfers.agent import MARKER, OWN, PART_NAME, Fault, batches, checked, fault_of, may_change
from transfers.command.acts import Acts, listed_or_refused
from transfers.command.journal import Journal, end_process
from transfers.command.landing import PARTS, Landing, Scratch
from transfers.command.listing import ASKED_FILES, Folder, Listed, Listing, Seen, unmarked
from transfers.command.reading import Reading
from transfers.command.running import Running
from transfers.command.templates import Templates
from transfers.errors import TransferError
from transfers.fetched import Fetched
from transfers.hosts import (
    LIMITS,
    UNKNOWN,
    Clock,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Identity,
    Limits,
    Opened,
    Place,
    Receipt,
    Residency,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.without_agent import Diskless

MARKER_BYTES = 200


class CommandStore(Diskless):
    """Files beneath a folder of a store that programs speak to. Here faults become this host's errors.

    `scratch` is a folder of this machine that is the store's own: files on their way, files that were brought, and
    the journal of what is being put.
    """

    far = False
    cuts = False
    seeks = False
    reread = "reread"
    round_trip_s = 0.0

    def __init__(self, name: str, root: str, templates: Templates, scratch: str, instance: str = "00000000") -> None:
        if not re.fullmatch("[0-9a-f]{8}", instance):
            raise ValueError(f"instance must be 8 hex digits, not {instance!r}")
        if not root.startswith("/"):
            raise ValueError(f"the root must be an absolute path, not {root!r}")
        self.name = name
        self.root = root
        self.templates = templates
        self.instance = instance
        self.marker: str | None = None
        self.running = Running(templates)
        self.listing = Listing(self.running, re.sub("/+", "/", root).rstrip("/"), scratch)
        self.acts = Acts(templates, self.running, self.listing)
        self.fetched = Fetched(scratch, templates.keep_bytes)
        self.scratch = Scratch(scratch)
        self.journal = Journal(os.path.join(scratch, "journal"))

    def __repr__(self) -> str:
        return f"CommandStore({self.name!r}, {self.root!r})"

    @property
    def stages(self) -> bool:
        return self.templates.stage is not None

    @property
    def own_digest(self) -> str | None:
        return self.acts.algorithm

    # The marker.

    def open(self, marker: str | None, marks: bool = True) -> str | None:
        with self._border("open"):
            began = time.monotonic()
            seen = self._seen_marker()
            self.round_trip_s = time.monotonic() - began
            if seen is None and marker is None:
                self.listing.root_is_there(never)
                if not marks:
                    self.marker, self.listing.marked = None, False
                    return None
                self._make_marker()
                seen = self._seen_marker()
            if not isinstance(seen, Listed):
                raise unmarked()
            if marker is None or marker != self.marker:
                marker = self._agreed(self._read_marker(seen, marks), marker, marks)
            self.marker = marker
            self.listing.marked = True
        return marker

    def _seen_marker(self) -> Seen:
        """The marker in the listing; any failure to ask is the store's."""
        try:
            return self.listing.one(MARKER, never)
        except Fault as fault:
            if fault.phase != "stopped":
                fault.kind = "host down"
            raise

    def _read_marker(self, seen: Listed, marks: bool) -> str | None:
        """Its text; None where the file has migrated to tape: for this it is not waited for, and with `marks` asked to
        come."""
        if seen.size > MARKER_BYTES:
            raise Fault("host down", f"the marker is {seen.size} bytes long, which is none of Stager's", MARKER)
        place = self.scratch.take()
        try:
            self.acts.get(seen, place, never)
            with open(place, "rb") as file:
                return file.read(MARKER_BYTES).decode("ascii", "backslashreplace").strip()
        except Fault as fault:
            if self.acts.residency(seen).state in {"offline", "staging"}:
                if self.stages and marks:
                    self.acts.stage([MARKER], never)
                return None
            fault.kind = "host down"
            raise
        finally:
            self.scratch.give(place)

    def _agreed(self, found: str | None, marker: str | None, marks: bool) -> str | None:
        if found is None:
            if marker is None and marks:
                text = "the root has a marker, and it is on tape: it is needed once to know the root by"
                raise Fault("host down", text, MARKER, phase="open")
            return marker
        if marker is not None and found != marker:
            text = f"the root has the marker {found} instead of {marker}: it is another file system"
            raise Fault("host down", text, MARKER, phase="open", facts={"expected": marker, "found": found})
        return found

    def _make_marker(self) -> None:
        """Store a new marker: under a part's name first where the store can rename."""
        place = self.scratch.take()
        data = f"{uuid.uuid4()}\n".encode("ascii")
        try:
            with open(place, "wb") as file:
                file.write(data)
            if not self.acts.renames:
                self.acts.put(place, MARKER, len(data), never)
                return
            part = f"{OWN}/.marker.0-0-{uuid.uuid4().int}.{self.instance}.part"
            try:
                made = self.acts.put(place, part, len(data), never)
                if self.listing.one(MARKER, never) is None:
                    self.acts.rename(made, MARKER, never)
                else:  # another made one
                    self.acts.remove(made.path, never)
            except Fault:
                with suppress(Fault):  # no sweep looks for it, and each try would leave another
                    self.acts.remove(part, never)
                raise
        finally:
            self.scratch.give(place)

    # Looking.

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]:
        with self._border("scan"):
            for file in self.listing.below(prefix, never):
                yield info(file)

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]:
        for path, seen in self._each("find", paths):
            if isinstance(seen, TransferError) or seen is None:
                yield seen
                continue
            try:
                yield info(listed_or_refused(seen, path))
            except Fault as fault:
                yield self._error(fault_of(fault, path, "source", "find"))

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        """All below one marker is of one system; a file is told by its path, as the store tells nothing else."""
        system = f"command:{self.marker or f'{self.name}:{self.root}'}"
        for path in paths:
            for _, seen in self._each("identify", [path or MARKER]):  # "": the root, which is there if its marker is
                if isinstance(seen, TransferError) or seen is None:
                    yield seen
                else:
                    yield Identity(system, number_of(path))

    def lies_in(self, paths: Iterable[str]) -> Iterator[str]:
        yield from paths

    def residency(self, paths: Iterable[str]) -> Iterator[Residency | TransferError]:
        for path, seen in self._each("residency", paths):
            try:
                yield seen if isinstance(seen, TransferError) else self.acts.residency(listed_or_refused(seen, path))
            except Fault as fault:
                yield self._error(fault_of(fault, path, "source", "residency"))

    def space(self) -> Space:
        """Not known: see `about`."""
        with self._border("space"):
            self.listing.up(never)
        return Space(UNKNOWN, UNKNOWN, UNKNOWN)

    def clock(self) -> Clock:
        """The store has none to ask; the round trip is that of a listing."""
        with self._border("clock"):
            began = time.monotonic()
            self.listing.up(never)
            return Clock(None, time.monotonic() - began)

    def about(self) -> dict[str, str]:
        templates = self.templates
        acts = [act for act in ("put", "get", "list", "remove", "stage", "digest", "rename") if templates.words(act)]
        facts = {
            "client": f"commands: {templates.put[0]}",
            "commands": ", ".join(acts),
            "space": "not known: no command tells it",
            "times": "as listed" if "(?P<mtime>" in templates.listed else "not known: the listing tells none",
            "landing": "put under another name, proven, renamed after a look that nothing has the name"
            if self.acts.renames
            else "put under its own name at once, after a look that nothing has it: the store renames nothing",
        }
        if self.own_digest:
            facts["digest"] = f"{self.own_digest}, by the store"
        return facts

    # Reading.

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        with self._border("read"):
            self.listing.up(never)
            yield from Reading(self.acts, self.fetched).frames(wants)

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        """A whole file's by the store itself, where that has such digests and nothing is to be read again."""
        with self._border("digest"):
            self.listing.up(stop)
            reading = Reading(self.acts, self.fetched, stop)
            for place in places:
                found = reading.digest(place, algorithm, reread)
                yield self._error(found) if isinstance(found, Fault) else found

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        with self._border("headers"):
            self.listing.up(never)
            reading = Reading(self.acts, self.fetched)
            for place in places:
                found = reading.headers(place, limits)
                yield self._error(found) if isinstance(found, Fault) else found

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        raise self._error(Fault("unsupported", "a store by commands unpacks nothing", want.source, phase="unpack"))

    # Changing.

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError | Opened]:
        if proof not in {"reread", "stream", "store"}:
            raise ValueError(f"proof must be reread, stream or store, not {proof!r}")
        with self._border("land"):
            if proof == "store" and self.own_digest is None:
                text = "the store has no digests of its own, so that nothing can be proven by them"
                raise Fault("unsupported", text, phase="land")
            self.listing.up(stop)
            landing = Landing(self.acts, self.scratch, self.journal, self.instance, proof, stop)
            for result in landing.results(frames):
                if isinstance(result, Fault):
                    yield self._error(result)
                else:
                    self.fetched.forget(result.path)
                    yield result

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        raise self._error(
            Fault("unsupported", "a file is put on a store by commands whole, by one of them", phase="fill")
        )

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        with self._border("remove"):
            for path in paths:
                yield self._tried(path, "destination", "remove", self._removed)

    def _removed(self, path: str) -> str:
        seen = self.listing.one(may_change(path), never)
        if isinstance(seen, Folder):
            raise Fault("refused", "it is a folder, not a file", path)
        self.fetched.forget(path)
        if seen is not None:
            self.acts.remove(path, never)
        return path

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        with self._border("move"):
            for old, new in pairs:
                result = self._tried(old, "source", "move", partial(self._moved, new=new))
                if isinstance(result, TransferError):
                    result.facts.update({"from": old, "to": new})
                yield result

    def _moved(self, old: str, new: str) -> str:
        if not self.acts.renames:
            raise Fault("unsupported", "the store's commands rename nothing", old)
        seen = self.listing.look([may_change(old), may_change(new)], never)
        file = listed_or_refused(seen[old], old)
        if seen[new] is not None:
            raise Fault("conflict", "another file has the name", new, "destination")
        self.fetched.forget(old)
        self.acts.rename(file, new, never)
        return new

    def stage(self, paths: Iterable[str]) -> Iterator[TransferError | None]:
        """Some at a time where the command takes many; of those that it then failed for, each alone."""
        with self._border("stage"):
            most = ASKED_FILES if self.templates.takes_many("stage") else 1
            for batch in batches(paths, most):
                results = [self._unfit(path) for path in batch]
                fit = [path for path, error in zip(batch, results, strict=True) if error is None]
                asked = iter(self._asked(fit) if fit else [])
                yield from (next(asked) if error is None else error for error in results)

    def _unfit(self, path: str) -> TransferError | None:
        try:
            self.listing.absolute(path)
        except Fault as fault:
            return self._error(fault_of(fault, path, "source", "stage"))
        return None

    def _asked(self, paths: list[str]) -> list[TransferError | None]:
        ended = self.acts.stage(paths, never)
        if ended.status == 0:
            return [None] * len(paths)
        if len(paths) > 1:
            return [result for path in paths for result in self._asked([path])]
        self.listing.up(never)
        return [self._error(fault_of(ended.fault(f"`stage` {ended.how}"), paths[0], "source", "stage"))]

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]:
        """Remove the parts of dead leases, and what such left half under the final names that the journal here knows.

        All parts lie in one folder, whatever they are of, so that `prefix` bounds the second alone.
        """
        with self._border("sweep"):
            if prefix:
                checked(prefix)
            removed: list[str] = []
            faults: list[Fault] = []
            for path in [*self._dead_parts(dead), *self._dead_notes(prefix, dead)]:
                try:
                    self.acts.remove(path, never)
                    removed.append(path)
                except Fault as fault:
                    faults.append(fault_of(fault, path, "destination", "sweep"))
            if faults:
                faults[0].facts["removed"] = removed
                raise faults[0]
            return removed

    def _dead_parts(self, dead: Callable[[int, int], bool]) -> Iterator[str]:
        for path in self.listing.named(PARTS, never):
            match = PART_NAME.fullmatch(path.rpartition("/")[2])
            if match is not None and match[3] == self.instance and dead(int(match[1]), int(match[2])):
                yield path

    def _dead_notes(self, prefix: str, dead: Callable[[int, int], bool]) -> Iterator[str]:
        """Files that are surely half, and were begun by a dead lease: a whole one is for the next attempt to prove."""
        for note in self.journal.notes() if not self.acts.renames else ():
            below = not prefix or note.path == prefix or note.path.startswith(prefix + "/")
            if not below or not note.process or not dead(note.item, note.epoch) or not end_process(note):
                continue
            seen = self.listing.one(note.path, never)
            if isinstance(seen, Listed) and seen.size < note.size:
                yield note.path

    def prepare(self, streams: int) -> None:
        """There is nothing to connect to."""

    def close(self) -> None:
        """End the commands that run, and remove what was brought."""
        self.running.halt()
        self.fetched.close()
        self.scratch.close()

    # The border.

    def _each(self, phase: str, paths: Iterable[str]) -> Iterator[tuple[str, Seen | TransferError]]:
        """What each path leads to, asked for some at a time; one that cannot be asked about is its own error."""
        with self._border(phase):
            for batch in batches(paths, ASKED_FILES):
                unfit = {path: error for path in batch if (error := self._unfit(path)) is not None}
                for error in unfit.values():
                    error.phase = phase
                seen = self._looked([path for path in batch if path not in unfit], phase)
                yield from ((path, unfit.get(path) or seen.get(path)) for path in batch)

    def _looked(self, paths: list[str], phase: str) -> dict[str, Seen | TransferError]:
        """What is listed of each path; where not all can be told at once, each alone."""
        try:
            return dict(self.listing.look(paths, never))
        except Fault as fault:
            if fault.kind == "host down" or len(paths) == 0 or fault.phase == "stopped":
                raise
            if len(paths) == 1:
                return {paths[0]: self._error(fault_of(fault, paths[0], "source", phase))}
        return {path: seen for one in paths for path, seen in self._looked([one], phase).items()}

    def _tried(self, path: str, side: str, phase: str, act: Callable[[str], str]) -> str | TransferError:
        """One file's result. A store that is down fails the whole call."""
        try:
            return act(path)
        except Fault as fault:
            if fault.kind == "host down":
                raise
            return self._error(fault_of(fault, path, side, phase))


def info(file: Listed) -> FileInfo:
    """A listing without times is a host where all files are of 1970: the same each time it is asked."""
    return FileInfo(file.path, file.size, file.mtime_ns or 0)


def number_of(path: str) -> int:
    """What tells a file from the others of its store, as an inode does."""
    return int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[:7], "big")
