"""Landing on a store that programs speak to: spooled here, put, proven, and only then under its final name.

Each file is first written to the scratch folder and hashed; then it is put, looked for in the listing, and proven: got
back and hashed, or by the store's own digest. Where the store can rename, it was put under another name, in
.stager/parts, and is given its own now. Where it cannot, it was put under its own name at once, after a look that
nothing has that; a note in a journal here says so (see journal.py).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from transfers.agent import (
    OWN,
    QUARANTINE,
    Arrival,
    Buffer,
    Fault,
    Intake,
    Receipt,
    Stop,
    digest_of,
    fail_unit,
    fault_of,
    hasher,
    never,
    part_name,
    stopped,
    write_fully,
)
from transfers.command.acts import Acts, check_room
from transfers.command.journal import Journal, Note, end_process
from transfers.command.listing import Listed, Seen
from transfers.command.running import AT_ONCE
from transfers.fetched import Room

PARTS = OWN + "/parts"
UNSETTLED = 2 * AT_ONCE  # units that are spooled and not yet on the store

Result = Receipt | Fault


class Scratch:
    """Places here for files on their way, in a folder of this process's own. Used by any number of threads."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._rooms: dict[str, Room] = {}
        self._room: Room | None = None

    def take(self) -> str:
        """A place where nothing is yet; it is to be given back."""
        with self._lock:
            if self._room is None:
                self._room = Room(self.folder)
            place = self._room.place()
            self._rooms[place] = self._room
            return place

    def give(self, place: str) -> None:
        """The place is no more needed, nor what is there."""
        with suppress(FileNotFoundError):
            os.unlink(place)
        with self._lock:
            self._rooms.pop(place).leave()

    def close(self) -> None:
        """Remove the folder, now or when the last place in it is given back. A later `take` makes another."""
        with self._lock:
            room, self._room = self._room, None
            if room is not None:
                room.leave()


class Part(Arrival):
    """A file on its way, spooled at a place here."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(facts)
        self.place = ""
        self.fd = -1
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.own: Any = None  # the store's own digest of it, as it should be
        self.stored: Listed | None = None  # what this attempt put, where it lies now
        self.note: Note | None = None  # in the journal, where nothing is renamed
        self.running = False  # the command that puts it was begun
        self.receipt: Receipt | None = None

    @property
    def digest(self) -> str:
        return "sha256:" + self.sha256.hexdigest()

    def make(self, place: str, algorithm: str | None) -> None:
        self.place = place
        check_room(place, self.facts.get("size") or 0)
        self.own = hasher(algorithm) if algorithm is not None else None
        self.fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: Buffer) -> None:
        self.size += write_fully(self.fd, data)
        self.sha256.update(data)
        if self.own is not None:
            self.own.update(data)

    def end(self, said: dict[str, Any]) -> None:
        """All of it came. Fault unless it is what the source sent."""
        mtime_ns = self.facts.get("mtime_ns")
        if mtime_ns is not None:
            os.utime(self.fd, ns=(mtime_ns, mtime_ns))
        self.close()
        if (self.size, self.digest) != (said["size"], said["digest"]):
            facts = {"expected": dict(said), "found": {"size": self.size, "digest": self.digest}}
            text = "what arrived is not what the source sent"
            raise Fault("corrupted on the way", text, self.path, "route", "receive", facts=facts)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def told(self) -> Result:
        """What became of it; a fault says which file it is of."""
        if self.fault is not None:
            return self.named(self.fault)
        assert self.receipt is not None
        return self.receipt


class Landing(Intake[Part]):
    """Takes frames, spools files, and has them put and proven, some units at once."""

    MADE_AT = "local"

    def __init__(
        self, acts: Acts, scratch: Scratch, journal: Journal, instance: str, proof: str, stop: Stop = never
    ) -> None:
        super().__init__(stop)
        self.acts = acts
        self.scratch = scratch
        self.journal = journal
        self.instance = instance
        self.proof = proof
        self.pool = ThreadPoolExecutor(AT_ONCE, "put")
        self.settling: deque[Future[list[Part]]] = deque()

    def ready(self, over: bool) -> Iterator[Result]:
        """The results of what is settled; while more comes, few enough units are left to be."""
        most = 0 if over else UNSETTLED
        while self.settling and (len(self.settling) > most or self.settling[0].done()):
            yield from (part.told() for part in self.settling.popleft().result())

    # The frames, one method each.

    def new(self, facts: dict[str, Any]) -> Part:
        return Part(facts)

    def make(self, part: Part) -> None:
        self.acts.listing.absolute(part.path)
        part.make(self.scratch.take(), self.acts.algorithm if self.proof == "store" else None)

    def write(self, data: Buffer) -> None:
        part = self.part
        if part is None or part.fault is not None:
            return
        try:
            part.write(data)
        except OSError as error:
            self.give_up(part, fault_of(error, part.path, "local", "write"))

    def end(self, said: dict[str, Any]) -> None:
        part = self.part
        if part is None:
            return
        if part.fault is None:
            try:
                part.end(said)
            except (OSError, Fault) as error:
                self.give_up(part, fault_of(error, part.path, "local", "write"))
        self.complete(part)

    # A part's way to its unit, and a unit's to the store.

    def give_up(self, part: Part, fault: Fault) -> None:
        super().give_up(part, fault)
        part.close()

    def hand_over(self, group: list[Part]) -> None:
        self.settling.append(self.pool.submit(self.settle, group))

    def settle(self, group: list[Part]) -> list[Part]:
        """All of a unit onto the store, or none of it. In a thread."""
        try:
            cause = next((part for part in group if part.fault is not None), None)
            if cause is None:
                placing = Placing(self, group)
                try:
                    placing.all()
                    return group
                except (OSError, Fault) as error:
                    cause = placing.undo(error)
            fail_unit(group, cause)
            return group
        finally:
            for part in group:
                self.drop(part)

    def drop(self, part: Part) -> None:
        part.close()
        place, part.place = part.place, ""
        if place:
            self.scratch.give(place)

    def clear(self) -> None:
        """End all that is under way."""
        self.halt.set()
        self.pool.shutdown()
        for part in [*self.group, *([self.part] if self.part is not None else [])]:
            self.drop(part)


class Placing:
    """Puts the parts of one unit on the store, each proven; all, or it undoes what it did."""

    def __init__(self, landing: Landing, group: list[Part]) -> None:
        self.acts = landing.acts
        self.landing = landing
        self.proof = landing.proof
        self.halted = landing.halted
        self.group = group
        self.part = group[0]  # the one it is at
        self.taken: dict[Part, Listed] = {}  # whose names other files have, which are to be set aside
        self.set_aside: list[tuple[Part, str]] = []  # and where their files are then

    def all(self) -> None:
        """Look at every final name before the first put: most conflicts show before anything is done."""
        seen = self.look(self.group)
        for part in self.group:
            self.part = part
            self.decide(part, seen[part.path])
        for part in self.left():
            self.part = part
            self.put(part)
        if self.acts.renames:
            self.name(seen)
        for part in self.group:
            if part.receipt is None:
                part.receipt = self.received(part)
        self.close_notes()

    def left(self) -> list[Part]:
        return [part for part in self.group if part.receipt is None]

    def look(self, parts: list[Part]) -> dict[str, Seen]:
        return self.acts.listing.look([part.path for part in parts], self.halted) if parts else {}

    def decide(self, part: Part, seen: Seen) -> None:
        """What to do about what has the name: adopt it, set it aside, put it anew. Fault "conflict" for neither."""
        if seen is None:
            return
        if not isinstance(seen, Listed):
            raise Fault("conflict", "a folder has the name", part.path, facts={"not_a_file": True})
        if seen.size == part.size and (proof := self.same(part, seen)):
            part.receipt = self.receipt(part, seen, proof, adopted=True)
        elif self.is_left_over(part, seen):
            self.acts.remove(part.path, self.halted)
        elif not part.facts["replace"]:
            facts = {"expected": {"size": part.size, "digest": part.digest}, "found": {"size": seen.size}}
            raise Fault("conflict", "another file has the name", part.path, facts=facts)
        elif not self.acts.renames:
            text = "another file has the name, and the store's commands cannot rename it to set it aside"
            raise Fault("conflict", text, part.path)
        else:
            self.taken[part] = seen

    def is_left_over(self, part: Part, seen: Listed) -> bool:
        """Whether what has the name is what an attempt that died was putting there from here: a part of it, or all."""
        note = None if self.acts.renames else self.landing.journal.found(part.path)
        if note is None or not note.process or seen.size > note.size:
            return False
        if seen.size == note.size and note.digest != part.digest:
            return False  # whole, and perhaps another attempt's good work
        if not end_process(note):
            raise Fault("transient", "an earlier attempt's command is still putting it, and cannot be ended", part.path)
        return True

    def put(self, part: Part) -> None:
        """Put a part, under its own name where nothing else can be, and prove it."""
        begun = None
        to = self.part_path(part) if self.acts.renames else part.path
        if not self.acts.renames:
            facts = part.facts
            part.note = self.landing.journal.note(to, part.size, part.digest, facts["item"], facts["epoch"])
            begun = partial(self.runs, part)
        part.stored = Listed(to, part.size)  # or less of it, whatever comes
        part.stored = self.acts.put(part.place, to, part.size, self.halted, begun)
        self.prove(part)

    def runs(self, part: Part, process: int) -> None:
        """From now on what is under the part's own name may be its own."""
        assert part.note is not None
        part.running = True
        self.landing.journal.begun(part.note, process)

    def part_path(self, part: Part) -> str:
        """A new name for it below .stager/parts, which says whose it is."""
        item, epoch = part.facts["item"], part.facts["epoch"]
        last = part.path.rpartition("/")[2]
        name = part_name(last, item, epoch, 1 + secrets.randbelow(10**9), self.landing.instance)
        return f"{PARTS}/{name.decode('utf-8', 'surrogateescape')}"

    def prove(self, part: Part) -> None:
        """Fault "corrupted on the way" unless the store has what the source sent."""
        assert part.stored is not None
        if self.proof == "stream":  # hashed as it was written here, and of the right size there
            return
        if self.proof == "store":
            expected = f"{self.acts.algorithm}:{part.own.hexdigest()}"
            found = self.acts.own_digest(part.stored, self.halted)
            text = "the digest that the store has of it is not that of what was put"
        else:
            expected, found = part.digest, self.got_back(part.stored)
            text = "what was got back from the store is not what was put"
        if found != expected:
            facts = {"expected": expected, "found": found}
            raise Fault("corrupted on the way", text, part.path, "route", "reread", facts=facts)

    def same(self, part: Part, seen: Listed) -> str:
        """How a file of the store was proven to be the part; empty where it is another.

        One that is on tape is proven by the store's own digest, where there is one: it is not brought for that.
        """
        if self.acts.residency(seen).state == "online" and self.proof != "store":
            return "reread" if self.got_back(seen) == part.digest else ""
        algorithm = self.acts.algorithm
        if algorithm is None:
            self.ask_for(seen)
            return "reread" if self.got_back(seen) == part.digest else ""
        with open(part.place, "rb") as file:
            expected = digest_of(file.fileno(), 0, part.size, algorithm, self.halted)
        return "store" if self.acts.own_digest(seen, self.halted) == expected else ""

    def ask_for(self, file: Listed) -> None:
        """Have a file brought from tape that must be read to be compared: where `get` does not wait, a later try is."""
        if self.acts.templates.stage is not None and self.acts.residency(file).state == "offline":
            self.acts.stage([file.path], self.halted)

    def got_back(self, file: Listed) -> str:
        """The digest of a file that is brought here for that."""
        place = self.landing.scratch.take()
        try:
            self.acts.get(file, place, self.halted)
            with open(place, "rb") as back:
                return digest_of(back.fileno(), 0, file.size, "sha256", self.halted)
        finally:
            self.landing.scratch.give(place)

    def name(self, before: dict[str, Seen]) -> None:
        """Give the proven parts their final names. What has come there since it was looked is not replaced.

        From the first rename on it is not to be stopped: else what is in place would be told as not landed.
        """
        seen = self.look(self.left())
        for part in self.left():
            self.part = part
            if seen[part.path] != before[part.path]:
                self.taken.pop(part, None)
                self.decide(part, seen[part.path])
        if self.halted():
            raise stopped()
        for part, old in self.taken.items():
            self.part = part
            self.make_way(part, old)
        for part in self.group:
            self.part = part
            if part.stored is None:
                continue
            if part.receipt is not None:  # adopted after all
                self.take_back(part)
            else:
                part.stored = self.acts.rename(part.stored, part.path, never)

    def make_way(self, part: Part, old: Listed) -> None:
        """Move the file that has the name into quarantine."""
        for turn in range(100):
            attempt = f"{part.facts['item']}-{part.facts['epoch']}{f'-{turn}' if turn else ''}"
            aside = f"{QUARANTINE}/{attempt}/{part.path}"
            if self.acts.listing.one(aside, never) is None:
                self.set_aside.append((part, aside))
                self.acts.rename(old, aside, never)
                return
        raise Fault("conflict", "the quarantine holds a hundred files of this attempt and name", part.path)

    def received(self, part: Part) -> Receipt:
        assert part.stored is not None
        return self.receipt(part, part.stored, self.proof, adopted=False)

    def receipt(self, part: Part, file: Listed, proof: str, adopted: bool) -> Receipt:
        mtime_ns = file.mtime_ns if file.mtime_ns is not None else part.facts.get("mtime_ns") or 0
        return Receipt(part.facts["item"], part.path, part.size, part.digest, mtime_ns, proof, adopted)

    def close_notes(self) -> None:
        for part in self.group:
            note = part.note or (self.landing.journal.found(part.path) if not self.acts.renames else None)
            if note is not None:
                self.landing.journal.close(note)

    # Undoing.

    def undo(self, error: OSError | Fault) -> Part:
        """Remove what was put, and give back the names that were taken; returns the part that could not be placed.

        What cannot be undone is said in that part's fault: a sweep and the next attempt find it.
        """
        cause = self.part
        cause.fault = fault_of(error, cause.path, "destination", "land")
        if cause.fault.path != cause.path:
            cause.fault.facts["part"], cause.fault.path = cause.fault.path, cause.path
        undone = [(part, partial(self.take_back, part)) for part in self.group if part.stored is not None]
        undone += [(part, partial(self.give_back, part, aside)) for part, aside in self.set_aside]
        for part, action in undone:
            try:
                action()
            except (OSError, Fault) as trouble:
                cause.fault.facts.setdefault("not_undone", []).append(f"{part.path}: {trouble}")
        for part in self.group:
            part.receipt = None
        return cause

    def take_back(self, part: Part) -> None:
        """Remove what this attempt put, where it is known to lie: under its part's name, its own once it surely has
        that, or at once where nothing is renamed. Nobody can stop that."""
        assert part.stored is not None
        journal, note = self.landing.journal, part.note
        if note is not None and not journal.is_open(note):
            return  # another attempt has taken over
        if note is None or part.running:
            seen = self.acts.listing.one(part.stored.path, never)
            if isinstance(seen, Listed) and may_be(seen, part.stored):
                self.acts.remove(seen.path, never)
        if note is not None:
            journal.close(note)

    def give_back(self, part: Part, aside: str) -> None:
        """Rename a file that was set aside to its own name again."""
        seen = self.acts.listing.look([aside, part.path], never)
        old = seen[aside]
        if isinstance(old, Listed) and seen[part.path] is None:
            self.acts.rename(old, part.path, never)


def may_be(seen: Listed, stored: Listed) -> bool:
    """Whether what is listed is what was put, or half of it where no time was seen of it yet."""
    if stored.mtime_ns is None:
        return seen.size <= stored.size
    return (seen.size, seen.mtime_ns) == (stored.size, stored.mtime_ns)
